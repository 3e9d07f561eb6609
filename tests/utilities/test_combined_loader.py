from __future__ import annotations

import copy
import pickle
from collections import OrderedDict, namedtuple
from math import inf
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.utils.data import DataLoader, IterableDataset

from fulmen.utilities.combined_loader import CombinedLoader
from fulmen.utilities.exceptions import MisconfigurationException

MODES = ["min_size", "max_size_cycle", "max_size", "sequential"]


class Stream(IterableDataset):
    """``count`` numbers whose count is not known beforehand."""

    def __init__(self, count: int) -> None:
        self.count = count

    def __iter__(self):
        return iter(range(self.count))


def stream(count: int) -> DataLoader:
    return DataLoader(Stream(count), batch_size=None)


def expected(members: list[list[Any]], mode: str) -> list[tuple[Any, int, int]]:
    """What a CombinedLoader gives, by index arithmetic."""
    lengths = [len(member) for member in members]
    if mode == "sequential":
        return [(batch, index, which) for which, member in enumerate(members) for index, batch in enumerate(member)]
    if mode == "min_size":
        return [([member[i] for member in members], i, 0) for i in range(min(lengths))]
    if mode == "max_size":
        rows = range(max(lengths))
        return [([member[i] if i < len(member) else None for member in members], i, 0) for i in rows]
    rows = range(max(lengths)) if 0 not in lengths else []
    return [([member[i % len(member)] for member in members], i, 0) for i in rows]


numbers = st.lists(st.lists(st.integers(0, 99), max_size=6), min_size=1, max_size=4)


@given(numbers=numbers, mode=st.sampled_from(MODES), data=st.data())
def test_batches_of_random_members_are_those_of_index_arithmetic(numbers, mode, data):
    members = [
        [torch.tensor(number) for number in member] for member in numbers
    ]  # tensors: lists of numbers are leaves
    limit = st.one_of(st.just(inf), st.integers(0, 7))
    limits = data.draw(st.none() | st.lists(limit, min_size=len(members), max_size=len(members)))
    loader = CombinedLoader({index: Loader(member) for index, member in enumerate(members)}, mode)
    loader.limits = limits
    if limits is not None:
        members = [member if limit == inf else member[:limit] for member, limit in zip(members, limits)]

    wanted = expected(members, mode)
    for _ in range(2):  # it can be iterated again
        rows = [(list(batch.values()) if mode != "sequential" else batch, i, j) for batch, i, j in loader]
        assert rows == wanted
    assert len(loader) == len(wanted)


class Loader:
    """A loader that is no list, so that it is a member and not a container."""

    def __init__(self, batches: list[Any]) -> None:
        self.batches = batches

    def __iter__(self):
        return iter(self.batches)

    def __len__(self) -> int:
        return len(self.batches)


Pair = namedtuple("Pair", ["left", "right"])


@pytest.mark.parametrize(
    ("iterables", "first"),
    [
        (range(3), 0),
        ([range(3)], [0]),
        ((range(3), "abc"), (0, "a")),
        ({"a": range(3), "b": [range(5, 9), (range(2),)]}, {"a": 0, "b": [5, (0,)]}),
        (Pair(range(3), range(1, 3)), Pair(0, 1)),
        (OrderedDict(b=range(3), a=range(1, 3)), OrderedDict(b=0, a=1)),
        ([1, 2, 3], 1),  # numbers alone: one member
        ([[1, 2], ["x"]], [1, "x"]),
    ],
)
def test_batch_has_the_structure_and_type_of_the_iterables(iterables, first):
    batch, batch_idx, dataloader_idx = next(iter(CombinedLoader(iterables, "min_size")))
    assert (batch, batch_idx, dataloader_idx) == (first, 0, 0)
    assert type(batch) is type(first)


@pytest.mark.parametrize("mode", MODES)
def test_no_members_give_no_batches(mode):
    loader = CombinedLoader([], mode)
    assert list(loader) == []
    assert len(loader) == 0


def test_len_in_mode_min_size_is_that_of_the_sized_member():
    assert len(CombinedLoader([stream(5), range(2)], "min_size")) == 2


@pytest.mark.parametrize("mode", ["max_size_cycle", "max_size", "sequential"])
def test_len_is_unknown_where_an_unsized_member_decides(mode):
    with pytest.raises(TypeError, match="DataLoader has no length"):
        len(CombinedLoader([stream(5), range(2)], mode))


@pytest.mark.parametrize(
    ("mode", "count"), [("min_size", 2), ("max_size_cycle", 5), ("max_size", 5), ("sequential", 7)]
)
def test_unsized_members_are_iterated_to_their_end(mode, count):
    assert len(list(CombinedLoader([stream(5), range(2)], mode))) == count


