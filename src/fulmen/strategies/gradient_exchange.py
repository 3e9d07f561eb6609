"""Gradients that are averaged over processes at the end of each backward pass, however many there are in a step."""

from __future__ import annotations

from collections.abc import Callable, Generator
from contextlib import contextmanager
from functools import partial
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.autograd import Variable

#: a first collective has the same size whatever was touched; it takes along at most so many numbers of gradients
_FIRST = 2**18
_TURN = 8  #: batches, and passes in a batch, are told apart modulo this


class GradientExchange:
    """Averages the gradients of a module over all processes, for those who go backward themselves.

    Each backward pass ends with it, unless it is held back: the gradients that were added to are averaged as they
    stand. What all had alike before stays as it is, since the mean of equal numbers is that number; so that several
    passes may follow each other, with or without an exchange. The processes must make the same passes in the same
    order. They need not touch the same parameters: where one has not touched what another has, it counts as zero.

    Args:
        module: whose parameters they are.
        position: a number that tells where the run stands, the same on all processes: which batch.
        bucket_bytes: how much is sent at once.
    """

    def __init__(self, module: nn.Module, position: Callable[[], int], bucket_bytes: int) -> None:
        named = [(name, one) for name, one in module.named_parameters() if one.is_floating_point()]
        self.names = [name for name, _ in named]
        self.parameters: list[nn.Parameter] = [parameter for _, parameter in named]
        self.is_held_back = False
        self._position, self._bucket_bytes = position, bucket_bytes
        self._touched: set[int] = set()
        self._passes = (-1, 0)  # of which batch, and how many
        wide = [parameter.dtype for parameter in self.parameters if parameter.dtype.itemsize >= 4]
        self._dtype = max(wide, key=lambda dtype: dtype.itemsize, default=torch.float32)  # of the first collective
        numbers = sum(parameter.numel() for parameter in self.parameters if parameter.dtype == self._dtype)
        self._room = min(numbers, _FIRST)
        self._hooks = [self._hook(index, parameter) for index, parameter in enumerate(self.parameters)]

    def _hook(self, index: int, parameter: nn.Parameter) -> Any:
        wanted = parameter.requires_grad
        parameter.requires_grad_(True)  # also one that is thawed later
        hook = parameter.register_post_accumulate_grad_hook(partial(self._note, index))
        parameter.requires_grad_(wanted)
        return hook

    def remove(self) -> None:
        """Let go of the parameters."""
        for hook in self._hooks:
            hook.remove()
        self._hooks = []

    @contextmanager
    def held_back(self) -> Generator[None, None, None]:
        """Exchange nothing for the length of a ``with``."""
        before, self.is_held_back = self.is_held_back, True
        try:
            yield
        finally:
            self.is_held_back = before

    @contextmanager
    def weighing(self, share: float) -> Generator[None, None, None]:
        """Multiply all that is added to gradients by ``share`` for the length of a ``with``."""
        if share == 1:
            yield
            return
        asleep = [parameter for parameter in self.parameters if not parameter.requires_grad]
        for parameter in asleep:
            parameter.requires_grad_(True)
        weighed = partial(torch.mul, other=share) if share else torch.zeros_like  # also where there is NaN
        hooks = [parameter.register_hook(weighed) for parameter in self.parameters]
        for parameter in asleep:
            parameter.requires_grad_(False)
        try:
            yield
        finally:
            for hook in hooks:
                hook.remove()

    def _note(self, index: int, parameter: Tensor) -> None:
        if self.is_held_back:
            return
        if not self._touched:
            Variable._execution_engine.queue_callback(self._exchange)  # type: ignore[attr-defined]
        self._touched.add(index)

    def _exchange(self) -> None:
        touched, self._touched = sorted(self._touched), set()
        with torch.no_grad():
            self._average(touched)

    def _average(self, touched: list[int]) -> None:
        world = dist.get_world_size()
        dense = [index for index in touched if not _gradient(self.parameters[index]).is_sparse]
        first = [index for index in dense if self.parameters[index].grad.dtype == self._dtype]  # type: ignore[union-attr]
        flat = self._flat(first)
        opening = self._opening(touched, flat)
        dist.all_reduce(opening)
        everybodys = self._touched_by_all(opening, world)
        if everybodys != touched:  # some have touched what others have not: once more, with what all have together
            for index in everybodys:
                parameter = self.parameters[index]
                if parameter.grad is None:
                    parameter.grad = torch.zeros_like(parameter)
            self._send(everybodys, world)
            return
        if flat is not None:
            taken = min(self._room, flat.numel())
            start = len(self.parameters) + 2
            flat[:taken] = opening[start : start + taken]
            _all_reduce_in_parts(flat[taken:], self._bucket_bytes)
            self._give_back(first, flat.div_(world))
        self._send([index for index in touched if index not in set(first)], world)

    def _opening(self, touched: list[int], flat: Tensor | None) -> Tensor:
        """What is sent first: who has touched what, where each process stands, and a first part of the gradients."""
        count = len(self.parameters)
        device = self.parameters[0].device
        opening = torch.zeros(count + 2 + self._room, dtype=self._dtype, device=device)
        opening[torch.tensor(touched, device=device)] = 1
        batch = self._position()
        self._passes = (batch, self._passes[1] + 1 if self._passes[0] == batch else 0)
        place = batch % _TURN * _TURN + self._passes[1] % _TURN
        opening[count], opening[count + 1] = float(place), float(place * place)
        if flat is not None:
            taken = min(self._room, flat.numel())
            opening[count + 2 : count + 2 + taken] = flat[:taken]
        return opening

    def _touched_by_all(self, opening: Tensor, world: int) -> list[int]:
        count = len(self.parameters)
        *touched, places, squares = opening[: count + 2].tolist()
        if round(world * squares - places * places):  # not all at one place
            self._explain()
        return [index for index, times in enumerate(touched) if times]

    def _explain(self) -> None:
        """Say who is where; all processes come here."""
        everybody: list[Any] = [None] * dist.get_world_size()
        dist.all_gather_object(everybody, self._passes)
        where = "; ".join(
            f"rank {rank}: backward pass {number + 1} of batch {batch}"
            for rank, (batch, number) in enumerate(everybody)
        )
        raise RuntimeError(
            f"the processes did not make the same backward passes, so their gradients cannot be averaged ({where}). In "
            "manual optimization each must go backward equally often in each step, also where it has nothing to learn "
            "from: multiply such a loss by 0 instead of leaving the step out."
        )

    def _send(self, indices: list[int], world: int) -> None:
        by_dtype: dict[torch.dtype, list[int]] = {}
        for index in indices:
            gradient = _gradient(self.parameters[index])
            if gradient.is_sparse:
                dist.all_reduce(gradient)
                gradient.div_(world)
            else:
                by_dtype.setdefault(gradient.dtype, []).append(index)
        for same in by_dtype.values():
            flat = self._flat(same)
            assert flat is not None
            _all_reduce_in_parts(flat, self._bucket_bytes)
            self._give_back(same, flat.div_(world))

    def _flat(self, indices: list[int]) -> Tensor | None:
        if not indices:
            return None
        return torch.cat([_gradient(self.parameters[index]).reshape(-1) for index in indices])

    def _give_back(self, indices: list[int], flat: Tensor) -> None:
        gradients = [_gradient(self.parameters[index]) for index in indices]
        parts = flat.split([gradient.numel() for gradient in gradients])
        for gradient, part in zip(gradients, parts):
            gradient.copy_(part.view_as(gradient))


def _gradient(parameter: Tensor) -> Tensor:
    assert parameter.grad is not None
    return parameter.grad


def _all_reduce_in_parts(flat: Tensor, most_bytes: int) -> None:
    if not flat.numel():
        return
    works = [dist.all_reduce(part, async_op=True) for part in flat.split(max(1, most_bytes // flat.element_size()))]
    for work in works:
        if work is not None:
            work.wait()
