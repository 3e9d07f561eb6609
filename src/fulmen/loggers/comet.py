"""Metrics and hyperparameters for Comet."""

from __future__ import annotations

import os
from argparse import Namespace
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Literal

from fulmen.loggers.library import library, require_library
from fulmen.loggers.logger import Logger, rank_zero_experiment
from fulmen.loggers.params import as_dict, plain
from fulmen.utilities.rank_zero import rank_zero_deprecation, rank_zero_only, rank_zero_warn

if TYPE_CHECKING:
    from torch import Tensor
    from torch.nn import Module

#: names of before, each with what took its place
_RENAMED = {"experiment_name": "name", "project_name": "project", "save_dir": "offline_directory", "offline": "online"}


class CometLogger(Logger):
    """Send everything to an experiment of Comet, or keep it on the disk until ``comet upload`` sends it.

    Comet takes nothing back and does not say how far an experiment has come: a resumed run that goes on in it (give
    ``experiment_key``) logs once more what the run before had logged after the checkpoint.

    Args:
        api_key: of Comet; None for ``$COMET_API_KEY`` or what ``comet login`` has stored.
        workspace: where the project is; None for that of the user.
        project: the project; None for Comet's ``"Uncategorized"``.
        experiment_key: 32 to 50 letters and digits: the experiment to go on with, or the key of a new one. None for a
            new one with a key that Comet chooses.
        mode: ``"get_or_create"`` (which None means, too), ``"get"`` for an experiment that exists, or ``"create"`` for
            a new one.
        online: True or None sends at once; False writes to the disk alone.
        prefix: stands with ``_`` before every metric's name.
        **kwargs: go to ``comet_ml.ExperimentConfig``, such as ``name``, ``tags`` or ``offline_directory``.

    Raises:
        ModuleNotFoundError: comet_ml is not installed.
    """

    def __init__(
        self,
        *,
        api_key: str | None = None,
        workspace: str | None = None,
        project: str | None = None,
        experiment_key: str | None = None,
        mode: Literal["get_or_create", "get", "create"] | None = None,
        online: bool | None = None,
        prefix: str | None = None,
        **kwargs: Any,
    ) -> None:
        require_library("comet_ml", "comet", "CometLogger")
        for old, new in _RENAMED.items():
            if old in kwargs:
                value = kwargs.pop(old)
                rank_zero_deprecation(f"`CometLogger({old}=...)` is now called `{new}`; write that.")
                if old == "project_name":
                    project = project or value
                elif old == "offline":
                    online = not value if online is None else online
                else:
                    kwargs.setdefault(new, value)
        self._start = {
            "api_key": api_key,
            "workspace": workspace,
            "project": project,
            "mode": mode,
            "online": online,
        }
        self._version = experiment_key
        self._config = kwargs
        self._prefix = prefix
        self._experiment: Any = None

    @property
    @rank_zero_experiment
    def experiment(self) -> Any:
        """Comet's experiment, for what this logger does not offer; it is begun when this is first read.

        Example::

            self.logger.experiment.log_image(array, name="sample")
        """
        if self._experiment is None:
            os.environ.setdefault("COMET_DISABLE_AUTO_LOGGING", "1")  # or it would log what torch does a second time
            comet_ml = library("comet_ml")
            self._experiment = comet_ml.start(
                **self._start,
                experiment_key=self._version,
                experiment_config=comet_ml.ExperimentConfig(**self._config),
            )
            self._version = self._experiment.get_key()
            self._experiment.log_other("Created from", "fulmen")
        return self._experiment

    @property
    def name(self) -> str | None:
        """The project."""
        return self._start["project"]

    @property
    def version(self) -> str | None:
        """The key of the experiment; None if Comet is still to choose it."""
        return self._version

    @property
    def save_dir(self) -> str | None:
        """The folder of experiments that are not sent at once."""
        return self._config.get("offline_directory")

    @rank_zero_only
    def return_to_newest_run(self) -> None:
        if self.version is None:
            rank_zero_warn(
                "`ckpt_path='auto'` cannot know which experiment of Comet is that of the run before, so every start is "
                "a fresh one. Write CometLogger(experiment_key=...)."
            )

    @rank_zero_only
    def log_hyperparams(self, params: Mapping[str, Any] | Namespace) -> None:  # type: ignore[override]
        """Log the parameters of the experiment; nested ones as Comet shows them."""
        self.experiment.log_parameters(plain(as_dict(params)), nested_support=True)

    @rank_zero_only
    def log_metrics(self, metrics: Mapping[str, Any], step: int | None = None) -> None:
        """Log numbers (or tensors of one element); ``epoch`` among them becomes the epoch of the others.

        Args:
            metrics: values by name.
            step: the place on the x axis; None leaves it to Comet.
        """
        numbers = {name: value.item() if hasattr(value, "item") else value for name, value in metrics.items()}
        epoch = numbers.pop("epoch", None)
        self.experiment.log_metrics(
            numbers, step=step, epoch=None if epoch is None else int(epoch), prefix=self._prefix
        )

    @rank_zero_only
    def log_graph(self, model: Module, input_array: Tensor | None = None) -> None:
        """Log the model's modules as text, unless ``log_graph=False`` was given."""
        if self._config.get("log_graph") is not False:
            self.experiment.set_model_graph(model)

    @rank_zero_only
    def finalize(self, status: str) -> None:
        """Send what is left. The experiment stays open until ``experiment.end()``, or the end of the process."""
        if self._experiment is not None:
            self._experiment.flush()

    def __getstate__(self) -> dict[str, Any]:
        """Without the experiment: the copy goes on in it, or begins one, when it is first asked for it."""
        start = dict(self._start)
        if self._experiment is not None and start["mode"] == "create":
            start["mode"] = "get"
        return {**self.__dict__, "_experiment": None, "_start": start}
