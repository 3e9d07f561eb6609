"""Which batches a process gets from a loader that Fabric has set up."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from tests.distributed.processes import run
from tests.fabric.loops import WORLD, loader
from torch.utils.data import DataLoader, DistributedSampler, IterableDataset

from fulmen import Fabric


def fabric_of(**arguments: Any) -> Fabric:
    return Fabric(**{"accelerator": "cpu", **arguments})


class Noisy(torch.utils.data.Dataset[torch.Tensor]):
    def __len__(self) -> int:
        return 6

    def __getitem__(self, place: int) -> torch.Tensor:
        return place + torch.rand(())


def test_one_process_gets_the_batches_of_the_loader_itself() -> None:
    def batches(wrap: Any) -> list[Any]:
        torch.manual_seed(3)
        own = wrap(DataLoader(Noisy(), batch_size=4, shuffle=True))
        return [batch.tolist() for _ in range(2) for batch in own]

    assert batches(fabric_of().setup_dataloaders) == batches(lambda own: own)


def test_the_loader_is_not_changed() -> None:
    own = loader()
    before = dict(vars(own))
    shared = fabric_of().setup_dataloaders(own)
    list(shared)
    assert vars(own) == before
    assert (shared.batch_size, shared.dataset, len(shared), shared.device) == (2, own.dataset, 12, torch.device("cpu"))


def test_batches_stay_where_they_are_if_that_is_wanted() -> None:
    assert fabric_of().setup_dataloaders(loader(), move_to_device=False).device is None


def test_several_loaders_come_back_in_a_list() -> None:
    assert len(fabric_of().setup_dataloaders(loader(), loader())) == 2


def test_a_sampler_that_shuffles_by_epoch_is_told_of_passes() -> None:
    told = []

    class Told(torch.utils.data.SequentialSampler):
        def set_epoch(self, epoch: int) -> None:
            told.append(epoch)

    shared = fabric_of().setup_dataloaders(DataLoader(Noisy(), sampler=Told(range(6))))
    for _ in range(3):
        list(shared)
    assert told == [0, 1, 2]


class Numbers(IterableDataset[int]):
    def __iter__(self) -> Any:
        return iter(range(10))


def _of_two() -> dict[str, Any]:
    fabric = fabric_of(devices=WORLD, strategy="ddp")
    fabric.launch()
    torch.manual_seed(7 + fabric.global_rank)  # they need not have the same numbers
    numbers = list(range(22))
    shuffled, plain, iterable, user, all_ = fabric.setup_dataloaders(
        DataLoader(numbers, batch_size=3, shuffle=True),
        DataLoader(numbers, batch_size=4),
        DataLoader(Numbers(), batch_size=2),
        DataLoader(numbers, batch_size=2, sampler=DistributedSampler(range(22), 2, fabric.global_rank, shuffle=False)),
        DataLoader(numbers, batch_size=4, num_workers=1),
    )
    (whole,) = [fabric.setup_dataloaders(DataLoader(numbers, batch_size=11), use_distributed_sampler=False)]
    few = fabric.setup_dataloaders(DataLoader([1], batch_size=1))
    too_few = ""
    try:
        list(few)
    except Exception as error:
        too_few = str(error)
    read = lambda batches: [batch.tolist() for batch in batches]  # noqa: E731
    return {
        "shuffled": [read(shuffled), read(shuffled)],
        "plain": read(plain),
        "iterable": read(iterable),
        "user": read(user),
        "workers": read(all_),
        "whole": read(whole),
        "lengths": [len(shuffled), len(plain), len(user), len(whole)],
        "too_few": too_few,
    }


@pytest.fixture(scope="module")
def of_two() -> list[dict[str, Any]]:
    return run(WORLD, _of_two)


def joined(lists: list[list[int]]) -> list[int]:
    return [number for one in lists for number in one]


def test_each_process_takes_one_batch_of_each_group(of_two: list[dict[str, Any]]) -> None:
    batches = [list(range(22))[start : start + 4] for start in range(0, 22, 4)]
    assert [ranks["plain"] for ranks in of_two] == [batches[0::2], batches[1::2]]
    assert [ranks["workers"] for ranks in of_two] == [batches[0::2], batches[1::2]]


def test_a_shuffled_pass_has_each_sample_once_in_another_order_each_time(of_two: list[dict[str, Any]]) -> None:
    passes = [[joined(ranks["shuffled"][number]) for ranks in of_two] for number in range(2)]
    for one in passes:
        assert sorted(joined(one)) == list(range(22))
    assert passes[0] != passes[1]


def test_a_process_without_a_last_batch_gets_the_one_again_that_it_had(of_two: list[dict[str, Any]]) -> None:
    assert of_two[0]["iterable"] == [[0, 1], [4, 5], [8, 9]]
    assert of_two[1]["iterable"] == [[2, 3], [6, 7], [6, 7]]


def test_a_loader_that_its_user_has_divided_gives_all_of_its_batches(of_two: list[dict[str, Any]]) -> None:
    assert [joined(ranks["user"]) for ranks in of_two] == [list(range(0, 22, 2)), list(range(1, 22, 2))]
    assert [len(joined(ranks["whole"])) for ranks in of_two] == [22, 22]


def test_the_length_is_that_of_a_process(of_two: list[dict[str, Any]]) -> None:
    assert [ranks["lengths"] for ranks in of_two] == [[4, 3, 6, 2]] * 2


def test_fewer_batches_than_processes_are_refused_where_one_has_none(of_two: list[dict[str, Any]]) -> None:
    assert of_two[0]["too_few"] == ""
    assert "fewer batches than there are processes (2)" in of_two[1]["too_few"]
