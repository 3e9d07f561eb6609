"""All numbers in 64 bits."""

from __future__ import annotations

from contextlib import AbstractContextManager
from typing import Any

import torch
from torch import Tensor, nn

from fulmen.plugins.precision.precision import DefaultDtype, Precision
from fulmen.utilities.apply_func import apply_to_collection


def cast(data: Any, dtype: torch.dtype) -> Any:
    """A nest of tensors with those of floating point in another type."""

    def to_dtype(tensor: Tensor) -> Tensor:
        return tensor.to(dtype) if tensor.is_floating_point() else tensor

    return apply_to_collection(data, Tensor, to_dtype)


class DoublePrecision(Precision):
    """64-bit floating point for parameters, inputs and new tensors."""

    precision = "64-true"
    dtype = torch.float64

    def convert_module(self, module: nn.Module) -> nn.Module:
        return module.to(self.dtype)

    def convert_input(self, data: Any) -> Any:
        return cast(data, self.dtype)

    def convert_output(self, data: Any) -> Any:
        return cast(data, torch.get_default_dtype())

    def forward_context(self) -> AbstractContextManager[Any]:
        return DefaultDtype(self.dtype)

    def tensor_init_context(self) -> AbstractContextManager[Any]:
        return DefaultDtype(self.dtype)
