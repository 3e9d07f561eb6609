"""Whether each call, each size and each depth in a scanned pickle is one that a checkpoint needs."""

from __future__ import annotations

import functools
import math
from collections import OrderedDict
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from itertools import chain
from typing import Any

import torch
from torch.serialization import get_safe_globals

from fulmen.utilities.pickle_scan import Call, Name, Pairs, Refused, Storage, is_count, storage_of_name

#: containers within containers: what walks through a checkpoint later does so by recursion
MAX_DEPTH = 200
#: values, where those that several containers share count once for each
MAX_VALUES = 20_000_000
#: elements of a tensor that shows the same memory again and again, as ``expand`` makes them
MAX_SHOWN = 2**28

_ORDERED_DICT = "collections.OrderedDict"


@dataclass(slots=True)
class Contents:
    """What was found in a pickle that passed.

    Attributes:
        storages: the memory of each tensor, by its key in the file.
        has_sparse: whether there are sparse tensors, whose indices only torch can look at.
    """

    storages: dict[str, Storage] = field(default_factory=dict)
    has_sparse: bool = False


@dataclass(frozen=True, slots=True)
class _Rule:
    """What one function may be called with: ``test(arguments, contents)`` raises :class:`Refused` or says no."""

    test: Callable[[tuple[Any, ...], Contents], bool]
    is_tensor: bool = False


def foreign_names(names: Iterable[str]) -> list[str]:
    """Those of ``names`` that are neither torch's own for checkpoints nor allowed by the user."""
    allowed = _allowed_by_user()
    return sorted(name for name in names if name not in allowed and not _is_known(Name(name)))


def check(value: Any) -> Contents:
    """Go through a scanned pickle that has no foreign names.

    Raises:
        Refused: it has what no checkpoint needs.
    """
    contents, allowed = Contents(), _allowed_by_user()
    # depth and size of each container; None while what is in it is looked at
    measured: dict[int, tuple[int, int] | None] = {}
    todo = [(value, False)]
    while todo:
        here, is_done = todo.pop()
        if type(here) not in _CONTAINERS:
            _check_leaf(here, contents, allowed)
        elif is_done:
            measured[id(here)] = _measure(here, measured)
        elif id(here) not in measured:
            if type(here) is Call and here.function not in allowed:
                _check_call(here, contents)
            measured[id(here)] = None
            todo.append((here, True))
            todo.extend((child, False) for child in _children(here))
        elif measured[id(here)] is None:
            raise Refused("has a container that contains itself")
    return contents


_CONTAINERS = (list, tuple, Pairs, Call)


def _children(value: Any) -> Iterable[Any]:
    if type(value) is Call:  # of one more function in the arguments, only what that one gets
        return (*value.arguments[2 if value.function == _FROM_TYPE else 0 :], value.state)
    return chain.from_iterable(value) if type(value) is Pairs else value


def _measure(here: Any, measured: dict[int, tuple[int, int] | None]) -> tuple[int, int]:
    depth, size = 0, 1
    for child in _children(here):
        inner = measured.get(id(child)) if type(child) in _CONTAINERS else None
        depth, size = (depth, size + 1) if inner is None else (max(depth, inner[0]), size + inner[1])
    if depth >= MAX_DEPTH:
        raise Refused(f"has containers within containers, more than {MAX_DEPTH} deep")
    if size > MAX_VALUES:
        raise Refused(f"unfolds to more than {MAX_VALUES:,} values")
    return depth + 1, size


def _check_leaf(value: Any, contents: Contents, allowed: set[str]) -> None:
    if type(value) is Storage:
        before = contents.storages.setdefault(value.key, value)
        if (before.kind, before.count) != (value.kind, value.count):
            raise Refused(f"describes the memory {value.key!r} of a tensor in two ways")
    elif type(value) is Name and value not in allowed and value not in _values_by_name():
        raise Refused(f"has {value} as a value")


def _check_call(call: Call, contents: Contents) -> None:
    rule, arguments = _RULES.get(call.function), call.arguments
    if rule is None or not rule.test(arguments, contents):
        raise Refused(f"calls {call.function} with arguments that `torch.save` does not write")
    if call.state is not None:
        if call.function != _ORDERED_DICT:
            raise Refused(f"gives a state to what {call.function} makes")
        _check_attributes(call.state, OrderedDict)


def _check_attributes(state: Any, cls: type) -> None:
    """Attributes that an object gets may not stand in the way of those that its class has."""
    parts = state if type(state) is tuple else (state,)
    names = [name for part in parts if type(part) is Pairs for name, _ in part]
    if any(type(part) not in (Pairs, type(None)) for part in parts) or not all(type(name) is str for name in names):
        raise Refused(f"gives {cls.__name__} something else than attributes")
    for name in names:
        if hasattr(cls, name) or (name.startswith("__") and name.endswith("__")):
            raise Refused(f"puts another {name!r} in place of that of {cls.__name__}")


