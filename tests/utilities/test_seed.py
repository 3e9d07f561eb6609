from __future__ import annotations

import io
import random
from contextlib import suppress

import numpy
import pytest
import torch
from torch.utils.data import DataLoader, Dataset

from fulmen.utilities.seed import (
    collect_rng_states,
    derive_seed,
    isolate_rng,
    reset_seed,
    restore_rng_states,
    seed_everything,
    seed_generators,
    worker_init_function,
)


@pytest.fixture(autouse=True)
def _generators_and_environment_stay(monkeypatch):
    for name in ("PL_GLOBAL_SEED", "PL_SEED_WORKERS"):
        monkeypatch.setenv(name, "0")  # so that it is put back afterwards
        monkeypatch.delenv(name)
    with isolate_rng():
        yield


def draw() -> tuple[float, float, float]:
    return (torch.rand(1).item(), random.random(), float(numpy.random.rand()))


def test_the_same_seed_gives_the_same_draws_of_every_generator():
    assert seed_everything(7) == 7
    first = draw()
    seed_everything(7)
    assert draw() == first
    seed_everything(8)
    assert all(a != b for a, b in zip(draw(), first))


def test_seed_is_left_in_the_environment_for_processes_to_come(monkeypatch):
    import os

    seed_everything(7, workers=True)
    assert os.environ["PL_GLOBAL_SEED"] == "7"
    assert os.environ["PL_SEED_WORKERS"] == "1"
    assert seed_everything() == 7
    assert os.environ["PL_SEED_WORKERS"] == "0"


def test_no_seed_at_all_is_zero_with_a_warning():
    with pytest.warns(UserWarning, match="seed"):
        assert seed_everything() == 0


@pytest.mark.parametrize("seed", [-1, 2**32])
def test_seed_outside_the_range_is_refused(seed):
    with pytest.raises(ValueError, match=str(seed)):
        seed_everything(seed)


def test_seed_in_the_environment_that_is_no_integer_is_refused(monkeypatch):
    monkeypatch.setenv("PL_GLOBAL_SEED", "seven")
    with pytest.raises(ValueError, match="'seven'"):
        seed_everything()


def test_reset_seed_starts_over_and_without_a_seed_does_nothing():
    before = collect_rng_states()
    reset_seed()
    assert torch.equal(collect_rng_states()["torch"], before["torch"])
    seed_everything(3)
    first = draw()
    reset_seed()
    assert draw() == first


def test_isolate_rng_leaves_no_trace_even_after_an_exception():
    with isolate_rng():
        wanted = draw()
    with suppress(RuntimeError), isolate_rng():
        draw()
        raise RuntimeError
    assert draw() == wanted


def test_states_survive_a_plain_file():
    states = collect_rng_states()
    wanted = draw()
    file = io.BytesIO()
    torch.save(states, file)
    file.seek(0)
    restore_rng_states(torch.load(file, weights_only=True))
    assert draw() == wanted


def test_derived_seeds_differ_in_every_part_of_the_key_and_stay_the_same_for_ever():
    seeds = {derive_seed(seed, epoch, position) for seed in range(5) for epoch in range(5) for position in range(5)}
    assert len(seeds) == 125
    assert derive_seed(1, 2, 3) == derive_seed(1, 2, 3)
    assert derive_seed(1, 2, bits=32) < 2**32
    assert derive_seed(42, "a") == 0x8A3F09E26BE186D5  # whoever changes this breaks everybody's resumed runs


def test_seeded_generators_follow_the_key_alone():
    seed_generators(1, 2, 3)
    first = draw()
    seed_generators(1, 2, 4)
    other = draw()
    seed_generators(1, 2, 3)
    assert draw() == first
    assert all(a != b for a, b in zip(first, other))


class Draws(Dataset):
    def __len__(self) -> int:
        return 2

    def __getitem__(self, index: int) -> torch.Tensor:
        return torch.tensor(draw(), dtype=torch.float64)


def test_workers_and_ranks_draw_differently_and_again_the_same():
    def draws(rank: int) -> torch.Tensor:
        torch.manual_seed(0)
        loader = DataLoader(Draws(), num_workers=2, worker_init_fn=lambda worker: worker_init_function(worker, rank))
        return torch.cat(list(loader))

    first, other_rank = draws(0), draws(1)
    everything = torch.cat([first, other_rank])
    assert len(everything.flatten().unique()) == everything.numel()
    assert torch.equal(draws(0), first)
