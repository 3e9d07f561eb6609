"""Stop, skip the step, or roll back when a loss or a gradient is not finite."""

from __future__ import annotations

from copy import deepcopy
from typing import TYPE_CHECKING, Any, Literal

import torch

from fulmen.callbacks.callback import Callback
from fulmen.callbacks.nonfinite import Finding, StepWatch, all_finite, gradients_of, remember
from fulmen.core.optimizer import NoOptimizer
from fulmen.utilities.apply_func import apply_to_collection
from fulmen.utilities.exceptions import MisconfigurationException, NonFiniteException
from fulmen.utilities.rank_zero import rank_zero_warn

if TYPE_CHECKING:
    from torch import Tensor
    from torch.optim import Optimizer

    from fulmen.core.module import LightningModule
    from fulmen.trainer.trainer import Trainer

_ACTIONS = ("stop", "skip", "rollback")


class NonFiniteGuard(Callback):
    """Keeps losses and gradients that are NaN or infinite away from the weights.

    It looks before each optimizer step, and before gradients are clipped. When something is not finite it says in which
    step, batch and samples, and which parameter comes first; adds that to ``nonfinite.json`` in the run's directory
    (``trainer.log_dir``); and names the command that repeats the step: ``fulmen replay``.

    A step is checked as a whole: if one batch of an accumulation window is bad, so is the window. With a gradient
    scaler only losses are looked at, since infinite gradients are its business.

    A skipped step counts as one, as if ``training_step`` had returned None for its batches: ``global_step`` and the
    schedulers go on, the optimizer finds no gradients and changes nothing.

    It costs one norm over all gradients in each step, and the host waits once for the device.

    Args:
        action: ``"stop"``: raise :class:`~fulmen.utilities.exceptions.NonFiniteException`; the weights stay as they
            were before the step. ``"skip"``: leave the step out. ``"rollback"``: leave it out, and go back to the
            weights, buffers and optimizer states of the last snapshot; batches, learning rates and counters go on.
        max_skips: stop after so many steps were left out in the run. None: never.
        snapshot_every_n_steps: how often ``"rollback"`` copies weights and optimizer states to the memory of the host.
            A snapshot becomes part of the checkpoints, unless one is due at the step of the checkpoint itself. A state
            that is not finite is not copied.

    Attributes:
        skips: steps that were left out.

    Raises:
        MisconfigurationException: an argument is not allowed.
    """

    records: bool = True  #: False while a step is repeated, which is no news

    def __init__(
        self,
        action: Literal["stop", "skip", "rollback"] = "stop",
        max_skips: int | None = 10,
        snapshot_every_n_steps: int = 100,
    ) -> None:
        if action not in _ACTIONS:
            raise MisconfigurationException(
                f"NonFiniteGuard(action={action!r}) is not known: write 'stop', 'skip' or 'rollback'."
            )
        for name, number, least in (
            ("max_skips", max_skips, 0),
            ("snapshot_every_n_steps", snapshot_every_n_steps, 1),
        ):
            if number is None and name == "max_skips":
                continue
            if isinstance(number, bool) or not isinstance(number, int) or number < least:
                raise MisconfigurationException(
                    f"NonFiniteGuard({name}={number!r}): must be a whole number from {least}"
                    f"{', or None for no limit' if name == 'max_skips' else ''}."
                )
        self.action = action
        self.max_skips = max_skips
        self.snapshot_every_n_steps = snapshot_every_n_steps
        self.skips = 0
        self._watch = StepWatch()
        self._snapshot: dict[str, Any] | None = None

    # -- what is looked at --------------------------------------------------------------------------------------------

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        if stage == "fit":
            self.skips, self._snapshot = 0, None
            self._watch.clear()

    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int) -> None:
        self._watch.start_batch(trainer, batch)
        progress = trainer.progress
        if self.action == "rollback" and progress.starts_accumulation and self._snapshot_is_due(progress.step):
            self._take_snapshot(trainer, pl_module)

    def on_before_backward(self, trainer: Trainer, pl_module: LightningModule, loss: Tensor) -> None:
        self._watch.add_loss(trainer, loss)

    def on_before_optimizer_step(self, trainer: Trainer, pl_module: LightningModule, optimizer: Optimizer) -> None:
        losses = self._watch.close()
        parameters = [parameter for group in optimizer.param_groups for parameter in group["params"]]
        checked = parameters if trainer.scaler is None else []
        if not all_finite([loss for _, loss in losses], gradients_of(checked)):
            self._act(trainer, pl_module, parameters, self._watch.examine(trainer, losses, checked))

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._watch.clear()

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        self._watch.clear()

    # -- what is done about it ----------------------------------------------------------------------------------------

    def _act(self, trainer: Trainer, pl_module: LightningModule, parameters: list[Tensor], finding: Finding) -> None:
        too_many = self.action != "stop" and self.max_skips is not None and self.skips >= self.max_skips
        finding.action = "stop" if too_many else self.action
        text = f"{finding} {self._advice(trainer, finding)}".rstrip()
        if too_many:
            steps = "1 step was" if self.skips == 1 else f"{self.skips} steps were"
            text += f" Before it {steps} left out, as many as NonFiniteGuard(max_skips={self.max_skips}) allows."
        if finding.action == "stop":
            raise NonFiniteException(text, finding)
        self.skips += 1
        for parameter in parameters:
            parameter.grad = None
        if self.action == "rollback":
            text += f" The weights go back to those of step {self._roll_back(trainer, pl_module)}."
        else:
            text += " The step is left out."
        rank_zero_warn(text)

    def _advice(self, trainer: Trainer, finding: Finding) -> str:
        if not self.records:
            return ""
        try:
            run = remember(trainer, finding)
        except (OSError, ValueError) as error:  # what was found matters more
            return f"It could not be written down ({error})."
        return f"Repeat it by `fulmen replay {run} --step {finding.step}`."

    # -- snapshots ----------------------------------------------------------------------------------------------------

    def _snapshot_is_due(self, step: int) -> bool:
        every = self.snapshot_every_n_steps
        return self._snapshot is None or step // every != self._snapshot["due_at"] // every

    def _take_snapshot(self, trainer: Trainer, pl_module: LightningModule) -> None:
        step = trainer.progress.step
        tensors = _tensors_of(pl_module)
        if self._snapshot is not None:
            self._snapshot["due_at"] = step
            if not all_finite([], [tensor for tensor in tensors.values() if tensor.is_floating_point()]):
                return  # the one before is better
        self._snapshot = {
            "step": step,
            "due_at": step,
            "tensors": _on_host(tensors),
            "optimizers": [_on_host(optimizer.state_dict()) for optimizer in trainer.optimizers],
        }

    def _roll_back(self, trainer: Trainer, pl_module: LightningModule) -> int:
        """Put the last snapshot back; returns its step."""
        snapshot = self._snapshot
        assert snapshot is not None  # one is taken before the first batch
        with torch.no_grad():
            for name, tensor in _tensors_of(pl_module).items():
                tensor.copy_(snapshot["tensors"][name])
        for optimizer, state in zip(trainer.optimizers, snapshot["optimizers"]):
            if not isinstance(optimizer, NoOptimizer):
                groups = optimizer.state_dict()["param_groups"]  # learning rates go on
                optimizer.load_state_dict({**deepcopy(state), "param_groups": groups})
        return snapshot["step"]

    # -- state --------------------------------------------------------------------------------------------------------

    def state_dict(self) -> dict[str, Any]:
        return {"skips": self.skips}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self.skips, self._snapshot = state_dict["skips"], state_dict.get("snapshot")

    def on_save_checkpoint(self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]) -> None:
        progress = trainer.progress
        if self._snapshot is None or (self._snapshot_is_due(progress.step) and not progress.window_is_open):
            return  # a run that goes on from here takes one first
        checkpoint["callbacks"][self.state_key]["snapshot"] = self._snapshot


def _tensors_of(module: LightningModule) -> dict[str, Tensor]:
    """Everything that a step may change, in place."""
    return {**dict(module.named_parameters()), **dict(module.named_buffers())}


def _on_host(state: dict[str, Any]) -> dict[str, Any]:
    """A copy in the memory of the host."""
    return apply_to_collection(state, torch.Tensor, lambda tensor: tensor.detach().to("cpu", copy=True))
