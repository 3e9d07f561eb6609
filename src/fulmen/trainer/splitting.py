"""A batch in parts: along the first dimension of everything in it that has one entry for each sample."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator, Mapping, Sequence
from copy import copy
from typing import Any

from torch import Tensor
from torch.nn.utils.rnn import PackedSequence

from fulmen.utilities.exceptions import MisconfigurationException
from fulmen.utilities.text import a_kind

_ADVICE = (
    "Give the module a method `split_batch(self, batch, size)` that returns pairs, each a part of the batch with at "
    "most `size` samples and the number of these."
)


def split(batch: Any, size: int, samples: int | None = None) -> list[tuple[Any, int]]:
    """Parts of ``batch``, each with its number of samples: ``size``, and what is left in the last one.

    Tensors, arrays and lists of one entry for each sample are split, also those in dicts, lists, tuples and dataclasses
    at any depth; numbers, texts and None go into every part. A batch that is small enough stays as it is.

    Args:
        samples: how many the loader has put into the batch, to tell a list of samples from a list of inputs. None: that
            is not known.

    Raises:
        MisconfigurationException: the batch, or something in it, cannot be split.
    """
    length = length_of(batch, samples)
    if length <= size:
        return [(batch, length)]
    bounds = [(start, min(start + size, length)) for start in range(0, length, size)]
    return [(_Cut(start, stop, length).of(batch, "batch"), stop - start) for start, stop in bounds]


def length_of(batch: Any, samples: int | None = None) -> int:
    """The number of samples in ``batch``.

    Args:
        samples: as of :func:`split`.

    Raises:
        MisconfigurationException: that cannot be told.
    """
    found = list(_arrays(batch, "batch", 0))
    lengths = {array.shape[0] for _, array, _ in found}
    is_listed = samples is not None and samples in _lengths_of_lists(batch)
    if len(lengths) == 1 and not (is_listed and samples not in lengths):
        return lengths.pop()
    if samples is not None and (samples in lengths or is_listed):
        return samples  # what does not fit is named where it is split
    if found:
        shallowest = min(depth for _, _, depth in found)
        (path, first, _), *rest = [one for one in found if one[2] == shallowest]
        other = next((one for one in rest if one[1].shape[0] != first.shape[0]), None)
        if other is None and shallowest < 2:
            return first.shape[0]
        other = other or next(one for one in found if one[1].shape[0] != first.shape[0])
        raise MisconfigurationException(
            f"the batch cannot be split into micro-batches: `{path}` has {first.shape[0]} entries and `{other[0]}` "
            f"{other[1].shape[0]}, so that the number of its samples is not known. {_ADVICE}"
        )
    lists = _lengths_of_lists(batch)
    if len(lists) == 1:
        return lists.pop()
    raise MisconfigurationException(
        f"the batch, {a_kind(batch)}, cannot be split into micro-batches: nothing in it has one entry for each sample. "
        + _ADVICE
    )


def _lengths_of_lists(batch: Any) -> set[int]:
    """How long the batch is as a list of samples, or the lists are that are its members."""
    members = _members(batch)
    if members is None:
        return set()
    lists = [value for _, value in members if _is_list(value)]
    if lists:
        return {len(value) for value in lists} | ({len(batch)} if _is_list(batch) else set())
    return {len(batch)} if _is_list(batch) else set()


def _is_list(value: Any) -> bool:
    return (
        isinstance(value, Sequence) and not isinstance(value, (str, bytes, bytearray)) and not hasattr(value, "_fields")
    )


def _is_array(value: Any) -> bool:
    """A tensor, or an array of numpy's or another's, with a first dimension."""
    if isinstance(value, Tensor):
        return value.ndim > 0
    shape = getattr(value, "shape", None)
    return isinstance(shape, tuple) and len(shape) > 0 and hasattr(value, "__getitem__")


def _members(value: Any) -> list[tuple[str, Any]] | None:
    """What is in a container, each with its place in it; None if it is none."""
    if isinstance(value, PackedSequence):
        return None
    if isinstance(value, Mapping):
        return [(f"[{key!r}]", member) for key, member in value.items()]
    fields = getattr(value, "_fields", None)
    if isinstance(value, tuple) and fields is not None:
        return [(f".{name}", member) for name, member in zip(fields, value)]
    if _is_list(value):
        return [(f"[{place}]", member) for place, member in enumerate(value)]
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return [(f".{field.name}", getattr(value, field.name)) for field in dataclasses.fields(value)]
    return None


def _arrays(value: Any, path: str, depth: int) -> Iterator[tuple[str, Any, int]]:
    """Every array in ``value``, with the path to it and how deep it lies."""
    if _is_array(value):
        yield path, value, depth
    elif not isinstance(value, range):
        for place, member in _members(value) or ():
            yield from _arrays(member, path + place, depth + 1)


@dataclasses.dataclass(frozen=True, slots=True)
class _Cut:
    """The samples from ``start`` to ``stop`` of ``length``."""

    start: int
    stop: int
    length: int

    def of(self, value: Any, path: str) -> Any:
        """This part of ``value``, which stands at ``path``."""
        if _is_array(value):
            return self._of_array(value, path)
        members = _members(value)
        if members is None:
            if _may_hold_samples(value):
                raise _cannot(path, f"{a_kind(value)}, of which it is not known how")
            return value
        if _is_list(value):
            return self._of_list(value, path)
        parts = [self.of(member, path + place) for place, member in members]
        if isinstance(value, Mapping):
            items = dict(zip(value, parts))
            if type(value) is dict:
                return items
            clone = copy(value)
            clone.update(items)  # type: ignore[attr-defined]  # keeps the class, the order and the default
            return clone
        if isinstance(value, tuple):
            return type(value)(*parts)
        clone = copy(value)
        for field, part in zip(dataclasses.fields(value), parts):
            object.__setattr__(clone, field.name, part)  # also for frozen ones
        return clone

    def _of_array(self, value: Any, path: str) -> Any:
        if value.shape[0] != self.length:
            raise _cannot(path, f"of shape {tuple(value.shape)}, in a batch of {self.length} samples")
        try:
            return value[self.start : self.stop]
        except (RuntimeError, NotImplementedError, TypeError, IndexError) as error:  # sparse ones, say
            raise _cannot(path, f"{a_kind(value)}, of which no slice can be taken ({error})") from error

    def _of_list(self, value: Any, path: str) -> Any:
        arrays = [array for _, array, _ in _arrays(value, path, 0)]
        fits = bool(arrays) and all(array.shape[0] == self.length for array in arrays)
        if len(value) == self.length and not fits:  # an entry for each sample
            return _like(value, list(value)[self.start : self.stop])
        if not arrays and all(_members(member) is None for member in value):
            return value  # names of something else
        return _like(value, [self.of(member, f"{path}[{place}]") for place, member in enumerate(value)])


def _like(value: Any, members: list[Any]) -> Any:
    make: Callable[[list[Any]], Any] = list if isinstance(value, range) else type(value)
    return make(members)


def _may_hold_samples(value: Any) -> bool:
    """Whether an object may be one of many samples, such as a graph; a number, a text or a setting is not."""
    if isinstance(value, (str, bytes, bytearray, Tensor)):
        return False
    if hasattr(value, "__len__") or isinstance(value, PackedSequence):
        return True
    return any(isinstance(attribute, Tensor) for attribute in getattr(value, "__dict__", {}).values())


def _cannot(path: str, why: str) -> MisconfigurationException:
    return MisconfigurationException(f"`{path}` cannot be split into micro-batches: it is {why}. {_ADVICE}")
