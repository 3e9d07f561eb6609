"""Apply a function to every element of a nested collection; move data between devices."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from copy import copy
from typing import Any

import torch
from torch import Tensor


def apply_to_collection(
    data: Any, dtype: type | tuple[type, ...], function: Callable[..., Any], *args: Any, **kwargs: Any
) -> Any:
    """Return ``data`` with ``function(element, *args, **kwargs)`` in place of every element of type ``dtype``.

    Goes through mappings, sequences, named tuples and dataclass instances, at any depth, and keeps their types; strings
    and everything else stay as they are. ``data`` itself is not changed.
    """
    if isinstance(data, dtype):
        return function(data, *args, **kwargs)
    if isinstance(data, Mapping):
        items = {key: apply_to_collection(value, dtype, function, *args, **kwargs) for key, value in data.items()}
        if type(data) is dict:
            return items
        clone = copy(data)
        for key, value in items.items():  # which keeps the factory of a defaultdict; not all dicts take `update`
            clone[key] = value  # type: ignore[index]
        return clone
    if isinstance(data, tuple) and hasattr(data, "_fields"):
        return type(data)(*(apply_to_collection(value, dtype, function, *args, **kwargs) for value in data))
    if isinstance(data, Sequence) and not isinstance(data, (str, bytes, bytearray, range)):
        return type(data)([apply_to_collection(value, dtype, function, *args, **kwargs) for value in data])  # type: ignore[call-arg]
    if dataclasses.is_dataclass(data) and not isinstance(data, type):
        clone = copy(data)
        for field in dataclasses.fields(data):
            value = apply_to_collection(getattr(data, field.name), dtype, function, *args, **kwargs)
            object.__setattr__(clone, field.name, value)  # also for frozen ones
        return clone
    return data


def move_data_to_device(batch: Any, device: torch.device | str | int) -> Any:
    """Move every element of ``batch`` that has a method ``to`` to ``device``; tensors without waiting for the copy.

    An element whose ``to`` returns None has moved itself in place and is kept.
    """
    device = torch.device(device)
    if isinstance(batch, Tensor):  # the two common shapes need no recursion
        return _move(batch, device)
    if type(batch) in (list, tuple) and all(isinstance(element, Tensor) for element in batch):
        return type(batch)([_move(element, device) for element in batch])
    return apply_to_collection(batch, _Movable, _move, device)  # type: ignore[arg-type]


def convert_to_tensors(data: Any, device: torch.device | str | int) -> Any:
    """Replace numbers, booleans and numpy arrays in ``data`` by tensors, and move every tensor to ``device``."""
    import numpy

    data = apply_to_collection(data, (bool, int, float, complex), torch.tensor)
    data = apply_to_collection(data, numpy.ndarray, torch.from_numpy)
    return move_data_to_device(apply_to_collection(data, Tensor, Tensor.contiguous), device)


def convert_tensors_to_scalars(data: Any) -> Any:
    """Replace every tensor in ``data`` by the number that it holds; waits for the device.

    Raises:
        ValueError: a tensor holds more or fewer numbers than one.
    """
    return apply_to_collection(data, Tensor, _number_of)


def _number_of(value: Tensor) -> int | float | bool | complex:
    if value.numel() != 1:
        raise ValueError(f"A tensor of shape {tuple(value.shape)} is not one number. Reduce it first, e.g. by mean().")
    return value.item()


class _MovableType(type):
    def __instancecheck__(cls, instance: object) -> bool:
        return not isinstance(instance, type) and callable(getattr(instance, "to", None))


class _Movable(metaclass=_MovableType):
    """Anything with a method ``to``."""


def _move(element: Any, device: torch.device) -> Any:
    if isinstance(element, Tensor):
        if element.device == device:
            return element
        # a copy to the host that does not wait would be read before it has arrived
        return element.to(device, non_blocking=device.type not in ("cpu", "mps"))
    moved = element.to(device)
    return element if moved is None else moved
