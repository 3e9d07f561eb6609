"""A layer for which the memory is not enough beyond a number of samples, so that torch raises its own error."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn


class _InBackward(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, value: Tensor, most: int) -> Tensor:
        ctx.most = most
        return value.clone()

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Any:  # type: ignore[override]
        _ask_for(len(gradient), ctx.most)
        return gradient, None


class MemoryLimit(nn.Module):
    """Passes on what it gets, if that is not too much.

    Args:
        most: samples.
        in_backward: the memory is short when gradients are computed.
    """

    def __init__(self, most: int, in_backward: bool = False) -> None:
        super().__init__()
        self.most, self.in_backward = most, in_backward

    def forward(self, value: Tensor) -> Tensor:
        if self.in_backward:
            return _InBackward.apply(value, self.most)  # type: ignore[return-value]
        _ask_for(len(value), self.most)
        return value


def _ask_for(samples: int, most: int) -> None:
    if samples > most:
        torch.empty(2**60, dtype=torch.uint8)
