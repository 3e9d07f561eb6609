"""What a run changes on objects and no ``state_dict`` holds: generators and modes.

In ``checkpoint["resume"]`` it stands under two keys:

- ``generators``: the states of generators that the module, the callbacks and the datamodule keep as attributes;
- ``modes``: which parameters were frozen or thawed, and which sub-modules switched, since training began; also whether
  layers with statistics keep them (``track_running_stats``).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from fulmen.trainer.states import RunningStage, TrainerStatus
from fulmen.utilities.generators import generators_in, restore_states, states_of
from fulmen.utilities.rank_zero import rank_zero_warn

if TYPE_CHECKING:
    from fulmen.core.module import LightningModule
    from fulmen.trainer.trainer import Trainer


def gather(trainer: Trainer) -> dict[str, Any]:
    """The state of this moment, under its keys."""
    state: dict[str, Any] = {}
    generators = states_of(generators_of(trainer))
    if generators:
        state["generators"] = generators
    if trainer.progress.is_within_step:
        _warn_of_open_step(trainer)
    elif trainer.state.stage == RunningStage.TRAINING:
        state["modes"] = trainer.modes.changes(trainer.lightning_module)
    return state


def restore(trainer: Trainer, state: dict[str, Any]) -> None:
    """Put back what :func:`gather` found."""
    if "generators" in state:
        restore_states(generators_of(trainer), state["generators"], "the module, a callback or the datamodule")
    if "modes" in state:
        trainer.modes.restore(trainer.lightning_module, state["modes"])


def generators_of(trainer: Trainer) -> dict[str, Any]:
    """The random number generators that the module, its children, the callbacks and the datamodule keep, by path; those
    of loaders and data sets belong to the data.
    """
    owners: list[tuple[str, Any]] = [("module", trainer.lightning_module), ("datamodule", trainer.datamodule)]
    owners[1:1] = [(f"module.{name}", child) for name, child in trainer.lightning_module.named_modules() if name]
    for callback in trainer.callbacks:
        owners.append((getattr(callback, "state_key", type(callback).__qualname__), callback))
    found: dict[str, Any] = {}
    known = trainer.data.generators()
    for path, owner in owners:
        found |= generators_in(owner, path, leave_out=[*known, *found.values()], depth=2)
    return found


def _warn_of_open_step(trainer: Trainer) -> None:
    if trainer.state.status == TrainerStatus.RUNNING:  # else the run ends in an exception, and may well end there
        rank_zero_warn(
            f"a checkpoint was made in the middle of the step of batch {trainer.progress.batch_idx}: a run that goes "
            "on from it trains this batch once more. Save in `on_train_batch_end` or later, or by a ModelCheckpoint."
        )


class Modes:
    """Which parameters get gradients, which sub-modules are in training mode and which keep statistics, when training
    begins.

    A hook may change that once, at some step. A run that goes on from a later step would not know, so the changes are
    saved: not the modes, which the program may have been changed to choose otherwise.
    """

    def __init__(self) -> None:
        self._requires_grad: dict[str, bool] = {}
        self._training: dict[str, bool] = {}
        self._tracking: dict[str, bool] = {}

    def note(self, module: LightningModule) -> None:
        """Training begins with these."""
        self._requires_grad = {name: parameter.requires_grad for name, parameter in module.named_parameters()}
        self._training = {name: child.training for name, child in module.named_modules()}
        self._tracking = _tracking_ones(module)

    def changes(self, module: LightningModule) -> dict[str, dict[str, bool]]:
        """What is different now."""
        return {
            "requires_grad": {
                name: parameter.requires_grad
                for name, parameter in module.named_parameters()
                if self._requires_grad.get(name, parameter.requires_grad) != parameter.requires_grad
            },
            "training": {
                name: child.training
                for name, child in module.named_modules()
                if self._training.get(name, child.training) != child.training
            },
            "tracking": {
                name: tracks
                for name, tracks in _tracking_ones(module).items()
                if self._tracking.get(name, tracks) != tracks
            },
        }

    @staticmethod
    def restore(module: LightningModule, changes: dict[str, dict[str, bool]]) -> None:
        """Make those changes again."""
        parameters, children = dict(module.named_parameters()), dict(module.named_modules())
        for name, value in changes["requires_grad"].items():
            if name in parameters:
                parameters[name].requires_grad_(value)
        for name, value in changes["training"].items():
            if name in children:
                children[name].training = value
        for name, value in changes.get("tracking", {}).items():
            if name in children:
                children[name].track_running_stats = value  # type: ignore[assignment]


def _tracking_ones(module: LightningModule) -> dict[str, bool]:
    """Whether each layer that can keep statistics does."""
    found = {name: getattr(child, "track_running_stats", None) for name, child in module.named_modules()}
    return {name: tracks for name, tracks in found.items() if isinstance(tracks, bool)}