# -- what is known ----------------------------------------------------------------------------------------------------


@functools.lru_cache(maxsize=1)
def _values_by_name() -> dict[str, Any]:
    """What a pickle may name as a value: torch's types of numbers, and its ways to quantize."""
    kinds = (torch.dtype, torch.qscheme)
    return {str(value): value for value in list(vars(torch).values()) if isinstance(value, kinds)}


def _is_known(name: Name) -> bool:
    return name in _RULES or name in _values_by_name() or name in _TENSOR_CLASSES or storage_of_name(name) is not None


def _allowed_by_user() -> set[str]:
    """The names that the user gave to ``torch.serialization.add_safe_globals``, or to ``safe_globals``."""
    return {one[1] if isinstance(one, tuple) else f"{one.__module__}.{one.__qualname__}" for one in get_safe_globals()}


def _is_tensor(value: Any) -> bool:
    if type(value) is not Call:
        return False
    rule = _RULES.get(value.function)
    return rule is None or rule.is_tensor  # of the user's functions nothing is known


def _are_counts(values: Any) -> bool:
    return type(values) is tuple and all(map(is_count, values))


def _no_hooks(hooks: Any) -> bool:
    return hooks is None or (
        type(hooks) is Call and hooks.function == _ORDERED_DICT and not any(hooks.arguments) and hooks.state is None
    )


def _lies_within(storage: Any, offset: Any, size: Any, stride: Any, element_size: int | None = None) -> bool:
    """Whether each element of a tensor is in its storage. ``element_size``: if it is not that of the storage."""
    if not (type(storage) is Storage and is_count(offset) and _are_counts(size) and _are_counts(stride)):
        return False
    if len(size) != len(stride):
        return False
    there = storage.size * storage.element_size // (element_size or storage.element_size)
    elements = math.prod(size)
    if elements == 0:
        return offset <= there and max(size) < 2**48
    last = offset + sum((length - 1) * step for length, step in zip(size, stride))
    if last >= there:
        raise Refused("has a tensor that reaches beyond its memory")
    if elements > max(there, MAX_SHOWN):
        raise Refused(f"has a tensor of {elements:,} elements in a memory of {there:,}")
    return True


# -- what each function may be called with ----------------------------------------------------------------------------


def _tensor(arguments: tuple[Any, ...], contents: Contents) -> bool:
    return len(arguments) == 4 and _lies_within(*arguments)


def _tensor_v2(arguments: tuple[Any, ...], contents: Contents) -> bool:
    return (
        len(arguments) in (6, 7)
        and _lies_within(*arguments[:4])
        and type(arguments[4]) is bool
        and _no_hooks(arguments[5])
        and _is_metadata(arguments[6:])
    )


def _tensor_v3(arguments: tuple[Any, ...], contents: Contents) -> bool:
    if len(arguments) not in (7, 8) or type(arguments[6]) is not Name:
        return False
    dtype = _values_by_name().get(arguments[6])
    return (
        isinstance(dtype, torch.dtype)
        and _lies_within(*arguments[:4], element_size=dtype.itemsize)
        and type(arguments[4]) is bool
        and _no_hooks(arguments[5])
        and _is_metadata(arguments[7:])
    )


def _is_metadata(rest: tuple[Any, ...]) -> bool:
    """Whether what may follow are a tensor's bits: conjugated, negated."""
    return not rest or rest[0] is None or (type(rest[0]) is Pairs and all(type(bit) is bool for _, bit in rest[0]))


def _quantized(arguments: tuple[Any, ...], contents: Contents) -> bool:
    return (
        len(arguments) == 7
        and _lies_within(*arguments[:4])
        and type(arguments[4]) is tuple
        and type(arguments[5]) is bool
        and _no_hooks(arguments[6])
    )


def _sparse(arguments: tuple[Any, ...], contents: Contents) -> bool:
    contents.has_sparse = True
    return len(arguments) == 2 and type(arguments[1]) is tuple


def _meta(arguments: tuple[Any, ...], contents: Contents) -> bool:
    return len(arguments) == 4 and _are_counts(arguments[1]) and _are_counts(arguments[2])


def _parameter(arguments: tuple[Any, ...], contents: Contents) -> bool:
    return len(arguments) == 3 and _is_tensor(arguments[0]) and type(arguments[1]) is bool and _no_hooks(arguments[2])


def _parameter_with_state(arguments: tuple[Any, ...], contents: Contents) -> bool:
    if len(arguments) != 4 or not _parameter(arguments[:3], contents):
        return False
    _check_attributes(arguments[3], torch.nn.Parameter)
    return True