def test_len_takes_the_limit_for_the_length_of_an_unsized_member():
    loader = CombinedLoader([stream(5), range(3)], "sequential")
    loader.limits = 4
    assert len(loader) == 7 == len(list(loader))


def test_cycling_a_member_that_cannot_start_again_names_it():
    loader = CombinedLoader([range(5), iter(range(2))], "max_size_cycle")
    with pytest.raises(MisconfigurationException, match=r"member 1 .*range_iterator"):
        list(loader)


def test_cycling_when_the_longest_cannot_start_again_works():
    loader = CombinedLoader([range(2), iter(range(3))], "max_size_cycle")
    assert [batch for batch, _, _ in loader] == [[0, 0], [1, 1], [0, 2]]


def test_a_combined_loader_as_member_gives_its_batches_alone():
    inner = CombinedLoader([range(2), range(3)], "max_size")
    outer = CombinedLoader({"inner": inner, "plain": range(3)}, "min_size")
    assert [batch for batch, _, _ in outer] == [
        {"inner": [0, 0], "plain": 0},
        {"inner": [1, 1], "plain": 1},
        {"inner": [None, 2], "plain": 2},
    ]
    assert len(outer) == 3


def test_sequential_does_not_open_a_member_before_its_turn_or_at_limit_zero():
    opened = []

    class Noting(Loader):
        def __iter__(self):
            opened.append(self.batches)
            return super().__iter__()

    loader = CombinedLoader([Noting([1]), Noting([2]), Noting([3])], "sequential")
    loader.limits = [1, 0, 1]
    batches = iter(loader)
    assert next(batches) == (1, 0, 0)
    assert opened == [[1]]
    assert next(batches) == (3, 0, 2)
    assert opened == [[1], [3]]


def test_limits_are_given_as_one_number_or_one_for_each():
    loader = CombinedLoader([range(3), range(2)], "sequential")
    assert loader.limits is None
    loader.limits = 2
    assert loader.limits == [2, 2]
    loader.limits = [1, inf]
    assert [batch for batch, _, _ in loader] == [0, 0, 1]


@pytest.mark.parametrize("limits", [[1], [1, 2, 3], -1, 0.5, "ab"])
def test_impossible_limits_are_refused(limits):
    loader = CombinedLoader([range(3), range(2)])
    with pytest.raises(ValueError, match="limits"):
        loader.limits = limits


def test_flattened_replaces_the_members_in_their_structure():
    loader = CombinedLoader({"a": range(2), "b": [range(3)]})
    loader.flattened = [range(10, 12), range(20, 23)]
    assert loader.iterables == {"a": range(10, 12), "b": [range(20, 23)]}
    assert [batch for batch, _, _ in loader] == [{"a": 10, "b": [20]}, {"a": 11, "b": [21]}]
    with pytest.raises(ValueError, match="1 members cannot replace 2"):
        loader.flattened = [range(1)]


def test_samplers_have_the_structure_of_the_iterables():
    first = DataLoader(range(4))
    loader = CombinedLoader({"a": first, "b": [range(3)]})
    assert loader.sampler == {"a": first.sampler, "b": [None]}
    assert loader.batch_sampler == {"a": first.batch_sampler, "b": [None]}


def test_unknown_mode_is_refused_with_the_known_ones():
    with pytest.raises(ValueError, match=r"'shuffled'.*min_size, max_size_cycle, max_size, sequential"):
        CombinedLoader([range(2)], "shuffled")


def test_a_member_that_cannot_be_iterated_is_named():
    with pytest.raises(TypeError, match="member 1 is None"):
        CombinedLoader([range(2), None])


def test_a_copy_and_a_pickle_iterate_on_their_own():
    loader = CombinedLoader([range(2), range(3)], "sequential")
    loader.limits = 2
    batches = iter(loader)
    next(batches)
    for clone in (copy.deepcopy(loader), pickle.loads(pickle.dumps(loader))):
        assert list(clone) == [(0, 0, 0), (1, 1, 0), (0, 0, 1), (1, 1, 1)]
    assert next(batches) == (1, 1, 0)


@pytest.mark.parametrize("persistent", [False, True])
def test_reset_ends_the_workers_and_the_next_iteration_starts_them_again(persistent):
    import multiprocessing

    others = set(multiprocessing.active_children())  # of tests before this one

    loader = CombinedLoader([DataLoader(range(4), num_workers=1, persistent_workers=persistent)], "max_size_cycle")
    batches = iter(loader)
    next(batches)
    assert len(set(multiprocessing.active_children()) - others) == 1
    loader.reset()
    assert set(multiprocessing.active_children()) <= others
    assert next(batches, "ended") == "ended"
    assert len(list(loader)) == 4
    loader.reset()
