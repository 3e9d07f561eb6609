"""Misuses of callbacks, and what a NonFiniteGuard says of a run that goes wrong."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from misuse_table import Misuse, Scene, enter, misuse

from fulmen.callbacks import (
    BasePredictionWriter,
    BatchSizeFinder,
    DeviceStatsMonitor,
    LearningRateFinder,
    LearningRateMonitor,
    ModelSummary,
    NonFiniteGuard,
    OnExceptionCheckpoint,
    PlainProgress,
    RichModelSummary,
    RichProgressBar,
    ThroughputMonitor,
    Timer,
)
from fulmen.utilities.exceptions import MisconfigurationException, NonFiniteException

_SUBJECT = "Callbacks"


def _argument(callback: Callable[..., Any], raises: type[BaseException], *says: str, **arguments: Any) -> None:
    """A value that an argument of a callback cannot have."""
    written = ", ".join(f"{name}={value!r}" for name, value in arguments.items())
    name = f"{getattr(callback, '__name__', callback)}({written})"
    enter(Misuse(_SUBJECT, name, lambda scene: callback(**arguments), raises, (written, *says)))


_argument(NonFiniteGuard, MisconfigurationException, "'stop', 'skip' or 'rollback'", action="halt")
_argument(NonFiniteGuard, MisconfigurationException, "a whole number from 0, or None", max_skips=-1)
_argument(NonFiniteGuard, MisconfigurationException, "a whole number from 1", snapshot_every_n_steps=0)
_argument(BasePredictionWriter, MisconfigurationException, "'batch', 'epoch'", write_interval="run")
_argument(LearningRateMonitor, MisconfigurationException, "'step', 'epoch', or None", logging_interval="batch")
enter(
    Misuse(
        _SUBJECT,
        "ThroughputMonitor(len, window_size=1)",
        lambda scene: ThroughputMonitor(len, window_size=1),
        ValueError,
        ("window_size=1", "at least 2 updates"),
    )
)
_argument(ModelSummary, ValueError, "-1 for all levels", max_depth=-2)
_argument(RichModelSummary, ValueError, "-1 for all levels", max_depth=-2)
_argument(BatchSizeFinder, ValueError, "'power' or 'binsearch'", mode="log")
_argument(BatchSizeFinder, ValueError, "to below 1.0", margin=2)
_argument(LearningRateFinder, ValueError, "'exponential' or 'linear'", mode="log")
_argument(LearningRateFinder, ValueError, "`min_lr` the smaller one", min_lr=1, max_lr=0.1)
_argument(PlainProgress, ValueError, "a number above 0", interval=0)
_argument(RichProgressBar, ValueError, "refreshes per second", refresh_rate=-1)
_argument(Timer, MisconfigurationException, "'step' or 'epoch'", interval="hour")


@misuse(_SUBJECT, "OnExceptionCheckpoint(filename='')", ValueError, "filename=''", "'on_exception'")
def _(scene: Scene) -> None:
    OnExceptionCheckpoint(scene.folder, filename="")


@misuse(
    _SUBJECT,
    "LearningRateMonitor without a logger",
    MisconfigurationException,
    "no logger",
    "CSVLogger",
    spoils_trainer=True,
)
def _(scene: Scene) -> None:
    scene.fit(callbacks=LearningRateMonitor())


@misuse(
    _SUBJECT,
    "DeviceStatsMonitor without a logger",
    MisconfigurationException,
    "no logger",
    "CSVLogger",
    spoils_trainer=True,
)
def _(scene: Scene) -> None:
    scene.fit(callbacks=DeviceStatsMonitor())


@misuse(
    _SUBJECT,
    "ThroughputMonitor without a logger",
    MisconfigurationException,
    "no logger",
    "CSVLogger",
    spoils_trainer=True,
)
def _(scene: Scene) -> None:
    scene.fit(callbacks=ThroughputMonitor(len))


def _spoilt(module: Any, batch: Any, batch_idx: int) -> Any:
    return module.layer(batch).mean() * (float("nan") if batch_idx == 1 else 1.0)


@misuse(
    _SUBJECT,
    "a loss that is NaN, with a NonFiniteGuard",
    NonFiniteException,
    "Step 2",
    "the loss",
    "batch 1",
    "`fulmen replay",
)
def _(scene: Scene) -> None:
    scene.fit(scene.module(training_step=_spoilt), callbacks=NonFiniteGuard())


@misuse(
    _SUBJECT,
    "a loss that is NaN, with NonFiniteGuard('skip')",
    UserWarning,
    "Step 2",
    "The step is left out",
    "`fulmen replay",
)
def _(scene: Scene) -> None:
    scene.fit(scene.module(training_step=_spoilt), callbacks=NonFiniteGuard("skip"))


@misuse(
    _SUBJECT,
    "more losses that are NaN than NonFiniteGuard(max_skips) allows",
    NonFiniteException,
    "Before it 1 step was left out",
    "NonFiniteGuard(max_skips=1) allows",
)
def _(scene: Scene) -> None:
    def step(module: Any, batch: Any, batch_idx: int) -> Any:
        return module.layer(batch).mean() * float("nan")

    scene.fit(scene.module(training_step=step), callbacks=NonFiniteGuard("skip", max_skips=1))
