from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import Barrier
from typing import Any

import pytest
import torch
from torch.utils.data import DataLoader

from fulmen.utilities.data import has_len_all_ranks
from fulmen.utilities.distributed import distributed_is_initialized, is_shared_filesystem


class Rank:
    """What these functions need of a strategy, for ranks that are threads and exchange values through a list."""

    root_device = torch.device("cpu")

    def __init__(self, rank: int, values: list[Any], barrier: Barrier) -> None:
        self.is_global_zero = rank == 0
        self.world_size = len(values)
        self.rank, self.values, self.meeting = rank, values, barrier

    def barrier(self, name: str | None = None) -> None:
        self.meeting.wait()

    def _gather(self, value: Any) -> list[Any]:
        self.values[self.rank] = value
        self.meeting.wait()
        values = list(self.values)
        self.meeting.wait()
        return values

    def broadcast(self, value: Any, src: int = 0) -> Any:
        return self._gather(value)[src]

    def reduce(self, tensor: torch.Tensor, group: Any = None, reduce_op: str = "mean") -> torch.Tensor:
        assert reduce_op == "sum"
        return torch.stack(self._gather(tensor)).sum(0)

    def reduce_boolean_decision(self, decision: bool, all: bool = True) -> bool:
        return min(self._gather(decision))


def on_all_ranks(function: Any, *arguments: Any) -> list[Any]:
    """``function(strategy, argument)`` on as many ranks as there are arguments; an exception is its rank's result."""
    values: list[Any] = [None] * len(arguments)
    barrier = Barrier(len(arguments), timeout=10)
    with ThreadPoolExecutor(len(arguments)) as pool:
        ranks = [Rank(rank, values, barrier) for rank in range(len(arguments))]
        futures = [pool.submit(function, rank, argument) for rank, argument in zip(ranks, arguments)]
    return [future.exception() or future.result() for future in futures]


def test_ranks_that_see_the_same_folder_share_it_and_leave_nothing_behind(tmp_path):
    assert on_all_ranks(is_shared_filesystem, tmp_path, tmp_path) == [True, True]
    assert list(tmp_path.iterdir()) == []


def test_ranks_with_folders_of_their_own_do_not_share(tmp_path):
    folders = [tmp_path / "0", tmp_path / "1"]
    for folder in folders:
        folder.mkdir()
    result = on_all_ranks(lambda strategy, folder: is_shared_filesystem(strategy, folder, timeout=0), *folders)
    assert result == [False, False]
    assert [list(folder.iterdir()) for folder in folders] == [[], []]


def test_a_folder_that_one_rank_lacks_is_an_error_on_all(tmp_path):
    errors = on_all_ranks(is_shared_filesystem, tmp_path, tmp_path / "absent")
    assert [type(error) for error in errors] == [FileNotFoundError, FileNotFoundError]


def test_one_process_and_urls_are_shared_without_looking():
    alone = Rank(0, [None], Barrier(1))
    assert is_shared_filesystem(alone, Path("/no/such/folder"))
    two = Rank(0, [None, None], Barrier(2))
    assert is_shared_filesystem(two, "s3://bucket/run")


def test_length_is_known_on_all_ranks_or_an_empty_one_is_an_error():
    full, empty = DataLoader(range(3)), DataLoader(range(0))
    assert on_all_ranks(lambda strategy, loader: has_len_all_ranks(loader, strategy), full, full) == [True, True]
    fine, error = on_all_ranks(lambda strategy, loader: has_len_all_ranks(loader, strategy), full, empty)
    assert fine is True
    assert type(error) is RuntimeError
    assert "3 batches on the others" in str(error)
    allowed = on_all_ranks(lambda strategy, loader: has_len_all_ranks(loader, strategy, True), full, empty)
    assert allowed == [True, True]


def test_length_zero_everywhere_warns_and_no_length_is_false():
    alone = Rank(0, [None], Barrier(1))
    with pytest.warns(UserWarning, match="empty on every rank"):
        assert has_len_all_ranks(DataLoader(range(0)), alone)
    assert not has_len_all_ranks(iter([]), alone)


def test_this_process_is_in_no_group():
    assert not distributed_is_initialized()
