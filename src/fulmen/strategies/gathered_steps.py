"""Steps of a module whose parameters are spread over processes, and what rides on its gradients."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any

import torch
from torch import Tensor, nn
from torch.distributed.tensor import DTensor

from fulmen.strategies.late import COUNT, Late


class SpreadLate(Late):
    """What is known late, where gradients are spread: each process gets a row of the carry, and all are the same."""

    @property
    def received(self) -> Tensor | None:
        gradient = self.carry.grad
        return gradient.to_local()[0] if isinstance(gradient, DTensor) else gradient


class Carrier(nn.Module):
    """A parameter of a few numbers, which has them once for each process, so that its gradient brings them to all."""

    def __init__(self, rows: int, dtype: torch.dtype, device: torch.device) -> None:
        super().__init__()
        self.carry = nn.Parameter(torch.zeros(rows, COUNT, dtype=dtype, device=device))

    def forward(self) -> Tensor:
        return self.carry


class Root(nn.Module):
    """What is sharded as a whole, around the module: while it runs, all parameters are gathered that are in no part.

    Attributes:
        late: what rides on the gradients. None outside of training.
    """

    late: Late | None = None
    _step: Callable[..., Any] | None = None
    _joining: Tensor | None = None

    def __init__(self, module: nn.Module, rows: int, device: torch.device) -> None:
        super().__init__()
        self.module = module
        trained = [parameter.dtype for parameter in module.parameters() if parameter.requires_grad]
        widest = max(trained, key=lambda dtype: dtype.itemsize, default=torch.get_default_dtype())
        self.carrier = Carrier(rows, widest, device)
        self._held: list[Any] = []  # what keeps gradients at zero
        self._seen: list[tuple[Any, tuple[Tensor, ...]]] = []  # of each part in a step: its output, its parameters
        self._parts = 0
        self._forward = module.forward
        module.__dict__["forward"] = self._call_of_module

    def watch(self, part: nn.Module) -> None:
        """Note what ``part``, which is sharded on its own, gives in a training step."""
        self._parts += 1
        part.register_forward_hook(self._note, prepend=True)  # while its parameters are gathered

    def _note(self, part: nn.Module, inputs: Any, output: Any) -> None:
        if self.late is not None and self._step is not None and torch.is_grad_enabled():
            self._seen.append((output, tuple(part.parameters())))

    def run(
        self,
        step: Callable[..., Any],
        args: tuple[Any, ...],
        casts: bool = False,
        trains: bool = False,
        kwargs: Mapping[str, Any] = MappingProxyType({}),
    ) -> Any:
        """Call ``step(*args, **kwargs)`` with the parameters gathered.

        Args:
            casts: what is in ``args`` gets the type of the gathered parameters.
            trains: a backward pass follows, which frees them.
        """
        if self._step is not None:
            return step(*args, **kwargs)
        self.__dict__["_step"] = step if casts else lambda: step(*args, **kwargs)
        try:
            return self(*args, **kwargs) if casts else self()
        finally:
            self.__dict__["_step"] = None
            self._seen.clear()
            if not trains:  # or an optimizer would be made of the gathered ones, or step unseen by them
                self.reshard()  # type: ignore[operator]  # of torch, for what is sharded

    def _call_of_module(self, *args: Any, **kwargs: Any) -> Any:
        """The module's ``forward``, which may be called by a step or by anybody else."""
        return self.run(self._forward, args, kwargs=kwargs)

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        assert self._step is not None
        carry = self.carrier()
        output = self._step(*args, **kwargs)
        if self.late is None or not torch.is_grad_enabled():
            return output
        if isinstance(output, Tensor):
            return self._riding(output, carry)
        if isinstance(output, Mapping):
            name = "loss_sum" if "loss_sum" in output else "loss"
            if output.get(name) is not None:
                return {**output, name: self._riding(output[name], carry)}
        if output is None and len(self._seen) >= self._parts:
            self.__dict__["_joining"] = self._nothing(carry)
            return {"loss": self._joining}  # so that it is known what goes backward
        return output

    def taken_joining(self) -> Tensor | None:
        """What to go backward from, if the last step ran the module and gave no loss."""
        joining, self.__dict__["_joining"] = self._joining, None
        return joining

    def join(self, loss: Tensor) -> None:
        """Go backward from ``loss`` without a gradient for anybody, as others do so from theirs."""
        loss.backward()
        for held in self._held:
            held.remove()
        self._held = []

    def _riding(self, loss: Any, carry: Tensor) -> Any:
        if isinstance(loss, Tensor) and loss.requires_grad:
            return _Riding.apply(loss, carry, self.late)
        return loss  # an error soon

    def _nothing(self, carry: Tensor) -> Tensor:
        """A loss from which each parameter gets a gradient of zeros, through all parts that were run."""
        outputs: list[Tensor] = []
        gathered: list[Tensor] = [one for one in self.module.parameters() if not isinstance(one, DTensor)]
        for output, parameters in self._seen:
            outputs += [one for one in _tensors_in(output) if one.requires_grad]
            gathered += parameters
        self._held = [_without_gradient(parameter) for parameter in gathered if parameter.requires_grad]
        reached = {id(one) for _, parameters in self._seen for one in parameters}
        direct = [one for one in gathered if one.requires_grad and id(one) not in reached]
        return _Nothing.apply(self.late, carry, *outputs, *direct)  # type: ignore[return-value]


def _tensors_in(value: Any) -> list[Tensor]:
    if isinstance(value, Tensor):
        return [value]
    parts = value.values() if isinstance(value, Mapping) else value if isinstance(value, (list, tuple)) else ()
    return [tensor for part in parts for tensor in _tensors_in(part)]


def _without_gradient(parameter: Tensor) -> Any:
    """Let the gradient of ``parameter`` be zeros, also where infinite activations would make it NaN. Returns what ends
    that.
    """
    return parameter.register_hook(torch.zeros_like)


def _in_rows(values: Tensor | None, carry_shape: torch.Size) -> Tensor | None:
    return None if values is None else values.expand(carry_shape)


class _Riding(torch.autograd.Function):
    """The loss, unchanged; on the way back the numbers get on."""

    @staticmethod
    def forward(ctx: Any, loss: Tensor, carry: Tensor, late: Late) -> Tensor:
        ctx.late, ctx.shape = late, carry.shape
        return loss.clone()

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Any:  # type: ignore[override]
        return gradient, _in_rows(ctx.late.values, ctx.shape), None


class _Nothing(torch.autograd.Function):
    """A loss without a gradient, of which parameters get word that nothing comes."""

    @staticmethod
    def forward(ctx: Any, late: Late, carry: Tensor, *tensors: Tensor) -> Tensor:
        ctx.late, ctx.shape = late, carry.shape
        ctx.tensors = [(tensor.shape, tensor.dtype, tensor.device) for tensor in tensors]
        return carry.new_zeros(())

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Any:  # type: ignore[override]
        zeros = [torch.zeros(shape, dtype=dtype, device=device) for shape, dtype, device in ctx.tensors]
        return None, _in_rows(ctx.late.values, ctx.shape), *zeros
