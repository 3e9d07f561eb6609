"""When to save: every n steps, every n epochs, or whenever a stretch of time is over; and what was saved when."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING, Any, NamedTuple

from fulmen.utilities.exceptions import MisconfigurationException
from fulmen.utilities.interval import parse_duration

if TYPE_CHECKING:
    from fulmen.trainer.trainer import Trainer


class Position(NamedTuple):
    """A place in a run. Two saves at one position would hold the same state, so the second is left out."""

    epochs: int
    batches: int
    steps: int

    @classmethod
    def of(cls, trainer: Trainer) -> Position:
        """Where ``trainer`` stands now."""
        progress = trainer.progress
        return cls(progress.epoch, progress.total_batches, progress.step)

    @classmethod
    def reached(cls, trainer: Trainer) -> Position:
        """Where a run that is resumed from a file of this moment stands: an epoch that is closed counts."""
        progress = trainer.progress
        return cls(progress.epoch + progress.epoch_is_closed, progress.total_batches, progress.step)


@dataclass(slots=True)
class Place:
    """What a policy remembers of the run, beside its files. It is a part of every file that is written.

    Attributes:
        saved_at: where the state was saved last, or was as if it had been; None outside of training.
        last_saved_at: the same, of the last state.
        final_at: batches and steps of the newest file that the policy asked for.
        newest: the file written last, and the position it resumes at.
        due: what is to be done at this moment: ``"save"`` or, once that is done, ``"last"``; else ``""``.
        epoch_seen: the epoch whose end the policy has been told of.
        waits: a save is due and waits for its metric.
        validated: a validation has run since training began.
    """

    saved_at: Position | None = None
    last_saved_at: Position | None = None
    final_at: tuple[int, int] | None = None
    newest: tuple[Position, str] | None = None
    due: str = ""
    epoch_seen: int | None = None
    waits: bool = False
    validated: bool = False

    def state_dict(self) -> dict[str, Any]:
        """It as plain data, of a run that trains."""
        assert self.saved_at is not None
        assert self.last_saved_at is not None
        return {
            "waits": self.waits,
            "validated": self.validated,
            "due": self.due,
            "epoch_seen": self.epoch_seen,
            "saved_at": tuple(self.saved_at),
            "last_saved_at": tuple(self.last_saved_at),
            "final_at": self.final_at,
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Be where the process was that wrote the checkpoint."""
        self.waits, self.validated, self.due = state["waits"], state["validated"], state["due"]
        self.epoch_seen = state["epoch_seen"]
        self.saved_at, self.last_saved_at = Position(*state["saved_at"]), Position(*state["last_saved_at"])
        self.final_at = None if state["final_at"] is None else tuple(state["final_at"])


def epoch_ends_here(trainer: Trainer) -> bool:
    """Whether no further batch of this epoch follows the current one."""
    return trainer.progress.is_last_batch or trainer.progress.done


@dataclass(slots=True)
class Trigger:
    """Says after a batch, and after an epoch, whether it is time to save. At most one of the three rhythms is used.

    Attributes:
        every_n_train_steps: optimizer steps between two saves; 0: not by steps.
        every_n_epochs: epochs between two saves; 0: not by epochs.
        train_time_interval: time between two saves; None: not by time.
    """

    every_n_train_steps: int
    every_n_epochs: int
    train_time_interval: timedelta | None
    _steps_seen: int = 0
    _time_of_last: float = 0.0

    @classmethod
    def from_arguments(cls, every_n_train_steps: int | None, every_n_epochs: int | None, interval: Any) -> Trigger:
        """Read the arguments of ``ModelCheckpoint``: when none is given, save every epoch.

        Raises:
            MisconfigurationException: a number is negative or no whole number, or two rhythms are asked for.
        """
        if every_n_train_steps is None and every_n_epochs is None and interval is None:
            every_n_epochs = 1
        for name, value in (("every_n_train_steps", every_n_train_steps), ("every_n_epochs", every_n_epochs)):
            if value is not None and (not isinstance(value, int) or value < 0):
                raise MisconfigurationException(
                    f"ModelCheckpoint({name}={value!r}) counts how many pass between two saves, so it must be a whole "
                    f"number from 1 on (0 or None: do not save by this count)."
                )
        trigger = cls(
            every_n_train_steps=every_n_train_steps or 0,
            every_n_epochs=every_n_epochs or 0,
            train_time_interval=None if interval is None else parse_duration(interval),
        )
        rhythms = (trigger.every_n_train_steps, trigger.every_n_epochs, trigger.train_time_interval is not None)
        if sum(map(bool, rhythms)) > 1:
            raise MisconfigurationException(
                f"ModelCheckpoint(every_n_train_steps={every_n_train_steps}, every_n_epochs={every_n_epochs}, "
                f"train_time_interval={interval!r}) asks for more than one rhythm, and one callback has one. "
                f"Keep one of them, and add another ModelCheckpoint for the other."
            )
        return trigger

    @property
    def reason(self) -> str:
        """The rhythm in a word: ``"epoch"``, ``"step"``, ``"time"``; ``""`` if there is none."""
        if self.train_time_interval is not None:
            return "time"
        return "step" if self.every_n_train_steps else "epoch" if self.every_n_epochs else ""

    @property
    def looks_after_batches(self) -> bool:
        """Whether :meth:`after_batch` can ever say yes."""
        return self.every_n_train_steps > 0 or self.train_time_interval is not None

    def start(self, at: Position) -> None:
        """Begin to count from ``at``: a resumed run does not save what it was just read from."""
        self._steps_seen = at.steps
        self._time_of_last = time.monotonic()

    def state_dict(self) -> dict[str, Any]:
        """How much has passed since the last save."""
        state: dict[str, Any] = {"steps_seen": self._steps_seen}
        if self.train_time_interval is not None:
            state["seconds"] = time.monotonic() - self._time_of_last
        return state

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on where another process was; after :meth:`start`."""
        self._steps_seen = state["steps_seen"]
        self._time_of_last = time.monotonic() - state.get("seconds", 0.0)

    def after_batch(self, at: Position, agree: Callable[[bool], bool] = bool, now: float | None = None) -> bool:
        """Whether to save after a batch that ended an accumulation window.

        Args:
            at: the position after the batch.
            agree: tells all processes alike whether the time is over, by what rank 0 says; that may be a little later.
            now: the time in seconds, by default of the monotonic clock.
        """
        if self.every_n_train_steps:
            # by crossing and not by remainder, as a batch may make several steps
            seen, self._steps_seen = self._steps_seen, at.steps
            return at.steps // self.every_n_train_steps > seen // self.every_n_train_steps
        if self.train_time_interval is None:
            return False
        now = time.monotonic() if now is None else now
        remaining = self._time_of_last + self.train_time_interval.total_seconds() - now
        if not agree(remaining <= 0):
            return False
        self._time_of_last = now
        return True

    def after_epoch(self, epoch: int) -> bool:
        """Whether to save at the end of the epoch with the index ``epoch`` (from 0), or of a validation in it."""
        return self.every_n_epochs > 0 and (epoch + 1) % self.every_n_epochs == 0
