from __future__ import annotations

from collections import OrderedDict, UserDict, defaultdict, namedtuple
from dataclasses import dataclass
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from fulmen.utilities.apply_func import (
    apply_to_collection,
    convert_tensors_to_scalars,
    convert_to_tensors,
    move_data_to_device,
)

Pair = namedtuple("Pair", ["x", "y"])


@dataclass(frozen=True)
class Sample:
    x: Any
    y: Any = "text"


nested = st.recursive(
    st.one_of(st.integers(), st.text(), st.none(), st.booleans(), st.binary()),
    lambda inner: st.one_of(
        st.lists(inner),
        st.lists(inner).map(tuple),
        st.dictionaries(st.text(), inner),
        st.builds(Pair, inner, inner),
        st.builds(Sample, inner),
        st.dictionaries(st.text(), inner).map(OrderedDict),
    ),
    max_leaves=8,
)


@settings(max_examples=30)
@given(nested)
def test_applying_the_identity_changes_nothing_and_doing_and_undoing_gives_the_same(data):
    assert apply_to_collection(data, int, lambda value: value) == data
    there = apply_to_collection(data, str, lambda text: text.encode() + b"!")
    assert apply_to_collection(there, bytes, lambda text: text) == there
    wrapped = apply_to_collection(data, str, lambda text: text + "!")
    assert apply_to_collection(wrapped, str, lambda text: text[:-1]) == data


@pytest.mark.parametrize(
    ("data", "result"),
    [
        (1, 2),
        ("1", "1"),
        ([1, "a", (2,)], [2, "a", (3,)]),
        ({"a": 1, "b": [2]}, {"a": 2, "b": [3]}),
        (Pair(1, "x"), Pair(2, "x")),
        (Sample(1, [2]), Sample(2, [3])),
        (OrderedDict(b=1, a=2), OrderedDict(b=2, a=3)),
        (UserDict(a=1), UserDict(a=2)),
        (torch.Size([1, 2]), torch.Size([2, 3])),
        (range(3), range(3)),
        (b"ab", b"ab"),
    ],
)
def test_function_reaches_every_element_and_types_stay(data, result):
    changed = apply_to_collection(data, int, lambda value: value + 1)
    assert changed == result
    assert type(changed) is type(result)


def test_defaultdict_keeps_its_factory_and_the_original_its_values():
    data = defaultdict(list, a=1)
    changed = apply_to_collection(data, int, lambda value: value + 1)
    assert changed["a"] == 2
    assert changed["new"] == []
    assert dict(data) == {"a": 1}


class Movable:
    def __init__(self) -> None:
        self.device: Any = None

    def to(self, device: torch.device, **kwargs: Any) -> None:
        self.device = device  # moves in place and returns nothing


def test_everything_with_a_method_to_is_moved():
    movable = Movable()
    batch = {"x": torch.zeros(2), "y": [movable, "text"], "module": torch.nn.Linear(1, 1)}
    moved = move_data_to_device(batch, "meta")
    assert moved["x"].device.type == "meta"
    assert moved["y"] == [movable, "text"]
    assert movable.device == torch.device("meta")
    assert moved["module"].weight.device.type == "meta"
    assert batch["x"].device.type == "cpu"


def test_tensors_become_numbers_and_numbers_tensors():
    scalars = convert_tensors_to_scalars({"loss": torch.tensor(1.5), "n": [torch.tensor([2])], "name": "x"})
    assert scalars == {"loss": 1.5, "n": [2], "name": "x"}
    tensors = convert_to_tensors({"a": 1, "b": torch.ones(1).numpy(), "c": True, "name": "x"}, "cpu")
    assert torch.equal(tensors["a"], torch.tensor(1))
    assert torch.equal(tensors["b"], torch.ones(1))
    assert tensors["c"].dtype == torch.bool
    assert tensors["name"] == "x"


def test_tensor_with_several_numbers_is_no_scalar():
    with pytest.raises(ValueError, match=r"shape \(2,\)"):
        convert_tensors_to_scalars([torch.zeros(2)])
