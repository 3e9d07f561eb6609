"""How numbers are kept while training: the open class of all precisions, which is also plain 32-bit."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from fulmen.utilities.enums import GradClipAlgorithmType
from fulmen.utilities.grads import clip_grad_norm, clip_grad_value

if TYPE_CHECKING:
    from torch.optim import Optimizer

    from fulmen.core.module import LightningModule

_NOTHING = nullcontext()


class Precision:
    """32-bit throughout. Derive from it to keep numbers in another way."""

    precision: str = "32-true"

    @property
    def steps_alone(self) -> bool:
        """Whether ``optimizer.step()`` is all there is to a step; a gradient scaler, say, answers no."""
        return not self._writes("optimizer_step", "unscale_gradients")

    @property
    def goes_backward_alone(self) -> bool:
        """Whether ``loss.backward()`` is all there is to a backward pass."""
        return not self._writes("pre_backward", "backward", "post_backward")

    def _writes(self, *names: str) -> bool:
        """Whether one of these methods does anything."""
        return any(getattr(type(self), name) is not getattr(Precision, name) for name in names)

    def connect(
        self, model: nn.Module, optimizers: list[Optimizer], lr_schedulers: list[Any]
    ) -> tuple[nn.Module, list[Optimizer], list[Any]]:
        """Look at what will be trained, when its optimizers are there; called once per ``fit``.

        Returns:
            The three, or what is to be used instead of the optimizers and schedulers.
        """
        return model, optimizers, lr_schedulers

    def convert_module(self, module: nn.Module) -> nn.Module:
        """Change the module's numbers before training; called once per run."""
        return module

    def convert_input(self, data: Any) -> Any:
        """Change a batch before it is used."""
        return data

    def convert_output(self, data: Any) -> Any:
        """Change what a step returned."""
        return data

    def forward_context(self) -> AbstractContextManager[Any]:
        """What each step runs in."""
        return _NOTHING

    def train_step_context(self) -> AbstractContextManager[Any]:
        return self.forward_context()

    def val_step_context(self) -> AbstractContextManager[Any]:
        return self.forward_context()

    def test_step_context(self) -> AbstractContextManager[Any]:
        return self.forward_context()

    def predict_step_context(self) -> AbstractContextManager[Any]:
        return self.forward_context()

    def tensor_init_context(self) -> AbstractContextManager[Any]:
        """What tensors are made in."""
        return _NOTHING

    def module_init_context(self) -> AbstractContextManager[Any]:
        """What layers are made in (``configure_model``, ``trainer.init_module``)."""
        return self.tensor_init_context()

    def backward_for(self, module: LightningModule) -> Callable[..., None]:
        """The function that goes backward from a loss: the module's own, and around it what this precision needs."""
        if self.goes_backward_alone:
            return module.backward

        def backward(loss: Tensor, *args: Any, **kwargs: Any) -> None:
            loss = self.pre_backward(loss, module)
            self.backward(loss, module, module.trainer.optimizer, *args, **kwargs)
            self.post_backward(loss, module)

        return backward

    def pre_backward(self, tensor: Tensor, module: LightningModule) -> Tensor:
        """Change a loss before the backward pass from it."""
        return tensor

    def backward(self, tensor: Tensor, model: LightningModule, optimizer: Any, *args: Any, **kwargs: Any) -> None:
        """Go backward from a loss. ``optimizer`` is None in manual optimization, and in Fabric, whose ``model`` may be
        any module, or None.
        """
        own = getattr(model, "backward", None)
        if own is not None:
            own(tensor, *args, **kwargs)
        else:
            tensor.backward(*args, **kwargs)

    def post_backward(self, tensor: Tensor, module: LightningModule) -> Tensor:
        """Called with the loss after the backward pass from it."""
        return tensor

    def unscale_gradients(self, optimizer: Optimizer) -> None:
        """Give the optimizer's gradients their true size, when all those of a step are there: before
        ``on_before_optimizer_step``, clipping and the step. May be called several times.
        """

    def optimizer_step(
        self,
        optimizer: Optimizer,
        model: LightningModule | None = None,
        closure: Callable[[], Any] | None = None,
        **kwargs: Any,
    ) -> Any:
        """Step ``optimizer``.

        Args:
            model: the module that is trained.
            closure: does the forward and the backward. Where this method is overridden it is always there, and does
                nothing if that has been done.
        """
        if closure is None:
            return optimizer.step(**kwargs)
        return optimizer.step(closure=closure, **kwargs)

    def prepare_clipping(self, optimizer: Optimizer) -> None:
        """The gradients of the optimizer are about to be clipped: give them their true size.

        Raises:
            RuntimeError: that is done in the optimizer's step only.
        """
        self.unscale_gradients(optimizer)

    def clip_gradients(
        self,
        optimizer: Optimizer,
        clip_val: int | float = 0.0,
        gradient_clip_algorithm: GradClipAlgorithmType = GradClipAlgorithmType.NORM,
    ) -> None:
        """Clip the gradients of the optimizer's parameters; nothing is done if ``clip_val`` is not positive."""
        if clip_val <= 0:
            return
        if gradient_clip_algorithm == GradClipAlgorithmType.VALUE:
            self.clip_grad_by_value(optimizer, clip_val)
        else:
            self.clip_grad_by_norm(optimizer, clip_val)

    def clip_grad_by_value(self, optimizer: Optimizer, clip_val: int | float) -> None:
        """Limit each element to ``[-clip_val, clip_val]``."""
        clip_grad_value(self.main_params(optimizer), clip_val)

    def clip_grad_by_norm(self, optimizer: Optimizer, clip_val: int | float) -> None:
        """Scale all gradients together so that their 2-norm is at most ``clip_val``."""
        clip_grad_norm(self.main_params(optimizer), clip_val)

    def main_params(self, optimizer: Optimizer) -> list[Tensor]:
        """The parameters that the optimizer steps."""
        return [parameter for group in optimizer.param_groups for parameter in group["params"]]

    def state_dict(self) -> dict[str, Any]:
        return {}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        pass

    def teardown(self) -> None:
        """Undo what outlives a run."""


class DefaultDtype(AbstractContextManager[None]):
    """Make ``dtype`` torch's default type for the length of a ``with``."""

    def __init__(self, dtype: torch.dtype) -> None:
        self._dtype = dtype

    def __enter__(self) -> None:
        self._before = torch.get_default_dtype()
        torch.set_default_dtype(self._dtype)

    def __exit__(self, *exception: object) -> None:
        torch.set_default_dtype(self._before)


class WithoutInitialisation(TorchFunctionMode):
    """Make layers without filling their parameters, for the length of a ``with``."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if getattr(func, "__module__", None) == "torch.nn.init":
            return kwargs["tensor"] if kwargs and "tensor" in kwargs else args[0]
        return func(*args, **(kwargs or {}))
