"""Measure the time of a run, and stop training when it is used up."""

from __future__ import annotations

import time
from datetime import timedelta
from typing import TYPE_CHECKING, Any

from fulmen.callbacks.callback import Callback
from fulmen.callbacks.moments import Memory
from fulmen.utilities.enums import LightningEnum
from fulmen.utilities.exceptions import MisconfigurationException
from fulmen.utilities.interval import parse_duration
from fulmen.utilities.rank_zero import rank_zero_info

if TYPE_CHECKING:
    from fulmen.core.module import LightningModule
    from fulmen.trainer.trainer import Trainer

_STAGES = ("train", "sanity_check", "validate", "test", "predict")


class Interval(LightningEnum):
    """When :class:`Timer` looks at the clock: after each batch (``step``) or each epoch."""

    step = "step"
    epoch = "epoch"


class Timer(Callback):
    """Measures how long training, validation and test take, and stops training when ``duration`` is used up.

    Training goes on until ``min_epochs`` and ``min_steps`` are reached. A resumed run counts the time before it.

    Args:
        duration: the time for training, validation within it included: ``"DD:HH:MM:SS"``, a text such as ``"30min"``, a
            ``timedelta``, or a dict of its arguments. None: only measure.
        interval: look at the clock after each batch (``"step"``) or each epoch (``"epoch"``).
        verbose: say that the time is used up.

    Raises:
        MisconfigurationException: ``duration`` or ``interval`` cannot be read.
    """

    def __init__(
        self,
        duration: str | timedelta | dict[str, int] | None = None,
        interval: str = "step",  # a text, so that a configuration can say it
        verbose: bool = True,
    ) -> None:
        super().__init__()  # of another class that a user may have put behind this one
        if interval not in tuple(Interval):
            raise MisconfigurationException(
                f"Timer(interval={interval!r}) says when to look at the clock: write 'step' or 'epoch'."
            )
        self.is_max_time = False  #: `Trainer(max_time=...)` has made it, and not the user
        self._duration = None if duration is None else parse_duration(duration).total_seconds()
        self._verbose = verbose
        self._start: dict[str, float] = {}
        self._end: dict[str, float] = {}
        self._train_time_before = 0.0  #: seconds, in the runs that this one resumes
        self._memory = Memory()
        if self._duration is None or interval != "step":
            self._switch_off("on_train_batch_end")
        if self._duration is None or interval != "epoch":
            self._switch_off("on_train_epoch_end")

    def _switch_off(self, hook: str) -> None:
        if getattr(type(self), hook) is getattr(Timer, hook):  # a subclass may have its own use for it
            setattr(self, hook, None)

    def start_time(self, stage: str = "train") -> float | None:
        """When ``stage`` began, in seconds of the monotonic clock; None if it did not."""
        return self._start.get(stage)

    def end_time(self, stage: str = "train") -> float | None:
        """When ``stage`` ended, in seconds of the monotonic clock; None if it did not."""
        return self._end.get(stage)

    def time_elapsed(self, stage: str = "train") -> float:
        """How long ``stage`` took, or is taking, in seconds; for training with the time of the runs before."""
        before = self._train_time_before if stage == "train" else 0.0
        start = self._start.get(stage)
        if start is None:
            return before
        end = self._end.get(stage)
        return before + (time.monotonic() if end is None else end) - start

    def time_remaining(self, stage: str = "train") -> float | None:
        """What is left of ``duration``, in seconds; negative if it is exceeded, None if there is none."""
        return None if self._duration is None else self._duration - self.time_elapsed(stage)

    def _begin(self, stage: str) -> None:
        self._start[stage] = time.monotonic()
        self._end.pop(stage, None)

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        self._memory.set_up()

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._start.pop("train", None)
        if self._memory.is_of_another(trainer):
            self._train_time_before = 0.0
        self._check_together(trainer)  # the runs before may have used up the time

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._memory.has_trained = True
        self._begin("train")

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._end["train"] = time.monotonic()

    def on_validation_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._begin("validate")

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._end["validate"] = time.monotonic()

    def on_test_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._begin("test")

    def on_test_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._end["test"] = time.monotonic()

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        remaining = self.time_remaining()
        if remaining is not None and trainer.boundary.agree("max_time", remaining <= 0):
            self._stop(trainer)

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._check_together(trainer)

    def _check_together(self, trainer: Trainer) -> None:
        """Stop if the time is over by the clock of rank 0, which all processes wait for."""
        remaining = self.time_remaining()
        if remaining is not None and trainer.strategy.broadcast(remaining <= 0):
            self._stop(trainer)

    def _stop(self, trainer: Trainer) -> None:
        if self._verbose and not trainer.should_stop:
            rank_zero_info(f"Training stops: its time of {timedelta(seconds=self._duration or 0)} is used up.")
        trainer.should_stop = trainer.progress.out_of_time = True
        trainer.boundary.waiting = True  # to save what a run with more time goes on from

    def state_dict(self) -> dict[str, Any]:
        state: dict[str, Any] = {"time_elapsed": {stage: self.time_elapsed(stage) for stage in _STAGES}}
        if self.is_max_time:
            state["max_time"] = True
        return state

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self._train_time_before = float(state_dict.get("time_elapsed", {}).get("train", 0.0))
        self._memory.restore()


def timer_of_max_time(duration: timedelta) -> Timer:
    """What ``Trainer(max_time=...)`` stands for."""
    timer = Timer(duration)
    timer.is_max_time = True
    return timer
