"""A validation within ``fit`` that is left in the middle, because the process was asked to end.

The time that is left is short, and a validation may be long. The run is therefore saved as it was before the
validation, and does the whole of it when it goes on. What a validation changes that a checkpoint holds (random numbers,
metrics, what the loggers have written) is taken from the state of before. Weights and callbacks are those of this
moment; where a hook of the user's could have changed them, as one that validates with averaged weights does, the
validation is not left.
"""

from __future__ import annotations

from copy import deepcopy
from typing import TYPE_CHECKING, Any

from fulmen.trainer import resume

if TYPE_CHECKING:
    from fulmen.trainer.trainer import Trainer

#: what is called in a validation before it is over
_HOOKS = tuple(
    f"on_validation_{name}"
    for name in ("model_zero_grad", "start", "model_eval", "epoch_start", "batch_start", "batch_end")
)


class ValidationLeft(Exception):
    """The validation ends here, as the process was asked to end."""


def state_before(trainer: Trainer) -> dict[str, Any]:
    """What a checkpoint holds of this moment, beyond weights and callbacks."""
    state = resume.gather(trainer, save_loggers=False)
    state["module_metrics"] = deepcopy(state["module_metrics"])  # metrics add in place
    return state


def may_be_left(trainer: Trainer) -> bool:
    """Whether the validation that follows can be left: somebody saves the run then, and nobody changes it meanwhile."""
    if not trainer.checkpoint_callbacks:
        return False
    for name in _HOOKS:
        for owner, call in trainer.plan.listeners(name):
            method = getattr(owner, name, call)
            if not str(getattr(method, "__module__", "")).startswith("fulmen."):
                return False
    return True
