"""Metrics, hyperparameters and checkpoints for Trackio, which keeps them in a database on this disk."""

from __future__ import annotations

from argparse import Namespace
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from fulmen.loggers.library import library, require_library
from fulmen.loggers.logger import Logger, rank_zero_experiment
from fulmen.loggers.params import as_dict, plain, prefixed
from fulmen.loggers.written_checkpoints import aliases, check_log_model, newly_written, sends_each
from fulmen.utilities.rank_zero import rank_zero_only, rank_zero_warn

if TYPE_CHECKING:
    from fulmen.callbacks.checkpoint import Checkpoint


class TrackioLogger(Logger):
    """Write everything to a run of Trackio; ``trackio show`` shows it. ``$TRACKIO_DIR`` says where the database is.

    A run that is resumed from a checkpoint and goes on in the same run (``name`` is given) does not log again the rows
    that are there already.

    Args:
        project: the project; None for ``"lightning_logs"``.
        name: the run, which goes on if it is there; None for a new one with a name that Trackio chooses.
        prefix: stands with ``-`` before every metric's name.
        log_model: store the kept checkpoints as artifacts when the run has ended well (True), each as soon as it is
            written (``"all"``; also True, if ``save_top_k=-1`` keeps all of them), or none (False).
        **kwargs: go to ``trackio.init``, such as ``group``, or ``space_id`` to send all to Hugging Face.

    Raises:
        ModuleNotFoundError: trackio is not installed.
        ValueError: ``log_model`` has another value.
    """

    LOGGER_JOIN_CHAR = "-"

    def __init__(
        self,
        project: str | None = None,
        name: str | None = None,
        prefix: str = "",
        log_model: bool | str = False,
        **kwargs: Any,
    ) -> None:
        require_library("trackio", "trackio", "TrackioLogger")
        check_log_model(log_model, "TrackioLogger")
        self._init = {
            "project": project or "lightning_logs",
            "resume": "allow",
            "embed": False,  # no window in a notebook
            **kwargs,
        }
        self._version = name
        self._prefix = prefix
        self._log_model = log_model
        self._logged_model_time: dict[str, float] = {}
        self._to_store: list[Checkpoint] = []
        self._run: Any = None
        self._rows = 0  #: in the run
        self._rows_before = 0  #: in the run, when this training began
        self._behind = 0  #: rows that it has beyond the checkpoint, which come again

    @property
    @rank_zero_experiment
    def experiment(self) -> Any:
        """Trackio's run, for what this logger does not offer; it is begun when this is first read."""
        if self._run is None:
            trackio = library("trackio")
            self._run = trackio.init(**self._init, name=self._version)
            self._version = self._run.name
            store = getattr(trackio, "SQLiteStorage", None)
            if store is not None and not self._init.get("space_id"):
                self._rows = store.get_log_count(self._init["project"], run=self._run.name, run_id=self._run.id)
            self._rows_before = self._rows
        return self._run

    @property
    def name(self) -> str:
        """The project."""
        return self._init["project"]

    @property
    def version(self) -> str | None:
        """The name of the run; None if Trackio is still to choose it."""
        return self._version

    @rank_zero_only
    def return_to_newest_run(self) -> None:
        if self.version is None:
            rank_zero_warn(
                "`ckpt_path='auto'` cannot know which run of Trackio is the one before, so every start is a fresh one. "
                "Write TrackioLogger(name=...)."
            )

    @rank_zero_only
    def log_hyperparams(self, params: Mapping[str, Any] | Namespace) -> None:  # type: ignore[override]
        """Add to the run's ``config``; what is no plain data becomes text."""
        self.experiment.config.update(plain(as_dict(params)))

    @rank_zero_only
    def log_metrics(self, metrics: Mapping[str, Any], step: int | None = None) -> None:
        """Log one row of numbers (or tensors of one element), or of whatever ``trackio.log`` takes.

        Args:
            metrics: values by name.
            step: the place on the x axis; None for one more.
        """
        run = self.experiment
        if self._behind:
            self._behind -= 1
            return
        row = prefixed(metrics, self._prefix, self.LOGGER_JOIN_CHAR)
        self._rows += 1
        run.log({name: value.item() if hasattr(value, "item") else value for name, value in row.items()}, step=step)

    @rank_zero_only
    def after_save_checkpoint(self, checkpoint_callback: Checkpoint) -> None:
        if sends_each(self._log_model, checkpoint_callback):
            self._store(checkpoint_callback)
        elif self._log_model and checkpoint_callback not in self._to_store:
            self._to_store.append(checkpoint_callback)

    def _store(self, checkpoint_callback: Checkpoint) -> None:
        for written, path, _, _ in newly_written(checkpoint_callback, self._logged_model_time):
            names = aliases(checkpoint_callback, path)
            self.experiment.log_artifact(path, name=f"model-{self.version}", type="model", aliases=names)
            self._logged_model_time[path] = written

    def state_dict(self) -> dict[str, Any]:
        """The run, and how many rows of it belong to what the checkpoint holds."""
        if self._run is None or rank_zero_only.rank != 0:  # type: ignore[attr-defined]
            return {}
        return {"project": self.name, "name": self.version, "rows": self._rows - self._behind}

    @rank_zero_only
    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Leave out the rows that come again and that the run has, if it is the same run; else do nothing."""
        _ = self.experiment
        if (state.get("project"), state.get("name")) == (self.name, self.version):
            self._behind = max(0, self._rows_before - state.get("rows", 0))

    @rank_zero_only
    def finalize(self, status: str) -> None:
        """End Trackio's run, once all is in the database. A later verb goes on in it."""
        if self._run is None:
            return
        if status == "success":
            while self._to_store:
                self._store(self._to_store.pop(0))
        self._run.finish()
        self._run, self._behind = None, 0

    def __getstate__(self) -> dict[str, Any]:
        """Without the run: the copy goes on in it, or begins one, when it is first asked for it."""
        return {**self.__dict__, "_run": None}
