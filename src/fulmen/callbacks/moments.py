"""Questions about the right moment that several callbacks ask."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from fulmen.trainer.trainer import Trainer


def validates_at_epoch_end(trainer: Trainer) -> bool:
    """Whether what is to be judged is there at the end of every training epoch.

    True if a validation belongs to the end of each epoch, or if there is none at all; False if validations come more
    often, less often, or by the clock, so that the end of a validation is the moment to look at metrics.
    """
    if not trainer.enable_validation:
        return True
    if trainer.check_val_every_n_epoch != 1:
        return False
    interval: Any = trainer.val_check_interval
    return isinstance(interval, (int, float)) and interval == 1.0


@dataclass(slots=True)
class Memory:
    """Tells a callback that remembers a training whether the one that begins goes on with it, or is another one.

    It goes on with it if a checkpoint has given the memory back in this very ``fit``, or if the same model is trained
    further without a checkpoint. A callback that has not trained yet may know what somebody gave it by hand.

    Attributes:
        has_trained: a training has begun with this callback, or with the one that it is a copy of.
        is_restored: a checkpoint has given the memory back, in this run.
    """

    has_trained: bool = False
    is_restored: bool = False

    def set_up(self) -> None:
        """A run begins, and may read a checkpoint; to be called in ``setup``."""
        self.is_restored = False

    def restore(self) -> None:
        """A checkpoint gives the memory back; to be called in ``load_state_dict``."""
        self.is_restored = True

    def is_of_another(self, trainer: Trainer) -> bool:
        """Whether the training that begins has nothing to do with what is remembered."""
        progress = trainer.progress
        begins = progress.epoch == progress.total_batches == progress.step == 0
        # a checkpoint that does not know the callback is of a run that did not have it
        return self.has_trained and not self.is_restored and (begins or trainer.loaded_ckpt_path is not None)


@dataclass(slots=True)
class Countdown:
    """Tells every process at the same batch that a time is over, by the clock of rank 0.

    One process just looks. Several would have to speak at every batch; instead rank 0 says, whenever they do, how many
    batches may safely pass before they speak again: half of those that fit into the time that remains.
    """

    ask_at: int = 0  #: batches, counted over the run
    asked_at: int = 0
    asked_time: float | None = None

    def start(self, batches: int) -> None:
        """Begin to count at the run's batch number ``batches``."""
        self.ask_at = self.asked_at = batches
        self.asked_time = None

    def over(self, remaining: float, batches: int, now: float, agree: Callable[[Any], Any] | None) -> bool:
        """Whether the time is over.

        Args:
            remaining: seconds, by this process's clock.
            batches: training batches so far in the run; the same on all ranks.
            now: this process's clock, in seconds.
            agree: gives every rank the value that rank 0 put in; None if there is one process.
        """
        if agree is None:
            return remaining <= 0
        if batches < self.ask_at:
            return False
        passed = batches - self.asked_at
        wait = 1
        if self.asked_time is not None and passed > 0 and now > self.asked_time:
            seconds_per_batch = (now - self.asked_time) / passed
            wait = max(1, int(remaining / seconds_per_batch / 2))
        over, wait = agree((remaining <= 0, wait))
        self.asked_at, self.asked_time, self.ask_at = batches, now, batches + wait
        return over
