"""Several loggers as one, as ``trainer.logger`` was in 1.x."""

from __future__ import annotations

from argparse import Namespace
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, Any

from fulmen.compat.old.messages import tell
from fulmen.loggers.logger import Logger

if TYPE_CHECKING:
    from torch import Tensor
    from torch.nn import Module

    from fulmen.callbacks.checkpoint import Checkpoint


class LoggerCollection(Logger):
    """Hands everything to each of several loggers; a Trainer takes them out of it.

    Args:
        logger_iterable: the loggers.
    """

    def __init__(self, logger_iterable: Iterable[Logger]) -> None:
        tell("`LoggerCollection(loggers)`", "Write `Trainer(logger=loggers)`.")
        self._loggers = list(logger_iterable)

    def __getitem__(self, index: int) -> Logger:
        return self._loggers[index]

    def __iter__(self) -> Iterator[Logger]:
        return iter(self._loggers)

    def __len__(self) -> int:
        return len(self._loggers)

    @property
    def name(self) -> str:
        """The names, once each, joined by ``_``."""
        return "_".join(dict.fromkeys(str(logger.name) for logger in self._loggers))

    @property
    def version(self) -> str:
        """The versions, once each, joined by ``_``."""
        return "_".join(dict.fromkeys(str(logger.version) for logger in self._loggers))

    @property
    def save_dir(self) -> str | None:
        """That of the first logger."""
        return self._loggers[0].save_dir if self._loggers else None

    @property
    def experiment(self) -> list[Any]:
        """What is behind each logger."""
        return [logger.experiment for logger in self._loggers]

    def log_metrics(self, metrics: dict[str, float], step: int | None = None) -> None:
        for logger in self._loggers:
            logger.log_metrics(metrics, step)

    def log_hyperparams(self, params: dict[str, Any] | Namespace, *args: Any, **kwargs: Any) -> None:
        for logger in self._loggers:
            logger.log_hyperparams(params, *args, **kwargs)

    def log_graph(self, model: Module, input_array: Tensor | None = None) -> None:
        for logger in self._loggers:
            logger.log_graph(model, input_array)

    def save(self) -> None:
        for logger in self._loggers:
            logger.save()

    def finalize(self, status: str) -> None:
        for logger in self._loggers:
            logger.finalize(status)

    def after_save_checkpoint(self, checkpoint_callback: Checkpoint) -> None:
        for logger in self._loggers:
            logger.after_save_checkpoint(checkpoint_callback)
