"""Metrics, hyperparameters, media and checkpoints for Weights & Biases."""

from __future__ import annotations

import os
from argparse import Namespace
from collections.abc import Mapping, Sequence
from contextlib import suppress
from typing import TYPE_CHECKING, Any, Literal

from fulmen.loggers import files
from fulmen.loggers.library import library, require_library
from fulmen.loggers.logger import Logger, rank_zero_experiment
from fulmen.loggers.params import as_dict, plain, prefixed
from fulmen.loggers.written_checkpoints import aliases, check_log_model, description, newly_written, sends_each
from fulmen.utilities.exceptions import MisconfigurationException
from fulmen.utilities.rank_zero import rank_zero_info, rank_zero_only, rank_zero_warn

if TYPE_CHECKING:
    from torch.nn import Module

    from fulmen.callbacks.checkpoint import Checkpoint

_STEP = "trainer/global_step"


class WandbLogger(Logger):
    """Send everything to a run of Weights & Biases, or keep it on the disk until ``wandb sync`` sends it.

    The step of a row stands in it as ``trainer/global_step``, which is the x axis of all charts; wandb's own step
    counts the rows, so that ``logger.experiment.log(...)`` may be called at any time. If ``wandb.init()`` was called
    before, its run is used.

    A run that is resumed from a checkpoint and goes on in the same wandb run (``id`` is given, or
    ``fit(ckpt_path="auto")`` found it) does not log again the rows that wandb has already, as nothing can be taken back
    there. Offline, wandb begins a folder of its own for the same run; its rows are numbered on from the checkpoint.

    Args:
        name: the name of the run that is shown; None lets wandb choose one.
        save_dir: where wandb's folder and the checkpoints go; it is made.
        version: the same as ``id``, and goes before it.
        offline: write to the disk alone.
        dir: the same as ``save_dir``, where that is None.
        id: the run to go on with, or the id of a new one; None for a new one with an id that wandb chooses.
        anonymous: True sends it without an account, where wandb still offers this.
        project: the project; None for ``$WANDB_PROJECT`` or ``"lightning_logs"``.
        log_model: upload the kept checkpoints when the run has ended well (True), each as soon as it is written
            (``"all"``; also True, if ``save_top_k=-1`` keeps all of them), or none (False).
        experiment: a run that exists, to be used.
        prefix: stands with ``-`` before every metric's name.
        checkpoint_name: the name of the artifact of checkpoints; None for ``model-<id of the run>``.
        add_file_policy: ``"mutable"`` copies a checkpoint before it is uploaded, so that it may be removed meanwhile;
            ``"immutable"`` uploads it from its place, which saves the room.
        **kwargs: go to ``wandb.init``, such as ``entity``, ``group``, ``tags``, ``config`` or ``mode``.

    Raises:
        ModuleNotFoundError: wandb is not installed.
        MisconfigurationException: ``offline=True`` with ``log_model``.
        ValueError: ``log_model`` or ``add_file_policy`` has another value.
    """

    LOGGER_JOIN_CHAR = "-"

    def __init__(
        self,
        name: str | None = None,
        save_dir: str | os.PathLike[str] | None = ".",
        version: str | None = None,
        offline: bool = False,
        dir: str | os.PathLike[str] | None = None,
        id: str | None = None,
        anonymous: bool | None = None,
        project: str | None = None,
        log_model: Literal["all"] | bool = False,
        experiment: Any = None,
        prefix: str = "",
        checkpoint_name: str | None = None,
        add_file_policy: Literal["mutable", "immutable"] = "mutable",
        **kwargs: Any,
    ) -> None:
        require_library("wandb", "wandb", "WandbLogger")
        check_log_model(log_model, "WandbLogger")
        if offline and log_model:
            raise MisconfigurationException(
                f"WandbLogger(log_model={log_model!r}, offline=True): offline, no checkpoint is uploaded. Leave one of "
                "the two out."
            )
        if add_file_policy not in ("mutable", "immutable"):
            raise ValueError(
                f"WandbLogger(add_file_policy={add_file_policy!r}) is not known: write 'mutable' or 'immutable'."
            )
        folder = save_dir if save_dir is not None else dir
        self._wandb_init: dict[str, Any] = {
            "name": name,
            "project": project or os.environ.get("WANDB_PROJECT", "lightning_logs"),
            "dir": None if folder is None else os.fspath(folder),
            "id": version or id,
            "resume": "allow",
        }
        if anonymous is not None:
            self._wandb_init["anonymous"] = "allow" if anonymous else None
        if offline:
            self._wandb_init["mode"] = "offline"
        self._wandb_init.update(kwargs)
        self._version: str | None = self._wandb_init["id"]  #: of the run
        self._offline = offline
        self._log_model = log_model
        self._prefix = prefix
        self._experiment = experiment
        self._checkpoint_name = checkpoint_name
        self.add_file_policy = add_file_policy
        self._logged_model_time: dict[str, float] = {}
        self._to_upload: list[Checkpoint] = []
        self._attach_id: str | None = None  #: of the run that the process has which sent this logger here
        self._rows_before = 0  #: in the run, when this training began
        self._last_before: Any = None  #: the step of its last row at that time, if it had one
        self._behind = 0  #: rows that the run has beyond the checkpoint, all told
        self._skipped = 0  #: of these, how many came again
        self._rows_at_return = 0  #: in the run, when it was found to be beyond
        self._next_row: int | None = None  #: the number of the next row, if it is not one more

    @property
    def name(self) -> str | None:
        """The project."""
        return self._wandb_init["project"]

    @property
    def version(self) -> str | None:
        """The id of the run; None if wandb is still to choose it."""
        return self._experiment.id if self._experiment is not None else self._version

    @property
    def save_dir(self) -> str | None:
        return self._wandb_init["dir"]

    @property
    def newest_version(self) -> str | None:
        if not self._chooses_run():
            return self.version
        return files.newest_named_run(files.experiment_dir(self.save_dir or ".", self.name or ""))

    def return_to_newest_run(self) -> None:
        if self._chooses_run():
            self._version = self.newest_version

    def _chooses_run(self) -> bool:
        """Whether nobody has said which run to go on with."""
        if self.version is not None or os.environ.get("WANDB_RUN_ID"):
            return False
        return library("wandb").run is None

    @property
    @rank_zero_experiment
    def experiment(self) -> Any:
        """The run of wandb, for what this logger does not offer; it is begun when this is first read.

        Example::

            self.logger.experiment.log({"my/histogram": wandb.Histogram(values)})
        """
        if self._experiment is None:
            self._experiment = run = self._begin()
            self._version = run.id
            self._note_place(run)
            if self._wandb_init.get("sync_tensorboard"):
                run.define_metric("*", step_metric="global_step")
            else:
                run.define_metric(_STEP)
                run.define_metric("*", step_metric=_STEP, step_sync=True)
        return self._experiment

    def _begin(self) -> Any:
        wandb = library("wandb")
        if wandb.run is not None:
            asked = {"name": self._wandb_init["name"], "id": self._version}
            asked = {name: value for name, value in asked.items() if value is not None}
            if any(getattr(wandb.run, name, None) != value for name, value in asked.items()):
                rank_zero_warn(
                    f"WandbLogger goes on in the run {wandb.run.id} that is open already, so that "
                    f"{', '.join(f'{name}={value!r}' for name, value in asked.items())} has no effect. Call "
                    "`wandb.finish()` first for a run of its own."
                )
            return wandb.run
        if self._attach_id is not None and os.environ.get("WANDB_SERVICE"):
            return wandb.attach(self._attach_id)
        if self.save_dir is not None:
            os.makedirs(self.save_dir, exist_ok=True)
        return wandb.init(**{**self._wandb_init, "id": self._version})

    def watch(self, model: Module, log: str | None = "gradients", log_freq: int = 100, log_graph: bool = True) -> None:
        """Have wandb look at the model while it trains.

        Args:
            model: the model.
            log: histograms of ``"gradients"``, of ``"parameters"``, of ``"all"``, or of nothing (None).
            log_freq: every how many batches.
            log_graph: whether to show the model's graph.
        """
        self.experiment.watch(model, log=log, log_freq=log_freq, log_graph=log_graph)

    @rank_zero_only
    def log_hyperparams(self, params: Mapping[str, Any] | Namespace) -> None:  # type: ignore[override]
        """Add to the run's ``config``; what is no plain data becomes text."""
        self.experiment.config.update(plain(as_dict(params)), allow_val_change=True)

    @rank_zero_only
    def log_metrics(self, metrics: Mapping[str, Any], step: int | None = None) -> None:
        """Log one row of numbers, or of whatever ``wandb.Run.log`` takes.

        Args:
            metrics: values by name.
            step: stands in the row as ``trainer/global_step``; None for none.
        """
        run = self.experiment
        row = dict(prefixed(metrics, self._prefix, self.LOGGER_JOIN_CHAR))
        if step is not None and not self._wandb_init.get("sync_tensorboard"):
            row[_STEP] = step
        if self._behind and self._is_there(step):
            return
        if self._next_row is None:
            run.log(row)
        else:
            run.log(row, step=self._next_row, commit=True)
            self._next_row = None

    @rank_zero_only
    def log_table(
        self,
        key: str,
        columns: list[str] | None = None,
        data: list[list[Any]] | None = None,
        dataframe: Any = None,
        step: int | None = None,
    ) -> None:
        """Log a table: ``columns`` with the rows ``data``, or a pandas ``dataframe``."""
        self.log_metrics({key: library("wandb").Table(columns=columns, data=data, dataframe=dataframe)}, step)

    @rank_zero_only
    def log_text(
        self,
        key: str,
        columns: list[str] | None = None,
        data: list[list[str]] | None = None,
        dataframe: Any = None,
        step: int | None = None,
    ) -> None:
        """Log texts as a table: ``columns`` with the rows ``data``, or a pandas ``dataframe``."""
        self.log_table(key, columns, data, dataframe, step)

    @rank_zero_only
    def log_image(self, key: str, images: list[Any], step: int | None = None, **kwargs: Any) -> None:
        """Log images: arrays, tensors, images of PIL, or paths.

        Args:
            key: their name.
            images: the images, one or more.
            step: stands beside them as ``trainer/global_step``.
            **kwargs: lists as long as ``images`` of what ``wandb.Image`` takes, such as ``caption``.

        Raises:
            TypeError: ``images`` is no list.
            ValueError: a list is not as long.
        """
        self._log_media("Image", "images", key, images, step, kwargs)

    @rank_zero_only
    def log_audio(self, key: str, audios: list[Any], step: int | None = None, **kwargs: Any) -> None:
        """Log sounds: arrays or paths; ``kwargs`` as in :meth:`log_image`, such as ``sample_rate=[16000]``."""
        self._log_media("Audio", "audios", key, audios, step, kwargs)

    @rank_zero_only
    def log_video(self, key: str, videos: list[Any], step: int | None = None, **kwargs: Any) -> None:
        """Log films: arrays or paths; ``kwargs`` as in :meth:`log_image`, such as ``format=["mp4"]``."""
        self._log_media("Video", "videos", key, videos, step, kwargs)

    def _log_media(
        self, kind: str, what: str, key: str, media: list[Any], step: int | None, options: Mapping[str, Any]
    ) -> None:
        if not isinstance(media, list):
            raise TypeError(f"`{what}` of {key!r} must be a list, not {type(media).__name__}: write [it].")
        for name, values in options.items():
            if not isinstance(values, Sequence) or isinstance(values, str) or len(values) != len(media):
                raise ValueError(
                    f"`{name}={values!r}` of {key!r} must be a list with one value for each of the {len(media)} {what}."
                )
        make = getattr(library("wandb"), kind)
        made = [make(each, **{name: options[name][place] for name in options}) for place, each in enumerate(media)]
        self.log_metrics({key: made}, step)

    @staticmethod
    @rank_zero_only
    def download_artifact(
        artifact: str,
        save_dir: str | os.PathLike[str] | None = None,
        artifact_type: str | None = None,
        use_artifact: bool = True,
    ) -> str:
        """Download the files of an artifact, such as a checkpoint.

        Args:
            artifact: ``<name>:<version or alias>``, with ``<entity>/<project>/`` before it if they are others.
            save_dir: where to; None for a place that wandb chooses.
            artifact_type: such as ``"model"``; None for any.
            use_artifact: note in the run that it was used, if one is open.

        Returns:
            The folder with the files.
        """
        wandb = library("wandb")
        if wandb.run is not None and use_artifact:
            found = wandb.run.use_artifact(artifact)
        else:
            found = wandb.Api().artifact(artifact, type=artifact_type)
        return found.download(root=None if save_dir is None else os.fspath(save_dir))

    @rank_zero_only
    def use_artifact(self, artifact: str, artifact_type: str | None = None) -> Any:
        """Note that the run uses an artifact, and return it; arguments as in :meth:`download_artifact`."""
        return self.experiment.use_artifact(artifact, type=artifact_type)

    @rank_zero_only
    def after_save_checkpoint(self, checkpoint_callback: Checkpoint) -> None:
        if sends_each(self._log_model, checkpoint_callback):
            self._upload(checkpoint_callback)
        elif self._log_model and checkpoint_callback not in self._to_upload:
            self._to_upload.append(checkpoint_callback)

    def _upload(self, checkpoint_callback: Checkpoint) -> None:
        wandb, run = library("wandb"), self.experiment
        for written, path, score, _ in newly_written(checkpoint_callback, self._logged_model_time):
            artifact = wandb.Artifact(
                name=self._checkpoint_name or f"model-{run.id}",
                type="model",
                metadata=plain(description(checkpoint_callback, path, score)),
            )
            if os.path.isdir(path):
                artifact.add_dir(path, name="model.ckpt", policy=self.add_file_policy)
            else:
                artifact.add_file(path, name="model.ckpt", policy=self.add_file_policy)
            run.log_artifact(artifact, aliases=aliases(checkpoint_callback, path))
            self._logged_model_time[path] = written

    def state_dict(self) -> dict[str, Any]:
        """The run, and how many rows of it belong to what the checkpoint holds."""
        if self._experiment is None or rank_zero_only.rank != 0:  # type: ignore[attr-defined]
            return {}
        rows = _rows_in(self._experiment) - self._still_there()
        return {"id": self._experiment.id, "rows": rows if self._next_row is None else self._next_row}

    @rank_zero_only
    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Leave out the rows that come again and that the run has, if it is the same run; else do nothing."""
        run = self.experiment
        if state.get("id") != run.id:
            return
        rows = state.get("rows", 0)
        self._behind, self._skipped, self._rows_at_return = max(0, self._rows_before - rows), 0, _rows_in(run)
        self._next_row = rows if self._rows_at_return < rows else None
        if self._behind:
            rank_zero_info(
                "the wandb run %s has %d rows that were logged after the checkpoint; they are not logged again.",
                run.id,
                self._behind,
            )

    def _note_place(self, run: Any) -> None:
        """Remember how far the run has come before a training logs its first row."""
        self._rows_before, self._last_before = _rows_in(run), None
        with suppress(Exception):  # wandb has to ask for it
            self._last_before = run.summary.get(_STEP)

    def _is_there(self, step: int | None) -> bool:
        """Whether the row that comes now is one that the run has from before. Better twice than never."""
        is_later = step is not None and isinstance(self._last_before, (int, float)) and step > self._last_before
        if is_later or not self._still_there():
            self._behind = 0
            return False
        self._skipped += 1
        return True

    def _still_there(self) -> int:
        """How many rows the run has that are still to come again. Those that somebody logs by hand come, too."""
        if not self._behind:
            return 0
        by_hand = _rows_in(self._experiment) - self._rows_at_return
        return max(0, self._behind - self._skipped - by_hand)

    @rank_zero_only
    def finalize(self, status: str) -> None:
        """Upload the kept checkpoints if the run has ended well. wandb's run stays open until ``wandb.finish()``, or
        the end of the process.
        """
        if self._experiment is None:
            return
        if status == "success":
            while self._to_upload:
                self._upload(self._to_upload.pop(0))
        self._note_place(self._experiment)
        self._behind = 0

    def __getstate__(self) -> dict[str, Any]:
        """Without the run: the copy goes on in it, or begins one, when it is first asked for it."""
        if self._experiment is None:
            return dict(self.__dict__)
        return {
            **self.__dict__,
            "_experiment": None,
            "_attach_id": self._experiment.id,
            "_version": self._experiment.id,
        }


def _rows_in(run: Any) -> int:
    step = getattr(run, "step", 0)
    return step if isinstance(step, int) else 0  # a run that is switched off has none
