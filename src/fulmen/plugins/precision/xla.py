"""Precision on the devices of torch_xla, which is imported when it is used."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Literal

import torch
from torch import nn

from fulmen.plugins.precision.double import cast
from fulmen.plugins.precision.precision import Precision
from fulmen.utilities.exceptions import MisconfigurationException
from fulmen.utilities.text import shown

if TYPE_CHECKING:
    from torch.optim import Optimizer

    from fulmen.core.module import LightningModule

_DTYPES = {"32-true": torch.float32, "16-true": torch.float16, "bf16-true": torch.bfloat16}


class XLAPrecision(Precision):
    """Numbers on an XLA device, where a step is also what is sent to it in one piece.

    Args:
        precision: ``"32-true"``, ``"bf16-true"`` or ``"16-true"``.

    Raises:
        MisconfigurationException: ``precision`` is none of those.
    """

    def __init__(self, precision: Literal["32-true", "16-true", "bf16-true"] = "32-true") -> None:
        if precision not in _DTYPES:
            raise MisconfigurationException(
                f"`precision={shown(precision)}` is not for XLA: it must be one of {list(_DTYPES)}. "
                "Write `precision='bf16-true'`."
            )
        self.precision = precision
        self.dtype = _DTYPES[precision]
        self.exchange: Callable[[Optimizer], None] | None = None  #: averages gradients, where there are several devices

    def convert_module(self, module: nn.Module) -> nn.Module:
        return module if self.precision == "32-true" else module.to(self.dtype)

    def convert_input(self, data: Any) -> Any:
        return data if self.precision == "32-true" else cast(data, self.dtype)

    def unscale_gradients(self, optimizer: Optimizer) -> None:
        if self.exchange is not None:
            self.exchange(optimizer)

    def optimizer_step(
        self,
        optimizer: Optimizer,
        model: LightningModule | None = None,
        closure: Callable[[], Any] | None = None,
        **kwargs: Any,
    ) -> Any:
        import torch_xla  # type: ignore[import-not-found]
        from torch_xla.core import xla_model  # type: ignore[import-not-found]

        loss = closure() if closure is not None else None
        if self.exchange is not None:  # they are averaged
            optimizer.step(**kwargs)
        else:
            xla_model.optimizer_step(optimizer, optimizer_args=kwargs)
        torch_xla.sync()
        return loss
