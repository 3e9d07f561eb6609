"""A batch in parts."""

from __future__ import annotations

import dataclasses
from collections import OrderedDict, namedtuple
from typing import Any

import numpy
import pytest
import torch
from torch.nn.utils.rnn import pack_padded_sequence

from fulmen.trainer.splitting import split
from fulmen.utilities.exceptions import MisconfigurationException

Pair = namedtuple("Pair", ["x", "y"])


@dataclasses.dataclass(frozen=True)
class Sample:
    x: Any
    name: str = "one"


X = torch.arange(10.0).view(5, 2)


def plain(value: Any) -> Any:
    """A nest without tensors, for comparisons."""
    if isinstance(value, (torch.Tensor, numpy.ndarray)):
        return value.tolist()
    if isinstance(value, dict):
        return type(value)((key, plain(one)) for key, one in value.items())
    if isinstance(value, Pair):
        return Pair(*map(plain, value))
    if isinstance(value, (list, tuple)):
        return type(value)(map(plain, value))
    return Sample(plain(value.x), value.name) if isinstance(value, Sample) else value


@pytest.mark.parametrize(
    ("batch", "first"),
    [
        (X, X[:2]),
        ([X, X], [X[:2], X[:2]]),
        ((X, 3, None, "five.", torch.tensor(1.0)), (X[:2], 3, None, "five.", torch.tensor(1.0))),
        ({"x": X, "more": {"ids": ["a", "b", "c", "d", "e"]}}, {"x": X[:2], "more": {"ids": ["a", "b"]}}),
        (OrderedDict(x=X), OrderedDict(x=X[:2])),
        (Pair(X, [X]), Pair(X[:2], [X[:2]])),
        (Sample({"x": X}), Sample({"x": X[:2]})),
        ([numpy.ones((5, 1)), X], [numpy.ones((2, 1)), X[:2]]),
        ({"x": X, "boxes": [X[:n] for n in (1, 2, 3, 4, 1)]}, {"x": X[:2], "boxes": [X[:1], X[:2]]}),
        ({"x": X, "classes": ["cat", "dog"]}, {"x": X[:2], "classes": ["cat", "dog"]}),
        (["a", "b", "c", "d", "e"], ["a", "b"]),
        ({"a": [1, 2, 3, 4, 5], "b": ("v", "w", "x", "y", "z")}, {"a": [1, 2], "b": ("v", "w")}),
    ],
)
def test_part_has_the_first_samples_of_everything(batch: Any, first: Any) -> None:
    parts = split(batch, 2)
    assert [samples for _, samples in parts] == [2, 2, 1]
    assert plain(parts[0][0]) == plain(first)
    assert type(parts[0][0]) is type(batch)


def test_batch_that_is_small_enough_stays_itself() -> None:
    batch = [X, X]
    assert split(batch, 5)[0][0] is batch


def test_part_of_a_tensor_takes_no_memory() -> None:
    assert split(X, 2)[1][0].untyped_storage().data_ptr() == X.untyped_storage().data_ptr()


@pytest.mark.parametrize("make", [lambda rows: rows, lambda rows: tuple(zip(*rows))])
def test_samples_in_a_list_are_told_from_inputs_by_their_number(make: Any) -> None:
    rows = [(torch.ones(3, 4, 4), {"boxes": torch.ones(n, 4)}) for n in (3, 3, 3, 3)]
    parts = split(make(rows), 3, samples=4)
    assert [samples for _, samples in parts] == [3, 1]
    assert plain(parts[1][0]) == plain(make(rows[3:]))


@pytest.mark.parametrize(
    ("batch", "message"),
    [
        ([X, torch.ones(3)], r"`batch\[0\]` has 5 entries and `batch\[1\]` 3"),
        ({"x": X, "more": [{"y": torch.ones(3)}]}, r"`batch\['more'\]\[0\]\['y'\]` cannot be split.* shape \(3,\)"),
        ({"a": torch.tensor(1.0)}, "nothing in it has one entry for each sample"),
        (3, "an int, cannot be split"),
        ([X, {1, 2}], r"`batch\[1\]` cannot be split into micro-batches: it is a set"),
        ([X, pack_padded_sequence(X.view(5, 2, 1), [2, 1], enforce_sorted=False)], "a PackedSequence, of which"),
        ([X, X.to_sparse()], "no slice can be taken"),
    ],
)
def test_what_cannot_be_split_is_named(batch: Any, message: str) -> None:
    with pytest.raises(MisconfigurationException, match=message) as raised:
        split(batch, 2)
    assert "split_batch(self, batch, size)" in str(raised.value)
