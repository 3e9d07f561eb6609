"""Questions about the right moment that several callbacks ask."""

from __future__ import annotations

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
