"""Mixed precision: weights in 32 bits, and autocast chooses the type of each operation."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import TYPE_CHECKING, Any, Literal
from weakref import ref

import torch
from torch import Tensor, nn
from torch.amp.grad_scaler import OptState
from torch.optim import LBFGS, Optimizer

from fulmen.core.optimizer import LightningOptimizer
from fulmen.plugins.precision.precision import Precision
from fulmen.plugins.precision.scaler import SkipCount, new_scaler, unscales_itself
from fulmen.utilities.enums import GradClipAlgorithmType
from fulmen.utilities.exceptions import MisconfigurationException

if TYPE_CHECKING:
    from torch.amp.grad_scaler import GradScaler

    from fulmen.core.module import LightningModule


class MixedPrecision(Precision):
    """Autocast around every step and, for 16-bit floating point, a gradient scaler.

    The scaler multiplies losses before they go backward, so that small gradients are not lost, and leaves a step out
    where a gradient is not finite. Such a step counts like any other: ``global_step`` and the schedulers go on.

    Args:
        precision: ``"16-mixed"`` or ``"bf16-mixed"``.
        device: the type of device, such as ``"cpu"`` or ``"cuda"``.
        scaler: None: ``torch.amp.GradScaler(device)`` for ``"16-mixed"``; ``"bf16-mixed"`` needs none.

    Attributes:
        scaler: the gradient scaler, or None.

    Raises:
        ValueError: ``precision`` is none of the two.
        MisconfigurationException: a scaler is given for ``"bf16-mixed"``.
    """

    def __init__(
        self,
        precision: Literal["16-mixed", "bf16-mixed"] = "bf16-mixed",
        device: str = "cpu",
        scaler: GradScaler | None = None,
    ) -> None:
        if precision not in ("16-mixed", "bf16-mixed"):
            raise ValueError(
                f"{type(self).__name__}(precision={precision!r}): must be '16-mixed' or 'bf16-mixed'. For weights of "
                "16 bits write `HalfPrecision('bf16-true')`."
            )
        if scaler is not None and precision == "bf16-mixed":
            raise MisconfigurationException(
                f"`precision='bf16-mixed'` needs no gradient scaler, and was given a {type(scaler).__name__}: its "
                "range is that of 32 bits. Leave the scaler out, or write `precision='16-mixed'`."
            )
        self.precision = precision
        self.device = device
        self.scaler = new_scaler(device) if scaler is None and precision == "16-mixed" else scaler
        self._dtype = torch.float16 if precision == "16-mixed" else torch.bfloat16
        self._at_first = self.scaler.state_dict() if self.scaler is not None else {}
        self._skips = SkipCount()
        self._trained: Callable[[], Any] = lambda: None
        self._steps_several = False
        self._watches: list[Any] = []
        self._begin()

    def _begin(self) -> None:
        self._is_stepping = False
        self._has_scaled = False  # anything at all
        self._is_scaled = False  # a loss, since the last update of the scale
        self._update_is_due = False

    @property
    def skipped_steps(self) -> int:
        """How many steps of the run the scaler has left out since a gradient was not finite. Reading it waits for the
        device.
        """
        return self._skips.total

    @property
    def steps_alone(self) -> bool:
        return self.scaler is None and not self._writes_more("optimizer_step", "unscale_gradients")

    def _writes_more(self, *names: str) -> bool:
        return any(getattr(type(self), name) is not getattr(MixedPrecision, name) for name in names)

    def forward_context(self) -> AbstractContextManager[Any]:
        return self.autocast_context_manager()

    def autocast_context_manager(self) -> torch.autocast:
        """Autocast in this precision."""
        # the cache would keep casts of weights over the accumulation of gradients and over validation
        return torch.autocast(self.device, dtype=self._dtype, cache_enabled=False)

    # -- the scaler ---------------------------------------------------------------------------------------------------

    def connect(
        self, model: nn.Module, optimizers: list[Optimizer], lr_schedulers: list[Any]
    ) -> tuple[nn.Module, list[Optimizer], list[Any]]:
        if self.scaler is None:
            return model, optimizers, lr_schedulers
        if any(isinstance(optimizer, LBFGS) for optimizer in optimizers):
            raise MisconfigurationException(
                f"`precision={self.precision!r}` and LBFGS do not go together: its line search calls the closure "
                "several times in one step, for which gradient scalers are not made. Write `precision='bf16-mixed'` or "
                "'32-true'."
            )
        if self._trained() is not model:  # another model: the scale and the count begin anew
            self._trained = ref(model)
            self.scaler.load_state_dict(self._at_first)
            self._skips = SkipCount()
        if self.scaler.is_enabled():
            self.scaler._per_optimizer_states.clear()  # an interrupted run may have left one in the middle of a step
        self._begin()
        self._steps_several = len(optimizers) > 1
        if self.scaler.is_enabled():
            self._watches += [
                optimizer.register_step_pre_hook(self._refuse_scaled)
                for optimizer in optimizers
                if hasattr(optimizer, "register_step_pre_hook")
            ]
        return model, optimizers, lr_schedulers

    @property
    def goes_backward_alone(self) -> bool:
        return self.scaler is None and not self._writes_more("pre_backward", "backward", "post_backward")

    def pre_backward(self, tensor: Tensor, module: LightningModule) -> Tensor:
        if self.scaler is None:
            return tensor
        self._update()
        self._has_scaled = self._is_scaled = True
        return self.scaler.scale(tensor)

    def unscale_gradients(self, optimizer: Optimizer) -> None:
        if isinstance(optimizer, LightningOptimizer):
            optimizer = optimizer.optimizer
        scaler = self.scaler
        if scaler is None or not scaler.is_enabled() or not self._is_scaled or unscales_itself(optimizer):
            return
        if scaler._per_optimizer_states[id(optimizer)]["stage"] is OptState.READY:
            scaler.unscale_(optimizer)

    def optimizer_step(
        self,
        optimizer: Optimizer,
        model: LightningModule | None = None,
        closure: Callable[[], Any] | None = None,
        **kwargs: Any,
    ) -> Any:
        scaler = self.scaler
        if scaler is None or not scaler.is_enabled():
            return super().optimizer_step(optimizer, model, closure, **kwargs)
        loss = closure() if closure is not None else None
        if scaler._per_optimizer_states[id(optimizer)]["stage"] is OptState.STEPPED:
            self._update()  # it is stepped twice in a row
        if not self._is_scaled:
            if not self._has_scaled and any(parameter.grad is not None for parameter in self.main_params(optimizer)):
                raise _not_scaled(self.precision)
            self._step(optimizer.step, **kwargs)  # there is nothing to unscale
            return loss
        self.unscale_gradients(optimizer)
        found: dict[Any, Tensor] = scaler._found_inf_per_device(optimizer)
        if not found and not unscales_itself(optimizer):  # no gradients: `training_step` returned None
            scaler._per_optimizer_states.pop(id(optimizer), None)
            self._step(optimizer.step, **kwargs)
            return loss
        self.agree(found)
        self._step(scaler.step, optimizer, **kwargs)
        if isinstance(optimizer, Optimizer):
            optimizer._opt_called = True  # type: ignore[attr-defined]  # or torch warns of schedulers that go on
        self._skips.count(scaler._found_inf_per_device(optimizer), scaler, model)
        self._update_is_due = True
        if not self._steps_several:
            self._update()
        return loss

    def _step(self, step: Callable[..., Any], *args: Any, **kwargs: Any) -> None:
        self._is_stepping = True
        try:
            step(*args, **kwargs)
        finally:
            self._is_stepping = False

    def _refuse_scaled(self, optimizer: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        """Before a step that may go past the scaler."""
        if self._is_stepping or self.scaler is None:
            return
        is_ready = self.scaler._per_optimizer_states[id(optimizer)]["stage"] is OptState.READY
        by_scaler = getattr(optimizer, "grad_scale", None) is not None
        has_closure = len(args) > 1 or kwargs.get("closure") is not None
        if (self._is_scaled and is_ready and not by_scaler) or has_closure:
            raise MisconfigurationException(
                f"{type(optimizer).__name__} was stepped directly, and its gradients are scaled, since "
                f"`precision={self.precision!r}`. Step the optimizer that `self.optimizers()` gives, or that "
                "`optimizer_step` was given: that unscales them."
            )

    def teardown(self) -> None:
        for watch in self._watches:
            watch.remove()
        self._watches = []

    def agree(self, found_inf: dict[Any, Tensor]) -> None:
        """Make what this process found that which all processes found, in place: 1 where a gradient is not finite.

        There is nothing to do where all have the same gradients (DDP) or share them out as ``DTensor``, for which torch
        does it. A strategy of another kind puts a function of its own here.
        """

    def _update(self) -> None:
        """Choose the next scale. With several optimizers it is done before the next loss is scaled, so that gradients
        that one backward pass gave to several optimizers are all unscaled by what they were scaled by.
        """
        if self._update_is_due and self.scaler is not None:
            self.scaler.update()
            self._is_scaled = self._update_is_due = False

    def prepare_clipping(self, optimizer: Optimizer) -> None:
        if self.scaler is not None and unscales_itself(optimizer):
            raise RuntimeError(
                f"{type(optimizer).__name__} unscales its gradients itself, in its step, so that they cannot be "
                "clipped before it. Leave out `gradient_clip_val`, or write `precision='bf16-mixed'`."
            )
        super().prepare_clipping(optimizer)

    def clip_gradients(
        self,
        optimizer: Optimizer,
        clip_val: int | float = 0.0,
        gradient_clip_algorithm: GradClipAlgorithmType = GradClipAlgorithmType.NORM,
    ) -> None:
        if clip_val > 0 and self.scaler is not None:
            self.prepare_clipping(optimizer)
        super().clip_gradients(optimizer, clip_val, gradient_clip_algorithm)

    # -- state --------------------------------------------------------------------------------------------------------

    def state_dict(self) -> dict[str, Any]:
        """The scaler's state, and the number of steps that it left out."""
        if self.scaler is None:
            return {}
        self._update()
        state = self.scaler.state_dict()
        return {**state, "skipped_steps": self.skipped_steps} if state else {}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        if self.scaler is not None and self.scaler.is_enabled():
            state = dict(state_dict)
            self._skips = SkipCount(state.pop("skipped_steps", 0))  # Lightning's files have none
            self.scaler.load_state_dict(state)


def _not_scaled(precision: str) -> MisconfigurationException:
    return MisconfigurationException(
        f"`optimizer.step()` found gradients of a loss that was not scaled, which `precision={precision!r}` needs. "
        "Write `self.manual_backward(loss)` instead of `loss.backward()`."
    )
