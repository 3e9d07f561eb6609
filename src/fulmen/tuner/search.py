"""Where a search runs: in a run of its own, or within one that is under way. Either way nothing of it is left."""

from __future__ import annotations

from collections.abc import Callable, Generator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from fulmen.callbacks.checkpoint import Checkpoint
from fulmen.callbacks.early_stopping import EarlyStopping
from fulmen.callbacks.model_summary import ModelSummary
from fulmen.callbacks.progress.progress_bar import ProgressBar
from fulmen.callbacks.timer import Timer
from fulmen.core.datamodule import LightningDataModule
from fulmen.loggers.logger import DummyLogger
from fulmen.profilers.base import PassThroughProfiler
from fulmen.tuner.snapshot import Snapshot, unchanged
from fulmen.utilities.exceptions import MisconfigurationException

if TYPE_CHECKING:
    from fulmen.core.module import LightningModule
    from fulmen.trainer.trainer import Trainer

#: callbacks that show, write or stop a run; the others are set up for a search, as they may prepare the module for it
_SILENT = (Checkpoint, EarlyStopping, ModelSummary, ProgressBar, Timer)


def searched(
    trainer: Trainer,
    verb: str,
    search: Callable[[Trainer], Any],
    model: LightningModule,
    loaders: dict[str, Any],
    datamodule: LightningDataModule | None,
    finders: tuple[type, ...],
) -> Any:
    """What ``search`` finds in a run of ``verb`` that is set up for it alone. Afterwards, also after an exception,
    everything is as it was.

    Args:
        search: gets the trainer; makes trials.
        loaders: as they were passed, by stage.
        finders: classes of callbacks that search themselves.

    Raises:
        RuntimeError: the trainer is busy.
    """
    owners = [model, *loaders.values(), datamodule, trainer.datamodule, *trainer.callbacks]
    owners += [trainer.progress, trainer.precision_plugin]
    metrics = trainer.metrics
    windows = [metrics.callback, metrics.logged, metrics.progress_bar]
    lists = [trainer._callbacks, trainer._loggers, trainer._limits]
    with unchanged([*owners, *windows, *lists, *trainer.optimizers], shallow=[trainer, trainer.state]):
        trainer._callbacks = [one for one in trainer._callbacks if not isinstance(one, (*_SILENT, *finders))]
        trainer._loggers = [DummyLogger()] if trainer._loggers else []
        trainer.profiler = PassThroughProfiler()
        return trainer._run(verb, search, model, loaders, datamodule, None, None, is_search=True)


def snapshot_of_run(trainer: Trainer) -> Snapshot:
    """Everything that a trial within this run changes, as it is now."""
    data = trainer.data
    loaders = [source.loader for one in data.loaders.values() for source in one.sources]
    owners = [trainer.lightning_module, trainer.datamodule, *data.given.values(), *loaders]
    owners += [trainer.precision_plugin, *trainer.optimizers, *trainer.wrapped_optimizers]
    owners += [config.scheduler for config in trainer.lr_scheduler_configs]
    return Snapshot(owners, leave_out=trainer.callbacks)


@contextmanager
def within(trainer: Trainer) -> Generator[None, None, None]:
    """A search within a run: afterwards everything that the run uses is as it was."""
    before = snapshot_of_run(trainer)
    try:
        yield
    finally:
        before.restore()


def datamodule_of(trainer: Trainer, loaders: dict[str, Any], datamodule: Any) -> Any:
    """The datamodule of a run with these arguments; None if it has none."""
    first = next(iter(loaders.values()), None)
    return first if isinstance(first, LightningDataModule) else datamodule


def refuse_second_finder(trainer: Trainer, kind: type, method: str) -> None:
    """Refuse to search twice.

    Raises:
        ValueError: a callback of the trainer searches the same.
    """
    if any(isinstance(callback, kind) for callback in trainer.callbacks):
        raise ValueError(
            f"the Trainer has the callback {kind.__name__}, which searches in each `fit` anyway. Leave it out, or do "
            f"not call `tuner.{method}`."
        )


def check_verb(
    method: str, verb: str, train: Any, val: Any, dataloaders: Any, allowed: tuple[str, ...] = ("fit",)
) -> dict[str, Any]:
    """Check which verb a search is for, and the loaders for it.

    Returns:
        The loaders by stage.

    Raises:
        ValueError: there is no such verb.
        MisconfigurationException: the search is not for this verb, or loaders are of another.
    """
    if verb not in ("fit", "validate", "test", "predict"):
        raise ValueError(f"`method={verb!r}`: must be one of {', '.join(map(repr, allowed))}.")
    if verb not in allowed:
        raise MisconfigurationException(
            f"`tuner.{method}(method={verb!r})`: a learning rate is of use to `fit` alone. Leave `method` out."
        )
    if verb == "fit":
        if dataloaders is not None:
            raise MisconfigurationException(
                f"`tuner.{method}` for `fit` got `dataloaders`, which are those of the other methods. Write "
                "`train_dataloaders=...`."
            )
        return {"train": train, "validate": val}
    if train is not None or val is not None:
        raise MisconfigurationException(
            f"`tuner.{method}(method={verb!r})` got loaders for training. Write `dataloaders=...`."
        )
    return {verb: dataloaders}
