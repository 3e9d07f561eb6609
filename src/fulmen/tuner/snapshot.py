"""The state of objects, kept in memory and put back bit for bit, on the very same objects.

A snapshot walks over everything that can be reached from the objects it is given, over attributes and containers, and
keeps what it finds: the attributes of objects, the members of containers, the numbers of tensors and arrays with their
gradients and flags, the states of random number generators. :meth:`Snapshot.restore` puts all of it back in place, so
that references between the objects stay what they are: an optimizer still holds the module's parameters.

What it passes by: functions and classes, files, threads, sockets and the workers of loaders; the trainer, its strategy,
loggers and profilers, which a search does not use. Of data sets it keeps attributes and small arrays, but not large
tensors, which reading does not change.
"""

from __future__ import annotations

import functools
import random
import sys
import types
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator
from contextlib import contextmanager
from enum import Enum
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.parameter import is_lazy
from torch.utils.data import DataLoader, Dataset, Sampler
from torch.utils.data.dataloader import _BaseDataLoaderIter as _Workers

from fulmen.utilities.generators import is_generator, set_state, state_of
from fulmen.utilities.seed import collect_rng_states, restore_rng_states

#: larger containers are kept, but their members are not looked at; larger tensors and arrays of data are not kept
_MEMBERS, _BYTES_OF_DATA = 10_000, 1 << 20
_ATOMS = (str, bytes, int, float, complex, bool, type(None), type, range, slice, Enum, torch.dtype, torch.device)
_CODE = (types.FunctionType, types.BuiltinFunctionType, types.ModuleType, types.CodeType, property)
_PLAIN = (object, types.SimpleNamespace, random.Random, list, dict, set, deque, bytearray, tuple)
#: rooms of Fulmen that a search does not touch, or replaces as a whole
_ROOMS = tuple(f"fulmen.{room}." for room in ("trainer", "strategies", "loggers", "profilers", "accelerators"))
_LIBRARIES = frozenset(
    ("numpy", "pandas", "pyarrow", "scipy", "matplotlib", "PIL", "rich", "tensorboard", "tensorboardX", "wandb")
)
_OF_TORCH = ("torch.nn", "torch.optim", "torch.utils.data", "torch.amp", "torch.cuda.amp", "torch.distributions")


class Snapshot:
    """What everything that can be reached from ``owners`` is at this moment.

    Args:
        owners: where to begin.
        shallow: objects of which only the attributes themselves are kept.
        leave_out: objects to pass by, with all that only they lead to.
    """

    def __init__(self, owners: Iterable[Any], shallow: Iterable[Any] = (), leave_out: Iterable[Any] = ()) -> None:
        self._undo: list[Callable[[], None]] = []
        self._tensors: list[_KeptTensor] = []
        self._seen: dict[int, Any] = {id(one): one for one in leave_out}
        self._random = collect_rng_states()
        for one in shallow:
            self._seen[id(one)] = one
            self._keep_attributes(one)
        waiting = deque((owner, False) for owner in owners)
        while waiting:
            value, of_data = waiting.popleft()
            if isinstance(value, (*_ATOMS, *_CODE)) or id(value) in self._seen:
                continue
            self._seen[id(value)] = value  # which also keeps its id from being given to another object
            of_data = of_data or isinstance(value, (Dataset, Sampler, DataLoader))
            waiting.extend((part, of_data) for part in self._keep(value, of_data))

    def restore(self) -> None:
        """Put everything back. May be called more than once."""
        for undo in self._undo:
            undo()
        for tensor in self._tensors:
            tensor.restore_numbers()
        for tensor in self._tensors:
            tensor.restore_gradient()
        restore_rng_states(self._random)

    # -- what is kept of each ------------------------------------------------------------------------------------------

    def _keep(self, value: Any, of_data: bool) -> Iterable[Any]:
        """Keep ``value``; returns what it leads to."""
        if isinstance(value, Tensor):
            return self._keep_tensor(value, of_data)
        if is_generator(value):
            state = state_of(value)["state"]
            self._undo.append(lambda: set_state(value, state))
            return ()
        if type(value).__module__ == "numpy":
            return self._keep_array(value, of_data)
        if isinstance(value, (tuple, frozenset)):
            return value
        if isinstance(value, types.MethodType):
            return (value.__self__,)
        if isinstance(value, functools.partial):
            return (value.func, *value.args, *value.keywords.values())
        if isinstance(value, (list, dict, set, deque, bytearray)):
            return (*self._keep_members(value), *(self._keep_attributes(value) if _may_be_entered(value) else ()))
        return self._keep_attributes(value) if _may_be_entered(value) else ()

    def _keep_members(self, value: Any) -> Iterable[Any]:
        if isinstance(value, dict):
            items = dict(value.items())
            self._undo.append(lambda: _put_items_back(value, items))
            return (*items, *items.values()) if len(items) <= _MEMBERS else ()
        if isinstance(value, bytearray):
            content = bytes(value)
            self._undo.append(lambda: bytearray.__setitem__(value, slice(None), content))
            return ()
        members = list(value)
        if isinstance(value, list):
            self._undo.append(lambda: list.__setitem__(value, slice(None), members))
        elif isinstance(value, set):
            self._undo.append(lambda: (set.clear(value), set.update(value, members))[0])
        else:
            self._undo.append(lambda: (deque.clear(value), deque.extend(value, members))[0])
        return members if len(members) <= _MEMBERS else ()

    def _keep_attributes(self, value: Any) -> list[Any]:
        """Keep the attributes of an object, its slots and its class, which lazy modules change."""
        kept, attributes = type(value), getattr(value, "__dict__", None)
        parts: list[Any] = []
        if type(attributes) is dict:
            before = dict(attributes)

            def put_back() -> None:
                if type(value) is not kept:
                    object.__setattr__(value, "__class__", kept)
                attributes.clear()
                attributes.update(before)

            self._undo.append(put_back)
            parts += before.values()
        for name in _slots(kept):
            if hasattr(value, name):
                content = getattr(value, name)
                self._undo.append(functools.partial(object.__setattr__, value, name, content))
                parts.append(content)
        return parts

    def _keep_tensor(self, tensor: Tensor, of_data: bool) -> list[Any]:
        is_large = not is_lazy(tensor) and tensor.numel() * tensor.element_size() > _BYTES_OF_DATA
        if of_data and is_large and not tensor.requires_grad:
            return []
        self._tensors.append(_KeptTensor(tensor))
        return [tensor.grad] if tensor.is_leaf and tensor.grad is not None else []

    def _keep_array(self, array: Any, of_data: bool) -> Iterable[Any]:
        if not hasattr(array, "nbytes") or not getattr(array, "shape", ()):
            return ()
        if not array.flags.writeable or (of_data and array.nbytes > _BYTES_OF_DATA):
            return ()
        content = array.copy()

        def put_back() -> None:
            array[...] = content

        self._undo.append(put_back)
        return array.flat if array.dtype.hasobject and array.size <= _MEMBERS else ()


