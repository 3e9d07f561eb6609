"""Metrics, hyperparameters and checkpoints for Neptune."""

from __future__ import annotations

import os
from argparse import Namespace
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fulmen.loggers.library import library, require_library
from fulmen.loggers.logger import Logger, rank_zero_experiment
from fulmen.loggers.params import as_dict, plain
from fulmen.utilities.cloud_io import is_remote
from fulmen.utilities.rank_zero import rank_zero_only, rank_zero_warn

if TYPE_CHECKING:
    from torch.nn import Module

    from fulmen.callbacks.checkpoint import Checkpoint


class NeptuneLogger(Logger):
    """Send everything to a run of Neptune, or keep it on the disk (``mode="offline"``) or nowhere (``mode="debug"``).

    Neptune's own service is closed: this is for those who run the server themselves, and for programs that name the
    class. Neptune takes nothing back: a resumed run that goes on in the same run (give ``with_id``) logs once more what
    the run before had logged after the checkpoint.

    Args:
        api_key: the token; None for ``$NEPTUNE_API_TOKEN``.
        project: ``<workspace>/<project>``; None for ``$NEPTUNE_PROJECT``.
        name: the name of the run that is shown; None for Neptune's own.
        run: a run that exists, to be used.
        log_model_checkpoints: upload the checkpoints that are kept.
        prefix: the folder in the run that holds everything; ``""`` for none.
        **neptune_run_kwargs: go to ``neptune.init_run``, such as ``tags``, ``mode`` or ``with_id``.

    Raises:
        ModuleNotFoundError: neptune is not installed.
        ValueError: ``run`` and something that is for a new run are both given.
    """

    LOGGER_JOIN_CHAR = "/"
    PARAMETERS_KEY = "hyperparams"
    ARTIFACTS_KEY = "artifacts"

    def __init__(
        self,
        *,
        api_key: str | None = None,
        project: str | None = None,
        name: str | None = None,
        run: Any = None,
        log_model_checkpoints: bool | None = True,
        prefix: str = "training",
        **neptune_run_kwargs: Any,
    ) -> None:
        require_library("neptune", "neptune", "NeptuneLogger")
        self._init = {"api_token": api_key, "project": project, "name": name, **neptune_run_kwargs}
        given = [key for key, value in self._init.items() if value is not None]
        if run is not None and given:
            raise ValueError(
                f"NeptuneLogger(run=...) uses a run that exists, so that {', '.join(given)} would have no effect: "
                "leave one or the other out."
            )
        self._run = run
        self._log_model_checkpoints = log_model_checkpoints
        self._prefix = prefix
        self._uploaded: set[str] = set()

    @property
    @rank_zero_experiment
    def experiment(self) -> Any:
        """Neptune's run, for what this logger does not offer; it is begun when this is first read.

        Example::

            self.logger.experiment["note"] = "hello"
        """
        if self._run is None:
            self._run = library("neptune").init_run(**self._init)
            self._run["source_code/integrations/fulmen"] = library("fulmen").__version__
        return self._run

    @property
    def run(self) -> Any:
        """The same as ``experiment``."""
        return self.experiment

    @property
    def name(self) -> str | None:
        """The name of the run, None if Neptune has chosen it."""
        return self._init["name"]

    @property
    def version(self) -> str | None:
        """The id of the run within the project, such as ``PROJ-12``; its unique key for one that Neptune's server does
        not know. None before it has begun.
        """
        if self._run is None:
            return self._init.get("with_id")
        return getattr(self._run, "_sys_id", None) or str(getattr(self._run, "_id", ""))

    @property
    def save_dir(self) -> str:
        """``.neptune`` in the current directory, where the library keeps its files."""
        return os.path.join(os.getcwd(), ".neptune")

    @rank_zero_only
    def return_to_newest_run(self) -> None:
        if self.version is None:
            rank_zero_warn(
                "`ckpt_path='auto'` cannot know which run of Neptune is the one before, so every start is a fresh one. "
                "Write NeptuneLogger(with_id=...)."
            )

    def _key(self, *parts: str) -> str:
        return self.LOGGER_JOIN_CHAR.join(part for part in (self._prefix, *parts) if part)

    @rank_zero_only
    def log_hyperparams(self, params: Mapping[str, Any] | Namespace) -> None:  # type: ignore[override]
        """Log the parameters of the run below ``<prefix>/hyperparams``; what is no plain data becomes text."""
        as_texts = library("neptune.utils").stringify_unsupported
        self.experiment[self._key(self.PARAMETERS_KEY)] = as_texts(plain(as_dict(params)))

    @rank_zero_only
    def log_metrics(self, metrics: Mapping[str, Any], step: int | None = None) -> None:
        """Append numbers (or tensors of one element) to the series ``<prefix>/<name>``.

        Args:
            metrics: values by name.
            step: the place on the x axis; None for one more.
        """
        for name, value in metrics.items():
            self.experiment[self._key(name)].append(value.item() if hasattr(value, "item") else value, step=step)

    @rank_zero_only
    def log_model_summary(self, model: Module, max_depth: int = -1) -> None:
        """Upload the table of the model's layers; ``max_depth`` of them, -1 for all."""
        from fulmen.utilities.model_summary import ModelSummary

        text = str(ModelSummary(model, max_depth=max_depth))  # type: ignore[arg-type]
        content = library("neptune.types").File.from_content(content=text, extension="txt")
        self.experiment[self._key("model/summary")] = content

    @rank_zero_only
    def after_save_checkpoint(self, checkpoint_callback: Checkpoint) -> None:
        """Upload the checkpoints that ``checkpoint_callback`` keeps, and take away those that it has removed."""
        if not self._log_model_checkpoints:
            return
        kept = dict.fromkeys(getattr(checkpoint_callback, "best_k_models", None) or {})
        if getattr(checkpoint_callback, "save_last", True):
            kept[getattr(checkpoint_callback, "last_model_path", "")] = None
        best = getattr(checkpoint_callback, "best_model_path", "")
        kept[best] = None
        folder, there = self._key("model/checkpoints"), set()
        for path in kept:
            if path and not is_remote(path) and os.path.isfile(path):
                there.add(f"{folder}/{Path(path).stem}")
                self.experiment[f"{folder}/{Path(path).stem}"].upload(path)
        for gone in self._uploaded - there:
            del self.experiment[gone]
        self._uploaded = there
        if best:
            self.experiment[self._key("model/best_model_path")] = best
            score = getattr(checkpoint_callback, "best_model_score", None)
            if score is not None:
                self.experiment[self._key("model/best_model_score")] = float(score)

    @rank_zero_only
    def finalize(self, status: str) -> None:
        """Note how the run has ended, and send what is left. It stays open until ``run.stop()``, or the end of the
        process.
        """
        if self._run is not None:
            if status:
                self._run[self._key("status")] = status
            self._run.wait()

    def __getstate__(self) -> dict[str, Any]:
        """Without the run: the copy goes on in it, or begins one, when it is first asked for it."""
        init = dict(self._init)
        known = getattr(self._run, "_sys_id", None)
        if known:
            init["with_id"] = known
        return {**self.__dict__, "_run": None, "_init": init}
