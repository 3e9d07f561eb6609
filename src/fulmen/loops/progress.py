"""The one clock of a run: epochs, batches and steps, and every question whose answer is a count.

*batch* is one item of the training loader, *step* one optimizer update, *epoch* one pass over the loader. Batches that
share one update form an accumulation *window*.
"""

from __future__ import annotations

import math
import time
from dataclasses import dataclass, field
from typing import Any


class _Absent:
    """The type of :data:`ABSENT`."""

    def __repr__(self) -> str:
        return "ABSENT"


#: stands for the batch of a process that has none at this step, while others have: the data has come to its end
ABSENT: Any = _Absent()


@dataclass(slots=True)
class Limits:
    """When training must stop, and before when it must not. ``-1`` means no limit."""

    max_epochs: int = -1
    max_steps: int = -1
    min_epochs: int = 0
    min_steps: int = 0


@dataclass(slots=True)
class ValidationRhythm:
    """How often ``fit`` validates; the intervals that are None are not used."""

    enabled: bool = False
    every_n_epochs: int | None = 1
    every_n_batches: int | float | None = None  #: of this epoch; of the whole run if ``every_n_epochs`` is None
    every_n_steps: int | None = None
    every_n_seconds: float | None = None
    at_end_of_epoch: bool = False
    time_of_last: float = field(default_factory=time.monotonic)

    def restart_clock(self) -> None:
        """A validation is over, or training begins: seconds count from now."""
        self.time_of_last = time.monotonic()