class _KeptTensor:
    """One tensor: where its numbers are, what they are, and its flags."""

    __slots__ = ("_alias", "_grad", "_kind", "_numbers", "_requires_grad", "_tensor", "_version")

    def __init__(self, tensor: Tensor) -> None:
        self._tensor, self._kind = tensor, type(tensor)
        self._requires_grad, self._version = tensor.requires_grad, None
        self._grad = tensor.grad if tensor.is_leaf else None
        self._alias = self._numbers = None
        if is_lazy(tensor) or tensor.device.type == "meta" or tensor.is_inference():
            return
        self._alias = tensor.detach()  # the same memory, also when the module moves to another device meanwhile
        if tensor.grad_fn is not None:
            self._version = tensor._version
        # not on the accelerator, whose memory a search may be measuring
        self._numbers = self._alias.clone() if tensor.device.type == "cpu" else self._alias.cpu()

    def restore_numbers(self) -> None:
        """Put back the numbers, in the memory where they were."""
        tensor, alias, numbers, version = self._tensor, self._alias, self._numbers, self._version
        if type(tensor) is not self._kind and _is_lazy_kind(self._kind):  # a lazy parameter that has got its shape
            tensor.data = torch.empty(0, dtype=tensor.dtype, device=tensor.device)
            tensor.__class__ = self._kind
        if tensor.is_leaf:
            tensor.grad = None  # its kind may not fit the tensor as it was
        if alias is not None and numbers is not None and (version is None or tensor._version != version):
            with torch.no_grad():
                if _is_elsewhere(tensor, alias):
                    tensor.data = alias
                alias.copy_(numbers)

    def restore_gradient(self) -> None:
        """Put back what belongs to the gradient, once the numbers of all tensors are back."""
        tensor = self._tensor
        if tensor.is_leaf:
            if tensor.requires_grad != self._requires_grad:
                tensor.requires_grad_(self._requires_grad)
            tensor.grad = self._grad


def _is_elsewhere(tensor: Tensor, alias: Tensor) -> bool:
    """Whether the numbers of ``tensor`` are in another place, or of another shape, than they were."""
    if tensor.device != alias.device or tensor.dtype != alias.dtype or tensor.shape != alias.shape:
        return True
    dense = tensor.layout == alias.layout == torch.strided
    return dense and (tensor.data_ptr() != alias.data_ptr() or tensor.stride() != alias.stride())


def _is_lazy_kind(kind: type) -> bool:
    """Whether tensors of this kind have no shape yet."""
    return issubclass(kind, (nn.UninitializedParameter, nn.UninitializedBuffer))


@contextmanager
def unchanged(
    owners: Iterable[Any], shallow: Iterable[Any] = (), leave_out: Iterable[Any] = ()
) -> Generator[None, None, None]:
    """Whatever happens inside, also an exception, leaves everything as it was; arguments as for :class:`Snapshot`."""
    before = Snapshot(owners, shallow, leave_out)
    try:
        yield
    finally:
        before.restore()


def _put_items_back(value: dict[Any, Any], items: dict[Any, Any]) -> None:
    """Make the items of a dict what they were, in their order, also of one that does more when an item is set."""
    kind = next(kind for kind in type(value).__mro__ if kind.__module__ in ("collections", "builtins"))
    kind.clear(value)
    for key, item in items.items():
        kind.__setitem__(value, key, item)


def _slots(kind: type) -> Iterator[str]:
    for one in kind.__mro__:
        slots = one.__dict__.get("__slots__", ())
        for name in (slots,) if isinstance(slots, str) else slots:
            if name not in ("__dict__", "__weakref__"):
                yield f"_{one.__name__.lstrip('_')}{name}" if name.startswith("__") else name


def _may_be_entered(value: Any) -> bool:
    """Whether its attributes are the program's own state, and not something alive: a thread, a file, a connection."""
    if isinstance(value, nn.Module):
        return True
    if isinstance(value, (_Workers, BaseException)):
        return False
    for kind in type(value).__mro__:
        module = kind.__module__
        if module.startswith(_ROOMS):
            return False
        top = module.partition(".")[0]
        if top in _LIBRARIES:
            return False
        if top == "torch" and not module.startswith(_OF_TORCH) and kind is not torch.Generator:
            return False
        is_plain = kind in _PLAIN or module.startswith(("collections", "typing", "abc", "argparse"))
        if top in sys.stdlib_module_names and not is_plain:
            return False
    return True
