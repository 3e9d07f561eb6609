"""What each process knows only at the end of an accumulation window, and all need then: it rides on the exchange of
gradients, as the gradient of a parameter of a few numbers.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

#: the places of the numbers: what is missing, the batches that came as sums, their weight (in three scales, as a hook
#: may send gradients in 16 bits), the loss, and 1 on the first process
_MISSING, _SUMMED, _WEIGHT, _LOSS, _FIRST = 0, 1, slice(2, 5), 5, 6
_SCALES = (1.0, 2.0**15, 2.0**30)
COUNT = 7

#: under this key the wrapper returns what a process goes backward from that has no loss
JOINS = "_joins"


def share_of(sizes: Sequence[int | None] | None, rank: int) -> float:
    """What the mean loss of process ``rank`` counts in the mean of its group, where 1 is an equal share: as many
    samples as the process has of the group.

    Args:
        sizes: samples by rank: 0 where a process has no batch, None where it is unknown; those that are unknown count
            alike. None: one process alone.
    """
    if sizes is None:
        return 1.0
    if None in sizes:
        known = [float(size != 0) for size in sizes]
    else:
        known = [float(size or 0) for size in sizes]
    total = sum(known)
    return known[rank] * len(known) / total if total else 1.0


class Late:
    """The numbers, on their way.

    Args:
        carry: the parameter whose gradient they are.
        rank: of this process.
        unfinished: makes the error that says why gradients were not exchanged. None: that cannot be told here.

    Attributes:
        values: what this process sends with its next backward pass. None: nothing, as the window is not at its end.
        wants_loss: the loss of all is needed, too: by an optimizer that looks at it.
    """

    def __init__(self, carry: nn.Parameter, rank: int, unfinished: Callable[[], Exception] | None = None) -> None:
        self.carry, self._unfinished = carry, unfinished
        self.values: Tensor | None = None
        self.wants_loss = False
        self._usual = torch.zeros(COUNT, dtype=carry.dtype, device=carry.device)
        self._usual[_FIRST] = float(rank == 0)

    @property
    def received(self) -> Tensor | None:
        """The mean of what all have sent; None if nobody has."""
        return self.carry.grad

    def begin(self) -> None:
        """A training step begins."""
        self.carry.grad = self.values = None

    def send(self, missing: float, weight: Tensor | float | None, summed: int, loss: Tensor | None) -> None:
        """Say what this process knows of its window, before the last backward pass of it.

        Args:
            missing: what its batches that gave no loss would have counted.
            weight: of the batches that came as sums. None: there was none.
            summed: the number of those.
            loss: as this process goes backward from it. None: it has none, or nobody needs it.
        """
        if not missing and weight is None and loss is None:
            self.values = self._usual
            return
        values = self._usual.clone()
        values[_MISSING] = -missing
        if weight is not None:
            values[_SUMMED] = float(summed)
            weight = torch.as_tensor(weight, dtype=torch.float64 if isinstance(weight, float) else None)
            for place, scale in enumerate(_SCALES, _WEIGHT.start):
                values[place] = weight / scale
        if loss is not None:
            values[_LOSS] = loss.detach()
        self.values = values

    def factor(self, size: int, sums: bool) -> float | Tensor | None:
        """By what all processes multiply their gradients now that they are exchanged: a number on the CPU; elsewhere a
        tensor, as nobody waits for the device. None: nothing is to do.

        Args:
            size: batches in the window.
            sums: losses came as sums here.

        Raises:
            MisconfigurationException: the gradients were not exchanged.
            ValueError: losses came as sums from some processes, and as means here.
        """
        received = self.received
        if received is None:
            return None
        if received.device.type != "cpu":
            return _factor_on_device(received, size)
        missing, summed, *weights, _, first = received.tolist()
        if first in (0.0, 1.0) and self._unfinished is not None:  # no mean of all
            raise self._unfinished()
        if summed:
            if not sums:
                raise ValueError
            weight = _finite(weights)
            return 1 / weight if weight > 0 else 0.0  # nothing but empty batches: no update
        there = size + missing
        return None if not missing else size / there if there > 0 else 0.0

    def nobody_had_a_loss(self, size: int) -> bool:
        """Whether no process had any in the window; this waits for the device."""
        received = self.received
        if received is None:
            return True
        missing, summed, *_ = received.tolist()
        return not summed and size + missing < 1e-3

    def loss(self) -> Tensor | None:
        """The loss of all, before :meth:`factor`."""
        return None if self.received is None else self.received[_LOSS]


def _finite(weights: list[float]) -> float:
    for weight, scale in zip(weights, _SCALES):
        if weight - weight == 0:  # neither infinite nor NaN
            return weight * scale
    return float("nan")


def _factor_on_device(received: Tensor, size: int) -> Tensor:
    numbers = received.float() if received.dtype.itemsize < 4 else received
    weights = numbers[_WEIGHT] * torch.tensor(_SCALES, dtype=numbers.dtype).to(numbers.device, non_blocking=True)
    weight = torch.where(weights[0].isfinite(), weights[0], torch.where(weights[1].isfinite(), weights[1], weights[2]))
    there = size + numbers[_MISSING]
    nothing = torch.zeros_like(weight)
    mean_of_sums = torch.where(weight > 0, 1 / weight, nothing)
    return torch.where(numbers[_SUMMED] > 0, mean_of_sums, torch.where(there > 0, size / there, nothing))


class Steps(nn.Module):
    """What a strategy wraps: calling it is one training step of the module.

    Attributes:
        call: the step to make, and its arguments; beside the call, so that the wrapper does not touch the batch.
        joins: the step gave no loss; what was returned is to go backward from where others do.
        late: what rides on its gradients.
        finds_unused: the wrapper finds the parameters that are not used, which need no word that nothing comes.
    """

    call: Any = None
    joins: bool = False
    finds_unused: bool = False
    late: Late

    def __init__(self, module: nn.Module, device: torch.device) -> None:
        super().__init__()
        self.module = module
        trained = [parameter for parameter in module.parameters() if parameter.requires_grad]
        widest = max((one.dtype for one in trained), key=lambda dtype: dtype.itemsize)  # no bucket of its own
        self.carry = nn.Parameter(torch.zeros(COUNT, dtype=widest, device=device))
        self._trained = trained
        sparse = _sparse_ones(module)
        self._nothings = [_empty(parameter) if parameter in sparse else _zeros(parameter) for parameter in trained]
        ignored = getattr(module, "_ddp_params_and_buffers_to_ignore", ())
        self._ddp_params_and_buffers_to_ignore = [f"module.{name}" for name in ignored]

    def __getattr__(self, name: str) -> Any:
        try:
            return super().__getattr__(name)
        except AttributeError:
            return getattr(super().__getattr__("module"), name)

    def forward(self) -> Any:
        step, arguments = self.call
        output = step(*arguments)
        if isinstance(output, Tensor):
            return self._riding(output)
        if output is None:
            self.__dict__["joins"] = True
            trained, nothings = ([], []) if self.finds_unused else (self._trained, self._nothings)
            return {JOINS: _Nothing.apply(self.late, nothings, self.carry, *trained)}
        if isinstance(output, Mapping):
            name = "loss_sum" if "loss_sum" in output else "loss"
            if output.get(name) is not None:
                return {**output, name: self._riding(output[name])}
        return output

    def _riding(self, loss: Any) -> Any:
        if isinstance(loss, Tensor) and loss.requires_grad:
            return _Riding.apply(loss, self.carry, self.late)
        return loss  # an error soon


class _Riding(torch.autograd.Function):
    """The loss, unchanged; on the way back the numbers get on."""

    @staticmethod
    def forward(ctx: Any, loss: Tensor, carry: Tensor, late: Late) -> Tensor:
        ctx.late = late
        return loss.clone()

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Any:  # type: ignore[override]
        return gradient, ctx.late.values, None


class _Nothing(torch.autograd.Function):
    """A loss with a gradient of nothing for each parameter."""

    @staticmethod
    def forward(ctx: Any, late: Late, nothings: list[Tensor], carry: Tensor, *parameters: Tensor) -> Tensor:
        ctx.late, ctx.nothings = late, nothings
        return carry.new_zeros(())

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Any:  # type: ignore[override]
        return (None, None, ctx.late.values, *ctx.nothings)


def _sparse_ones(module: nn.Module) -> set[Tensor]:
    """The parameters whose gradients are sparse; of these one must come."""
    kinds = (nn.Embedding, nn.EmbeddingBag)
    return {layer.weight for layer in module.modules() if isinstance(layer, kinds) and layer.sparse}


def _zeros(parameter: Tensor) -> Tensor:
    return parameter.detach().new_zeros(()).expand(parameter.shape)  # of one number


def _empty(parameter: Tensor) -> Tensor:
    values = parameter.detach().new_zeros((0, *parameter.shape[1:]))
    return torch.sparse_coo_tensor(torch.zeros((1, 0), dtype=torch.int64), values, parameter.shape)