def _from_type(arguments: tuple[Any, ...], contents: Contents) -> bool:
    """A tensor with attributes, or of a class of the user's."""
    if len(arguments) != 4 or type(arguments[0]) is not Name or type(arguments[1]) is not Name:
        return False
    function, cls, inner, state = arguments
    rule = _RULES.get(function)
    if type(inner) is not tuple or (rule is None and function not in _allowed_by_user()):
        return False
    if cls in _TENSOR_CLASSES:
        _check_attributes(state, torch.nn.Parameter)
    return rule is None or (rule.is_tensor and function != _FROM_TYPE and rule.test(inner, contents))


def _on_device(arguments: tuple[Any, ...], contents: Contents) -> bool:
    return len(arguments) == 4 and _is_tensor(arguments[0])


def _of_users_class(arguments: tuple[Any, ...], contents: Contents) -> bool:
    return bool(arguments) and type(arguments[0]) is Name and arguments[0] in _allowed_by_user()


def _size(arguments: tuple[Any, ...], contents: Contents) -> bool:
    return len(arguments) == 1 and type(arguments[0]) is tuple and all(map(is_count, arguments[0]))


def _device(arguments: tuple[Any, ...], contents: Contents) -> bool:
    return (
        1 <= len(arguments) <= 2
        and type(arguments[0]) is str
        and len(arguments[0]) < 60
        and all(map(is_count, arguments[1:]))
    )


def _encode(arguments: tuple[Any, ...], contents: Contents) -> bool:
    """Bytes, as protocol 2 writes them. Other encodings would be imported."""
    return len(arguments) == 2 and type(arguments[0]) is str and arguments[1] in ("latin1", "latin-1")


def _bytearray(arguments: tuple[Any, ...], contents: Contents) -> bool:
    of_bytes = len(arguments) == 1 and type(arguments[0]) is Call and arguments[0].function == _ENCODE
    return not arguments or of_bytes or _encode(arguments, contents)


def _set(arguments: tuple[Any, ...], contents: Contents) -> bool:
    return len(arguments) == 1 and type(arguments[0]) is list


def _complex(arguments: tuple[Any, ...], contents: Contents) -> bool:
    return len(arguments) == 2 and all(type(part) is float for part in arguments)


def _dict(arguments: tuple[Any, ...], contents: Contents) -> bool:
    return not arguments or (len(arguments) == 1 and type(arguments[0]) in (Pairs, list))


def _layout(arguments: tuple[Any, ...], contents: Contents) -> bool:
    return len(arguments) == 1 and type(arguments[0]) is str


_FROM_TYPE = "torch._tensor._rebuild_from_type_v2"
_ENCODE = "_codecs.encode"
_TENSOR_CLASSES = ("torch.Tensor", "torch.nn.parameter.Parameter")
_RULES: dict[str, _Rule] = {
    "torch._utils._rebuild_tensor": _Rule(_tensor, is_tensor=True),
    "torch._utils._rebuild_tensor_v2": _Rule(_tensor_v2, is_tensor=True),
    "torch._utils._rebuild_tensor_v3": _Rule(_tensor_v3, is_tensor=True),
    "torch._utils._rebuild_qtensor": _Rule(_quantized, is_tensor=True),
    "torch._utils._rebuild_sparse_tensor": _Rule(_sparse, is_tensor=True),
    "torch._utils._rebuild_meta_tensor_no_storage": _Rule(_meta, is_tensor=True),
    "torch._utils._rebuild_parameter": _Rule(_parameter, is_tensor=True),
    "torch._utils._rebuild_parameter_with_state": _Rule(_parameter_with_state, is_tensor=True),
    "torch._utils._rebuild_device_tensor_from_cpu_tensor": _Rule(_on_device, is_tensor=True),
    "torch._utils._rebuild_device_tensor_from_numpy": _Rule(_on_device, is_tensor=True),
    "torch._utils._rebuild_wrapper_subclass": _Rule(_of_users_class, is_tensor=True),
    _FROM_TYPE: _Rule(_from_type, is_tensor=True),
    "torch.nn.parameter.Parameter": _Rule(lambda arguments, contents: False),
    "torch.serialization._get_layout": _Rule(_layout),
    "torch.Size": _Rule(_size),
    "torch.device": _Rule(_device),
    "collections.OrderedDict": _Rule(_dict),
    "collections.Counter": _Rule(_dict),
    "builtins.set": _Rule(_set),
    "builtins.bytearray": _Rule(_bytearray),
    "builtins.complex": _Rule(_complex),
    _ENCODE: _Rule(_encode),
}
