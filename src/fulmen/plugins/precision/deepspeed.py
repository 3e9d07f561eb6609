"""The numbers of DeepSpeed, whose engine goes backward, clips and steps."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from fulmen.plugins.precision.double import cast
from fulmen.plugins.precision.precision import DefaultDtype, Precision
from fulmen.utilities.enums import GradClipAlgorithmType
from fulmen.utilities.exceptions import MisconfigurationException
from fulmen.utilities.text import shown

if TYPE_CHECKING:
    from fulmen.core.module import LightningModule

_TYPES = {
    "32-true": torch.float32,
    "16-mixed": torch.float16,
    "16-true": torch.float16,
    "bf16-mixed": torch.bfloat16,
    "bf16-true": torch.bfloat16,
}


class DeepSpeedPrecision(Precision):
    """32 or 16 bits, as the engine of DeepSpeed keeps them: the module in that type, the optimizer with 32-bit weights
    of its own, and a loss that is scaled where it is ``torch.float16``.

    Args:
        precision: ``"32-true"``, ``"16-mixed"``, ``"bf16-mixed"``, ``"16-true"`` or ``"bf16-true"``.

    Attributes:
        engine: of the run; None outside of ``fit``.

    Raises:
        ValueError: ``precision`` is none of those.
    """

    def __init__(self, precision: str) -> None:
        if precision not in _TYPES:
            raise ValueError(f"DeepSpeed knows no `precision={shown(precision)}`: write one of {list(_TYPES)}.")
        self.precision = precision
        self.dtype = _TYPES[precision]
        self.engine: Any = None

    def convert_module(self, module: nn.Module) -> nn.Module:
        return module.to(self.dtype)  # also where nothing is trained, and there is no engine that would do it

    def convert_input(self, data: Any) -> Any:
        return data if self.dtype is torch.float32 else cast(data, self.dtype)

    def tensor_init_context(self) -> Any:
        return DefaultDtype(self.dtype) if self.precision.endswith("-true") else super().tensor_init_context()

    def backward(self, tensor: Tensor, model: LightningModule, optimizer: Any, *args: Any, **kwargs: Any) -> None:
        window = model.trainer.window
        if model.automatic_optimization and (window.weight is not None or window.missing or window.short):
            raise MisconfigurationException(
                "with DeepSpeed a gradient cannot be divided any more at the end of its accumulation window: return a "
                "mean loss for each batch, not `loss_sum` and `weight`, and give loaders with a length where "
                "`accumulate_grad_batches` is not 1."
            )
        self.engine.backward(tensor, *args, scale_wrt_gas=False, **kwargs)

    def optimizer_step(
        self,
        optimizer: Optimizer,
        model: LightningModule | None = None,
        closure: Callable[[], Any] | None = None,
        **kwargs: Any,
    ) -> Any:
        if kwargs:
            raise MisconfigurationException(f"`optimizer.step` with {sorted(kwargs)}: DeepSpeed's step takes nothing.")
        loss = None if closure is None else closure()
        self.engine.step()
        return loss

    def clip_gradients(
        self,
        optimizer: Optimizer,
        clip_val: int | float = 0.0,
        gradient_clip_algorithm: GradClipAlgorithmType = GradClipAlgorithmType.NORM,
    ) -> None:
        """Nothing, as the engine clips in its step: to the value that it was made with.

        Raises:
            MisconfigurationException: another one is asked for.
        """
        own = self.engine.gradient_clipping()
        if clip_val > 0 and (clip_val != own or gradient_clip_algorithm != GradClipAlgorithmType.NORM):
            raise MisconfigurationException(
                f"gradients are to be clipped to {clip_val} by {gradient_clip_algorithm}, and DeepSpeed clips by norm, "
                f"to {own} in the whole run. Write `Trainer(gradient_clip_val=...)`, or `gradient_clipping` in the "
                "configuration, and no other value."
            )

    def teardown(self) -> None:
        self.engine = None
