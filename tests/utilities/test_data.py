from __future__ import annotations

from collections import namedtuple
from dataclasses import dataclass

import pytest
import torch
from torch.utils.data import DataLoader, IterableDataset

from fulmen.utilities.data import (
    extract_batch_size,
    has_iterable_dataset,
    has_len,
    sized_len,
    suggested_max_num_workers,
)
from fulmen.utilities.exceptions import MisconfigurationException


class Stream(IterableDataset):
    def __iter__(self):
        return iter(range(3))


class SizedStream(Stream):
    def __len__(self) -> int:
        return 3


@dataclass
class Pictures:
    name: str
    pixels: torch.Tensor


Pair = namedtuple("Pair", ["x", "y"])
T = torch.zeros


@pytest.mark.parametrize(
    ("batch", "size"),
    [
        (T(3, 2), 3),
        (T(()), 1),
        (T(0, 4), 0),
        ([T(5), T(2)], 5),
        ({"temperature": T(()), "x": T(4, 1)}, 4),
        ({"names": ["a", "b"], "x": (None, [T(2, 2)])}, 2),
        (Pictures("cats", T(6, 3)), 6),
        (Pair("text", T(7)), 7),
        ((x for x in [T(2), T(3)]), 2),
        ([T(()), T(())], 1),
    ],
)
def test_batch_size_is_that_of_the_first_tensor_with_a_dimension(batch, size):
    assert extract_batch_size(batch) == size


@pytest.mark.parametrize("batch", [None, 5, "abc", ["a", "b"], [1.0, 2.0], {}, Pictures])
def test_batch_size_of_a_batch_without_tensors_must_be_said(batch):
    with pytest.raises(MisconfigurationException, match="batch_size="):
        extract_batch_size(batch)


@pytest.mark.parametrize(
    ("loader", "length"),
    [
        (DataLoader(range(5), batch_size=2), 3),
        (DataLoader(range(0)), 0),
        (DataLoader(Stream()), None),
        (DataLoader(SizedStream(), batch_size=2), 2),
        (iter([1]), None),
        (None, None),
    ],
)
def test_length_of_a_loader_is_known_or_none(loader, length):
    assert sized_len(loader) == length
    assert has_len(loader) is (length is not None)


def test_iterable_dataset_is_recognised_in_its_loader():
    assert has_iterable_dataset(DataLoader(Stream()))
    assert not has_iterable_dataset(DataLoader(range(3)))
    assert not has_iterable_dataset([1, 2])


def test_suggested_workers_share_the_machine_and_are_never_none():
    alone = suggested_max_num_workers(1)
    assert alone >= 1
    assert suggested_max_num_workers(10_000) == 1
    with pytest.raises(ValueError, match="0"):
        suggested_max_num_workers(0)
