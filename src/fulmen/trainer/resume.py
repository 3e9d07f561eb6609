"""The middle of things: what a checkpoint holds beyond weights and counters, so that a run goes on bit for bit.

It stands under ``checkpoint["resume"]``, as plain data:

- ``random``: the state of every random number generator of the process;
- ``data``: where each training loader stands (:meth:`fulmen.trainer.sources.Source.mark`);
- ``generators``, ``modes``: what objects keep as attributes (:mod:`fulmen.trainer.attributes`);
- ``window``, ``gradients``: an accumulation window that is open;
- ``metrics``, ``module_metrics``: what was logged in the epoch so far;
- ``loggers``: how far each logger had written.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from fulmen.core.module import LightningModule
from fulmen.loops.plan import written
from fulmen.trainer import attributes
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
    state |= attributes.gather(trainer)
    if trainer.progress.window_is_open:
        state["window"] = trainer.window.state_dict()
    gradients = _gradients(trainer)
    if gradients:
        state["gradients"] = gradients
    return state


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
    attributes.restore(trainer, state)
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
