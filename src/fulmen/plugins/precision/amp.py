"""Mixed precision: weights in 32 bits, and autocast chooses the type of each operation."""

from __future__ import annotations

from contextlib import AbstractContextManager
from typing import Any, Literal

import torch

from fulmen.plugins.precision.precision import Precision
from fulmen.utilities.exceptions import MisconfigurationException


class MixedPrecision(Precision):
    """Autocast around every step.

    Args:
        precision: ``"bf16-mixed"``. ``"16-mixed"``, which needs a gradient scaler, is not there yet.
        device: the type of device, such as ``"cpu"`` or ``"cuda"``.

    Raises:
        MisconfigurationException: ``"16-mixed"`` is asked for.
    """

    def __init__(self, precision: Literal["bf16-mixed"] = "bf16-mixed", device: str = "cpu") -> None:
        if precision != "bf16-mixed":
            raise MisconfigurationException(
                f"`precision={precision!r}` on {device!r} is not there yet: it needs a gradient scaler. "
                "Write `precision='bf16-mixed'`."
            )
        self.precision = precision
        self.device = device

    def forward_context(self) -> AbstractContextManager[Any]:
        # the cache would keep casts of weights over the accumulation of gradients and over validation
        return torch.autocast(self.device, dtype=torch.bfloat16, cache_enabled=False)
