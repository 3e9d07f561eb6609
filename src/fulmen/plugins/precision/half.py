"""All numbers in 16 bits."""

from __future__ import annotations

from typing import Any, Literal

import torch
from torch import nn
from torch.optim import Optimizer

from fulmen.plugins.precision.double import DoublePrecision
from fulmen.utilities.rank_zero import rank_zero_warn
from fulmen.utilities.text import shown


class HalfPrecision(DoublePrecision):
    """16-bit floating point for parameters, inputs and new tensors.

    Args:
        precision: ``"bf16-true"``, or ``"16-true"``, whose range is small: nothing scales losses here.

    Raises:
        ValueError: ``precision`` is none of the two.
    """

    def __init__(self, precision: Literal["bf16-true", "16-true"] = "16-true") -> None:
        if precision not in ("bf16-true", "16-true"):
            raise ValueError(f"HalfPrecision(precision={shown(precision)}): must be 'bf16-true' or '16-true'.")
        self.precision = precision
        self.dtype = torch.bfloat16 if precision == "bf16-true" else torch.float16

    def connect(
        self, model: nn.Module, optimizers: list[Optimizer], lr_schedulers: list[Any]
    ) -> tuple[nn.Module, list[Optimizer], list[Any]]:
        least = torch.finfo(self.dtype).smallest_normal * torch.finfo(self.dtype).eps  # below half of it is zero
        for optimizer in optimizers:
            lost = [group["eps"] for group in optimizer.param_groups if 0 < group.get("eps", 0) < least / 2]
            if lost:
                rank_zero_warn(
                    f"{type(optimizer).__name__}(eps={lost[0]}) and `precision={self.precision!r}`: in 16 bits that is "
                    "zero, by which the optimizer then divides. Write `eps=1e-4`, or `precision='16-mixed'`."
                )
        return model, optimizers, lr_schedulers
