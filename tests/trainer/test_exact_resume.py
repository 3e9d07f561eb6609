"""A run that goes on from a checkpoint is the run that never stopped, bit for bit."""

from __future__ import annotations

import random
from typing import Any

import numpy as np
import pytest
import torch
from resuming import BATCH, SAMPLES, Noisy, assert_same, loader, run
from torch import Tensor
from torch.utils.data import (
    DataLoader,
    IterableDataset,
    RandomSampler,
    Sampler,
    SubsetRandomSampler,
    WeightedRandomSampler,
)

from fulmen.utilities.combined_loader import CombinedLoader

WORKERS = {
    "0": {},
    "2": {"num_workers": 2},
    "persistent": {"num_workers": 2, "persistent_workers": True},
}


@pytest.mark.parametrize("before", WORKERS)
@pytest.mark.parametrize("batch", [1, 3, 6, 7, 8, 13, 14, 20])
def test_run_that_stopped_after_any_batch_goes_on_exactly(tmp_path, before, batch):
    options = WORKERS[before]
    whole = run(loader(**options))

    run(loader(**options), tmp_path / "k.ckpt", stop_at=batch)
    resumed = run(loader(**options), resume=tmp_path / "k.ckpt", seed=2)

    assert len(resumed.seen) == 21 - batch
    assert_same(resumed, whole)


@pytest.mark.parametrize(("before", "after"), [("0", "2"), ("2", "0"), ("persistent", "0"), ("2", "persistent")])
@pytest.mark.parametrize("batch", [4, 7, 10])
def test_run_goes_on_exactly_with_another_number_of_workers(tmp_path, before, after, batch):
    whole = run(loader(**WORKERS[before]))

    run(loader(**WORKERS[before]), tmp_path / "k.ckpt", stop_at=batch)
    resumed = run(loader(**WORKERS[after]), resume=tmp_path / "k.ckpt", seed=2)

    assert_same(resumed, whole)


class OwnBatches(Sampler):
    """A user's batch sampler with random numbers of its own, from all over the place."""

    def __init__(self) -> None:
        self.numbers = np.random.default_rng(3)
        self.others = random.Random(4)

    def __iter__(self) -> Any:
        order = self.numbers.permutation(SAMPLES).tolist()
        self.others.shuffle(order)
        for start in range(0, SAMPLES, BATCH):
            yield order[start : start + BATCH]

    def __len__(self) -> int:
        return SAMPLES // BATCH


class Counting(Sampler):
    """A sampler that can say where it stands."""

    def __init__(self) -> None:
        self.epoch = 0

    def __iter__(self) -> Any:
        self.epoch += 1
        return iter(torch.randperm(SAMPLES, generator=torch.Generator().manual_seed(self.epoch)).tolist())

    def __len__(self) -> int:
        return SAMPLES

    def state_dict(self) -> dict[str, Any]:
        return {"epoch": self.epoch}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.epoch = state["epoch"]


class Stream(IterableDataset):
    """Read in its own order, with a buffer that shuffles."""

    def __iter__(self) -> Any:
        buffer: list[int] = []
        for index in range(SAMPLES):
            buffer.append(index)
            if len(buffer) == 4:
                yield self.item(buffer.pop(random.randrange(4)))
        for index in buffer:
            yield self.item(index)

    @staticmethod
    def item(index: int) -> tuple[int, Tensor]:
        return index, torch.full((4,), float(index)) + torch.rand(())


class Stateful(IterableDataset):
    """Read in its own order; says where it stands, and goes on from there."""

    def __init__(self) -> None:
        self.position = 0
        self.read = 0

    def __iter__(self) -> Any:
        while self.position < SAMPLES:
            self.position += 1
            self.read += 1
            yield Stream.item(self.position - 1)
        self.position = 0

    def state_dict(self) -> dict[str, Any]:
        return {"position": self.position}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.position = state["position"]


class Custom:
    """Any iterable."""

    def __iter__(self) -> Any:
        order = random.sample(range(SAMPLES), SAMPLES)
        for start in range(0, SAMPLES, BATCH):
            places = torch.tensor(order[start : start + BATCH])
            yield places, torch.rand(BATCH, 4) + places[:, None]


LOADERS = {
    "sequential": lambda: loader(shuffle=False),
    "generator": lambda: loader(generator=torch.Generator().manual_seed(7)),
    "replacement": lambda: loader(shuffle=False, sampler=RandomSampler(Noisy(), True, 14)),
    "weighted": lambda: loader(shuffle=False, sampler=WeightedRandomSampler([1.0 + i for i in range(14)], 14)),
    "subset": lambda: loader(shuffle=False, sampler=SubsetRandomSampler(range(14))),
    "batch sampler": lambda: DataLoader(Noisy(), batch_sampler=OwnBatches()),
    "sampler with state": lambda: loader(shuffle=False, sampler=Counting()),
    "no batching": lambda: DataLoader(Noisy(), sampler=OwnBatches(), batch_size=None, collate_fn=_of_many),
    "iterable data set": lambda: DataLoader(Stream(), batch_size=BATCH),
    "iterable data set, workers": lambda: DataLoader(Stream(), batch_size=2 * BATCH, num_workers=1),
    "iterable data set with state": lambda: DataLoader(Stateful(), batch_size=BATCH),
    "any iterable": Custom,
}


class Many(Noisy):
    def __getitem__(self, index: Any) -> Any:
        return [super(Many, self).__getitem__(one) for one in index]


def _of_many(items: Any) -> Any:
    return torch.utils.data.default_collate(items)


LOADERS["no batching"] = lambda: DataLoader(Many(), sampler=OwnBatches(), batch_size=None, collate_fn=_of_many)


@pytest.mark.filterwarnings("ignore:.*no length")
@pytest.mark.parametrize("batch", [2, 7, 9])
@pytest.mark.parametrize("kind", LOADERS)
def test_run_goes_on_exactly_with_every_kind_of_loader(tmp_path, kind, batch):
    whole = run(LOADERS[kind](), val_check_interval=None, check_val_every_n_epoch=1)

    run(LOADERS[kind](), tmp_path / "k.ckpt", batch, val_check_interval=None, check_val_every_n_epoch=1)
    resumed = run(LOADERS[kind](), resume=tmp_path / "k.ckpt", seed=2, val_check_interval=None)

    assert 0 < len(resumed.seen) == len(whole.seen) - batch
    assert_same(resumed, whole)


@pytest.mark.parametrize("mode", ["min_size", "max_size", "max_size_cycle"])
@pytest.mark.parametrize("batch", [2, 5, 7, 8])
def test_run_goes_on_exactly_with_several_loaders(tmp_path, mode, batch):
    def loaders() -> CombinedLoader:
        return CombinedLoader([loader(), DataLoader(Noisy(6), batch_size=2, shuffle=True)], mode)

    whole = run(loaders(), val_check_interval=1.0)

    run(loaders(), tmp_path / "k.ckpt", batch, val_check_interval=1.0)
    resumed = run(loaders(), resume=tmp_path / "k.ckpt", seed=2, val_check_interval=1.0)

    assert len(resumed.seen) == len(whole.seen) - batch
    assert_same(resumed, whole)
