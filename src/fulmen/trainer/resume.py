"""The middle of things: what a checkpoint holds beyond weights and counters, so that a run goes on bit for bit.

It stands under ``checkpoint["resume"]``, as plain data:

- ``random``: the state of every random number generator of the process;
- ``data``: where each training loader stands (:meth:`fulmen.trainer.sources.Source.mark`);
- ``generators``: the generators that the module, the callbacks and the datamodule keep as attributes;
- ``modes``: which parameters were frozen or thawed, and which sub-modules switched, since training began;
- ``window``, ``gradients``: an accumulation window that is open;
- ``metrics``, ``module_metrics``: what was logged in the epoch so far;
- ``loggers``: how far each logger had written.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from fulmen.core.module import LightningModule
from fulmen.loops.plan import written
from fulmen.trainer.generators import generators_in, restore_states, states_of
from fulmen.trainer.states import RunningStage, TrainerStatus
from fulmen.utilities.rank_zero import rank_zero_warn
from fulmen.utilities.seed import collect_rng_states, restore_rng_states

if TYPE_CHECKING:
    from torch import Tensor

    from fulmen.trainer.trainer import Trainer


def gather(trainer: Trainer) -> dict[str, Any]:
    """The state of this moment."""
    before = trainer.random_before_validation
    state: dict[str, Any] = {"random": collect_rng_states() if before is None else before}
    state["data"] = trainer.data.state_dict(None if before is None else "validate")
    generators = states_of(_generators(trainer))
    if generators:
        state["generators"] = generators
    progress = trainer.progress
    if progress.is_within_step:
        _warn_of_open_step(trainer)
    elif trainer.state.stage == RunningStage.TRAINING:
        state["modes"] = trainer.modes.changes(trainer.lightning_module)
    if progress.window_is_open:
        state["window"] = trainer.window.state_dict()
    gradients = _gradients(trainer)
    if gradients:
        state["gradients"] = gradients
    return state


def _generators(trainer: Trainer) -> dict[str, Any]:
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
    """Which parameters get gradients and which sub-modules are in training mode, when training begins.

    A hook may change that once, at some step. A run that goes on from a later step would not know, so the changes are
    saved: not the modes, which the program may have been changed to choose otherwise.
    """

    def __init__(self) -> None:
        self._requires_grad: dict[str, bool] = {}
        self._training: dict[str, bool] = {}

    def note(self, module: LightningModule) -> None:
        """Training begins with these."""
        self._requires_grad = {name: parameter.requires_grad for name, parameter in module.named_parameters()}
        self._training = {name: child.training for name, child in module.named_modules()}

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


def _gradients(trainer: Trainer) -> dict[str, Tensor]:
    """The gradients that the next step adds to. Where the user says when they are cleared, all that are there."""
    module = trainer.lightning_module
    asks_user = not module.automatic_optimization or any(
        written(module, name, LightningModule) is not None for name in ("optimizer_step", "optimizer_zero_grad")
    )
    if not asks_user and not trainer.progress.window_is_open:
        return {}
    return {name: parameter.grad for name, parameter in module.named_parameters() if parameter.grad is not None}


def prepare(trainer: Trainer, checkpoint: dict[str, Any]) -> None:
    """Have the data call :func:`go_on` when the hooks that open the run, or the epoch, have been called."""
    data, in_epoch = trainer.data, trainer.progress.in_epoch
    data.prepare(checkpoint.get("resume", {}).get("data"))

    def once() -> None:
        data.go_on = None
        go_on(trainer, checkpoint, in_epoch)

    data.go_on = once


def go_on(trainer: Trainer, checkpoint: dict[str, Any], in_epoch: bool) -> None:
    """Bring a run to the very moment at which ``checkpoint`` was made. Everything else is restored, and the hooks that
    open a run have been called.

    Args:
        in_epoch: the run goes on in the middle of an epoch.
    """
    state = checkpoint.get("resume", {})
    if in_epoch:
        trainer.data.seek(state.get("data"))
    elif "data" in state:
        trainer.data.begin_with(state["data"])
    if "random" in state:
        restore_rng_states(state["random"])
    if "generators" in state:
        restore_states(_generators(trainer), state["generators"], "the module, a callback or the datamodule")
    if "modes" in state:
        trainer.modes.restore(trainer.lightning_module, state["modes"])
    if "window" in state:
        trainer.window.load_state_dict(state["window"])
    parameters = dict(trainer.lightning_module.named_parameters())
    for name, gradient in state.get("gradients", {}).items():
        if name not in parameters:
            rank_zero_warn(
                f"the checkpoint holds the gradient of {name!r}, which is no parameter here: it is left out."
            )
            continue
        parameters[name].grad = gradient.to(parameters[name].device)
    if trainer.progress.batch_is_open:  # saved by a hook in the middle of a step, of which this much can be made good
        trainer.finish_batch()
