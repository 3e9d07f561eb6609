"""Small things that only Lightning 0.x and 1.x had."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable
from typing import Any

from torch import nn

from fulmen.compat.old.messages import tell
from fulmen.loggers.logger import Logger
from fulmen.strategies.ddp import DDPStrategy

#: the type of the outputs that hooks at the end of an epoch got
EPOCH_OUTPUT = list[Any]


class DDPSpawnStrategy(DDPStrategy):
    """Processes that are started by ``spawn`` (or ``fork``): ``DDPStrategy(start_method="spawn")``."""

    def __init__(self, *args: Any, start_method: Any = "spawn", **kwargs: Any) -> None:
        tell("`DDPSpawnStrategy`", "Write `DDPStrategy(start_method='spawn')`.")
        super().__init__(*args, start_method=start_method, **kwargs)


class LoggerCollection(Logger):
    """Several loggers as one: what is logged goes to each of them."""

    def __init__(self, logger_iterable: Iterable[Logger]) -> None:
        super().__init__()
        tell("`LoggerCollection(loggers)`", "Write `Trainer(logger=loggers)`.")
        self._loggers = list(logger_iterable)

    def __getitem__(self, index: int) -> Logger:
        return self._loggers[index]

    @property
    def experiment(self) -> list[Any]:
        return [logger.experiment for logger in self._loggers]

    @property
    def name(self) -> str:
        return "_".join(str(logger.name) for logger in self._loggers)

    @property
    def version(self) -> str:
        return "_".join(str(logger.version) for logger in self._loggers)

    @property
    def save_dir(self) -> str | None:
        return self._loggers[0].save_dir if self._loggers else None

    def log_metrics(self, metrics: dict[str, float], step: int | None = None) -> None:
        for logger in self._loggers:
            logger.log_metrics(metrics, step)

    def log_hyperparams(self, params: Any, *args: Any, **kwargs: Any) -> None:
        for logger in self._loggers:
            logger.log_hyperparams(params, *args, **kwargs)

    def log_graph(self, model: Any, input_array: Any = None) -> None:
        for logger in self._loggers:
            logger.log_graph(model, input_array)

    def save(self) -> None:
        for logger in self._loggers:
            logger.save()

    def finalize(self, status: str) -> None:
        for logger in self._loggers:
            logger.finalize(status)


class DummyExperiment:
    """An experiment whose every method does nothing."""

    def nop(self, *args: Any, **kwargs: Any) -> None:
        """Do nothing."""

    def __getattr__(self, name: str) -> Callable[..., None]:
        if name.startswith("__"):
            raise AttributeError(name)
        return self.nop

    def __getitem__(self, place: int) -> DummyExperiment:
        return self


def auto_move_data(forward: Callable[..., Any]) -> Callable[..., Any]:
    """Let ``forward`` move its arguments to the device of the module, outside of a run."""

    @functools.wraps(forward)
    def moving(self: nn.Module, *args: Any, **kwargs: Any) -> Any:
        tell("`@auto_move_data`", "Write `model(batch.to(model.device))`, or `trainer.predict(model, loader)`.")
        if getattr(self, "_trainer", None) is None:
            args, kwargs = self.transfer_batch_to_device((args, kwargs), self.device, 0)  # type: ignore[operator]
        return forward(self, *args, **kwargs)

    return moving


def data_loader(hook: Callable[..., Any]) -> Callable[..., Any]:
    """What stood before ``train_dataloader`` and its sisters in 0.x; they are called the same without it."""
    tell("`@pl.data_loader`", "Leave it out.")
    return hook
