"""The gradient scaler of 16-bit training, and the count of the steps that it leaves out."""

from __future__ import annotations

import inspect
from types import SimpleNamespace
from typing import Any

import torch
from torch import Tensor

from fulmen.utilities.grads import by_layout
from fulmen.utilities.rank_zero import rank_zero_warn

#: steps left out in a row that are worth a warning: by then the scale has come from its default, 65536, down to 1
MANY = 16


class GradScaler(torch.amp.GradScaler):
    """torch's, for optimizers that step plain and sharded parameters (``DTensor``) together, too."""

    def _unscale_grads_(
        self, optimizer: Any, inv_scale: Tensor, found_inf: Tensor, allow_fp16: bool
    ) -> dict[torch.device, Tensor]:
        groups = by_layout(parameter for group in optimizer.param_groups for parameter in group["params"])
        if len(groups) < 2:
            return super()._unscale_grads_(optimizer, inv_scale, found_inf, allow_fp16)
        found: dict[torch.device, Tensor] = {}
        for group in groups:
            part: Any = SimpleNamespace(param_groups=[{"params": group}])
            for device, one in super()._unscale_grads_(part, inv_scale, found_inf, allow_fp16).items():
                found[device] = torch.maximum(found[device], one) if device in found else one
        return found


def new_scaler(device: str) -> GradScaler:
    """A scaler for gradients on this type of device."""
    return GradScaler(device)


def unscales_itself(optimizer: Any) -> bool:
    """Whether the optimizer asks for the scaler in its ``step`` and does all of it there. torch's fused ones also take
    gradients that are unscaled already.
    """
    if not getattr(optimizer, "_step_supports_amp_scaling", False):
        return False
    return "grad_scaler" in inspect.signature(optimizer.step).parameters


class SkipCount:
    """How many steps were left out. It is counted on the device, and looked at now and then: only then does the host
    wait for it.

    Args:
        total: those of the run before.
    """

    def __init__(self, total: int = 0) -> None:
        self._before = total
        self._total: Tensor | None = None
        self._in_a_row: Tensor | None = None
        self._until_look = MANY
        self._warn_at = MANY

    @property
    def total(self) -> int:
        return self._before + (int(self._total) if self._total is not None else 0)

    def count(self, found_inf: dict[Any, Tensor], scaler: torch.amp.GradScaler, model: Any) -> None:
        """A step was made, or left out where one of ``found_inf`` is not zero."""
        first, *others = found_inf.values()
        skipped = (first + sum(found.to(first.device) for found in others) > 0) if others else first > 0
        if self._total is None or self._in_a_row is None:
            self._total, self._in_a_row = skipped.long(), skipped.long()
        else:
            self._total += skipped
            self._in_a_row += 1
            self._in_a_row *= skipped
        self._until_look -= 1
        if self._until_look == 0:
            self._until_look = MANY
            self._look(int(self._in_a_row), scaler, model)

    def _look(self, in_a_row: int, scaler: torch.amp.GradScaler, model: Any) -> None:
        if in_a_row < MANY:
            self._warn_at = MANY
        elif in_a_row >= self._warn_at:
            self._warn_at *= 10
            rank_zero_warn(
                f"the gradient scaler has left out {in_a_row} steps in a row ({self.total} of this run), as gradients "
                f"are not finite{_first_of(model)}; its scale is {scaler.get_scale():g}, so that no longer is the "
                "cause. Look for a loss that is NaN or too large for 16 bits (`NonFiniteGuard` names the batch), or "
                "write `precision='bf16-mixed'`."
            )


def _first_of(model: Any) -> str:
    """Names the first parameter whose gradient is not finite."""
    if model is None:
        return ""
    for name, parameter in model.named_parameters():
        if parameter.grad is not None and not bool(torch.isfinite(parameter.grad).all()):
            return f" (the first is that of {name!r})"
    return ""
