"""All numbers in 16 bits."""

from __future__ import annotations

from typing import Literal

import torch

from fulmen.plugins.precision.double import DoublePrecision


class HalfPrecision(DoublePrecision):
    """16-bit floating point (``"bf16-true"`` or ``"16-true"``) for parameters, inputs and new tensors."""

    def __init__(self, precision: Literal["bf16-true", "16-true"] = "16-true") -> None:
        self.precision = precision
        self.dtype = torch.bfloat16 if precision == "bf16-true" else torch.float16