@dataclass(slots=True)
class Progress:
    """Where a run stands. Plain numbers, set by the data (``start_*``) and by the loop (``finish_*``)."""

    limits: Limits = field(default_factory=Limits)
    validation: ValidationRhythm = field(default_factory=ValidationRhythm)
    accumulate_grad_batches: int = 1
    log_every_n_steps: int = 50
    counts_own_steps: bool = True  #: False in manual optimization, where the optimizers report their steps

    epoch: int = 0  #: epochs completed
    step: int = 0  #: optimizer steps made
    batches_that_stepped: int = 0  #: batches that ended a window: the x axis of the loggers
    total_batches: int = 0  #: batches finished, over all epochs
    should_stop: bool = False
    was_stopping: bool = False  #: the run that is resumed was already asked to stop
    out_of_time: bool = False  #: it was set as the time is used up; a run with more time goes on from there

    # the current epoch
    num_batches: int | float = 0  #: in this epoch; ``inf`` when unknown
    batches_done: int = 0  #: finished in this epoch
    in_epoch: bool = False  #: between the first batch of an epoch and its end
    epoch_is_closed: bool = False  #: only those that watch its metrics are still to be called

    # the current batch
    batch_idx: int = -1  #: position in the epoch, from 0
    is_last_batch: bool = False  #: of the epoch
    window: int = 1  #: batches in the current accumulation window
    starts_accumulation: bool = True  #: the batch opens a window
    accumulating: bool = False  #: the batch does not close the window: no step
    time_to_log: bool = False  #: the values of this step are due at the loggers
    batch_is_open: bool = False  #: it is counted, but a validation may still follow
    interval_is_over: bool = False  #: a validation is due after this batch

    def start_epoch(self, num_batches: int | float) -> None:
        """Begin an epoch of ``num_batches`` batches, or go on in the one that a resumed run stopped in."""
        self.num_batches = num_batches
        if not self.in_epoch:
            self.batches_done = 0
            self.is_last_batch = False
        self.in_epoch = True
        self.batch_idx = self.batches_done - 1

    def start_batch(self, batch_idx: int, is_last: bool) -> None:
        """Take position ``batch_idx`` and find out where it lies in its accumulation window."""
        self.batch_idx = batch_idx
        self.is_last_batch = is_last
        accumulate = self.accumulate_grad_batches
        place = batch_idx % accumulate
        self.starts_accumulation = place == 0
        self.accumulating = place + 1 != accumulate and not is_last
        if accumulate != 1 and place == 0:  # the last window of an epoch may be shorter
            self.window = int(min(accumulate, max(1, self.num_batches - batch_idx)))
        elif accumulate == 1:
            self.window = 1
        every = self.log_every_n_steps
        self.time_to_log = (
            every > 0
            and not self.accumulating
            and (
                (self.batches_that_stepped + 1) % every == 0
                or self.batches_that_stepped == 0
                or self.step + 1 == self.limits.max_steps
                or (is_last and self.epoch + 1 == self.limits.max_epochs)
            )
        )

    def finish_batch(self) -> None:
        """Count the batch, and the step if it made one."""
        self.batch_is_open = True
        self.batches_done += 1
        self.total_batches += 1
        if not self.accumulating and self.counts_own_steps:
            self.step += 1
        self.interval_is_over = self.validation.enabled and self._interval_is_over()

    def ask_for_validation(self) -> None:
        """Find out anew whether a validation is due after the batch that was finished last."""
        self.interval_is_over = self.validation.enabled and self._interval_is_over()

    def count_logger_step(self) -> None:
        """Move the loggers' x axis on, after everything that belongs to this batch (also validation) was logged."""
        if not self.accumulating:
            self.batches_that_stepped += 1
        self.batch_is_open = False

    def skip_rest_of_epoch(self) -> None:
        """The user ended the epoch before this batch was trained."""
        self.is_last_batch = True
        self.accumulating = True  # no step: schedulers per step stand still

    def close_epoch(self) -> None:
        """Everything that belongs to the epoch is done, though it still counts as the current one."""
        self.in_epoch, self.epoch_is_closed = False, True

    def finish_epoch(self) -> None:
        """Count the epoch."""
        self.epoch += 1
        self.epoch_is_closed = False

    def forget_unfinished_epoch(self) -> None:
        """A new ``fit`` begins: an epoch that an exception ended is trained from its beginning."""
        if self.batch_is_open:
            self.count_logger_step()
        self.in_epoch = self.epoch_is_closed = False
        self.batches_done = 0

    @property
    def is_within_step(self) -> bool:
        """A batch was begun, and is not trained yet."""
        return self.in_epoch and self.batch_idx >= self.batches_done

    @property
    def window_is_open(self) -> bool:
        """Batches of this epoch were trained on that no step has been made of yet."""
        ended = self.batches_done >= self.num_batches or (self.is_last_batch and self.batches_done > self.batch_idx)
        return self.in_epoch and not ended and self.batches_done % self.accumulate_grad_batches != 0

    def reopen_window(self) -> None:
        """Go back to the first batch of the open window."""
        begun = self.batches_done % self.accumulate_grad_batches
        self.batches_done -= begun
        self.total_batches -= begun
        if begun:
            self.batch_is_open = False

    @property
    def may_stop_early(self) -> bool:
        """Whether ``should_stop`` is honoured now: the minimum of epochs and steps is reached."""
        return self.epoch >= self.limits.min_epochs and self.step >= self.limits.min_steps

    @property
    def done(self) -> bool:
        """Training is over: a limit is reached, or somebody set ``should_stop`` and the minima are reached."""
        return self.limit_is_reached or (self.should_stop and self.may_stop_early)

    @property
    def limit_is_reached(self) -> bool:
        """All epochs or steps are made."""
        limits = self.limits
        return 0 <= limits.max_steps <= self.step or 0 <= limits.max_epochs <= self.epoch

    @property
    def ends_here(self) -> bool:
        """No further batch follows, and all that is left to do is to close the run."""
        epochs = self.limits.max_epochs
        return self.done or (self.epoch_is_closed and 0 <= epochs <= self.epoch + 1)

    @property
    def ends_within_epoch(self) -> bool:
        """A resumed run is over, but the epoch that it ended in is open: its values are still to be logged."""
        limits = self.limits
        if not self.in_epoch or 0 <= limits.max_epochs <= self.epoch:
            return False
        return limits.max_steps == self.step or (self.should_stop and self.was_stopping and self.may_stop_early)

    @property
    def time_to_validate(self) -> bool:
        """A validation follows this batch: its interval is over, or training stops here."""
        return self.interval_is_over or (
            self.should_stop and self.validation.enabled and self.may_stop_early and self._epoch_is_due()
        )

    def _epoch_is_due(self) -> bool:
        every = self.validation.every_n_epochs
        return every is None or (self.epoch + 1) % every == 0

    def _interval_is_over(self) -> bool:
        rhythm = self.validation
        if not self._epoch_is_due():
            return False
        if rhythm.every_n_seconds is not None:
            return time.monotonic() - rhythm.time_of_last >= rhythm.every_n_seconds
        if rhythm.every_n_steps is not None:
            return not self.accumulating and self.step > 0 and self.step % rhythm.every_n_steps == 0
        if rhythm.at_end_of_epoch and self.is_last_batch:
            return True
        if rhythm.every_n_batches is None or math.isinf(rhythm.every_n_batches):
            return False
        batches = self.total_batches if rhythm.every_n_epochs is None else self.batches_done
        return batches % rhythm.every_n_batches == 0

    def state_dict(self) -> dict[str, Any]:
        """The counters as plain numbers: those of the moment at which a run goes on from here."""
        counters = {name: getattr(self, name) for name in _COUNTERS}
        if self.epoch_is_closed:
            counters["epoch"] += 1
        return counters

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Take the counters back; those that ``state`` does not name stay."""
        for name in _COUNTERS:
            if name in state:
                setattr(self, name, state[name])


_COUNTERS = (
    "epoch",
    "step",
    "batches_that_stepped",
    "total_batches",
    "batches_done",
    "in_epoch",
    "is_last_batch",
    "accumulating",
    "batch_is_open",
    "interval_is_over",
    "time_to_log",
)
