"""Precisions in which all numbers have one type other than 32-bit."""

from __future__ import annotations

from contextlib import AbstractContextManager
from typing import Any, Literal

import torch
from torch import Tensor, nn

from fulmen.plugins.precision.precision import DefaultDtype, Precision
from fulmen.utilities.apply_func import apply_to_collection


def _cast(data: Any, dtype: torch.dtype) -> Any:
    def cast(tensor: Tensor) -> Tensor:
        return tensor.to(dtype) if tensor.is_floating_point() else tensor

    return apply_to_collection(data, Tensor, cast)


class DoublePrecision(Precision):
    """64-bit floating point for parameters, inputs and new tensors."""

    precision = "64-true"
    dtype = torch.float64

    def convert_module(self, module: nn.Module) -> nn.Module:
        return module.to(self.dtype)

    def convert_input(self, data: Any) -> Any:
        return _cast(data, self.dtype)

    def convert_output(self, data: Any) -> Any:
        return _cast(data, torch.get_default_dtype())

    def forward_context(self) -> AbstractContextManager[Any]:
        return DefaultDtype(self.dtype)

    def tensor_init_context(self) -> AbstractContextManager[Any]:
        return DefaultDtype(self.dtype)


class HalfPrecision(DoublePrecision):
    """16-bit floating point (``"bf16-true"`` or ``"16-true"``) for parameters, inputs and new tensors."""

    def __init__(self, precision: Literal["bf16-true", "16-true"] = "16-true") -> None:
        self.precision = precision
        self.dtype = torch.bfloat16 if precision == "bf16-true" else torch.float16
