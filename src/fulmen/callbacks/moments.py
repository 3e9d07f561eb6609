"""Questions about the right moment that several callbacks ask."""

from __future__ import annotations

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
