"""Processes that have unequal shares of a step, or none, or that leave a batch out."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
import torch
from tests.distributed.processes import run
from tests.distributed.regression import ByLBFGS, Regression, SteppingItself, quiet, samples, weights_of
from torch.utils.data import DataLoader, IterableDataset, TensorDataset

from fulmen import Trainer
from fulmen.callbacks import SpikeDetection

EACH = 4  # samples of a full batch


class Skipping(Regression):
    """Gives no loss for the batches that begin with one of these samples."""

    skipped: tuple[int, ...] = ()

    def training_step(self, batch: Any, batch_idx: int) -> Any:
        inputs, targets = batch
        first = int((samples(64)[0] == inputs[0]).all(1).nonzero()[0, 0])
        loss = (self.net(inputs) - targets).square().mean()
        return None if first in self.skipped else loss


class SkippingFirst(Skipping):
    skipped = (0,)  # the first batch of rank 0


class SkippingSome(Skipping):
    skipped = (0, 4, 12, 20)  # of two processes both, then the second, then the second; of four rank 0, 1 and 3, then 1


class SkippingSums(SkippingSome):
    def training_step(self, batch: Any, batch_idx: int) -> Any:
        loss = super().training_step(batch, batch_idx)
        return None if loss is None else {"loss_sum": loss * len(batch[0]), "weight": len(batch[0])}


class ByHand(Regression):
    """Goes backward twice, and steps by itself."""

    def __init__(self, dtype: torch.dtype = torch.float64) -> None:
        super().__init__(dtype)
        self.automatic_optimization = False
        self.seen: list[int] = []

    def training_step(self, batch: Any, batch_idx: int) -> None:
        optimizer = self.optimizers()
        optimizer.zero_grad()
        loss = self.error(batch).mean()
        self.manual_backward(loss / 3, retain_graph=True)
        self.manual_backward(loss * 2 / 3)
        optimizer.step()
        self.seen.append(len(batch[0]))


class Endless(IterableDataset[Any]):
    """A stream of which each process has a part of its own length."""

    shards_itself = True

    def __init__(self, parts: list[tuple[int, int]]) -> None:
        self.parts = parts

    def __iter__(self) -> Iterator[Any]:
        inputs, targets = samples(64)
        begin, end = self.parts[torch.distributed.get_rank()]
        for place in range(begin, end):
            yield inputs[place], targets[place]


def fit(world: int, kind: type[Regression], loader: Any, **arguments: Any) -> dict[str, Any]:
    module = kind(torch.float64)
    trainer = Trainer(**quiet(devices=world, **arguments))
    trainer.fit(module, loader)
    norms = torch.tensor([float(norm) for norm in module.norms], dtype=torch.float64)
    return {"weights": weights_of(module), "norms": norms, "steps": trainer.global_step}


def batches_of(count: int) -> DataLoader[Any]:
    return DataLoader(TensorDataset(*samples(count)), batch_size=EACH)


def groups_of(count: int, world: int) -> list[Any]:
    """As batches of one process what ``world`` have together."""
    inputs, targets = samples(count)
    size = EACH * world
    return [(inputs[at : at + size], targets[at : at + size]) for at in range(0, count, size)]


UNEVEN = {"a smaller batch": 4 * EACH + 3 * EACH + 2, "no batch": 5 * EACH, "a smaller one and none": 8 * EACH + 1}
ACCUMULATION = {"each step": {}, "accumulated": {"accumulate_grad_batches": 2}}
WAYS: dict[str, tuple[type[Regression], dict[str, Any]]] = {
    **{rhythm: (Regression, arguments) for rhythm, arguments in ACCUMULATION.items()},
    "by hand": (ByHand, {}),
    "LBFGS": (ByLBFGS, {}),
    "a user's optimizer_step": (SteppingItself, {}),
}


def all_uneven(world: int) -> dict[Any, Any]:
    return {
        (case, way): fit(world, kind, batches_of(count), **arguments)
        for case, count in UNEVEN.items()
        for way, (kind, arguments) in WAYS.items()
    }


@pytest.mark.parametrize("world", [2, 4])
def test_uneven_last_group_counts_each_sample_once(world: int) -> None:
    results = run(world, all_uneven, world)
    for case, count in UNEVEN.items():
        for way, (kind, arguments) in WAYS.items():
            expected = fit(1, kind, groups_of(count, world), **arguments)
            close = 1e-6 if way == "LBFGS" else 1e-11  # a line search makes more of the last digit
            torch.testing.assert_close(results[0][case, way], expected, rtol=close, atol=close)
            assert all(torch.equal(one[case, way]["weights"], results[0][case, way]["weights"]) for one in results)
            assert all(one[case, way]["steps"] == expected["steps"] for one in results)


def seen_by_hand() -> list[int]:
    module = ByHand()
    Trainer(**quiet(devices=2, max_epochs=1)).fit(module, batches_of(3 * EACH))
    return module.seen


def test_process_without_a_batch_keeps_nothing_of_the_step_it_makes_by_hand() -> None:
    assert run(2, seen_by_hand) == [[EACH, EACH], [EACH]]


def all_skipping(world: int) -> dict[Any, Any]:
    return {
        (kind.__name__, rhythm): fit(world, kind, batches_of(16 * EACH), max_epochs=1, **arguments)
        for kind in (SkippingFirst, SkippingSome, SkippingSums)
        for rhythm, arguments in ACCUMULATION.items()
    }


@pytest.mark.parametrize("world", [2, 4])
def test_none_on_some_processes_leaves_their_batches_out(world: int) -> None:
    results = run(world, all_skipping, world)
    for kind in (SkippingFirst, SkippingSome, SkippingSums):
        for rhythm, arguments in ACCUMULATION.items():
            window = arguments.get("accumulate_grad_batches", 1) * world
            expected = fit(1, kind, batches_of(16 * EACH), max_epochs=1, accumulate_grad_batches=window)
            for result in results:
                torch.testing.assert_close(result[kind.__name__, rhythm], expected, rtol=1e-11, atol=1e-12)


def streams() -> dict[str, Any]:
    return {
        rhythm: fit(2, Regression, DataLoader(Endless([(0, 28), (28, 48)]), batch_size=EACH), max_epochs=1, **arguments)
        for rhythm, arguments in ACCUMULATION.items()
    }


def test_streams_of_unequal_length_train_to_the_end_of_the_longer_one() -> None:
    results = run(2, streams)
    inputs, targets = samples(64)
    groups = []
    for step in range(7):
        places = [*range(step * EACH, (step + 1) * EACH)]
        places += [28 + place for place in places] if step < 5 else []
        groups.append((inputs[places], targets[places]))
    for rhythm, arguments in ACCUMULATION.items():
        expected = fit(1, Regression, groups, max_epochs=1, **arguments)
        for result in results:
            torch.testing.assert_close(result[rhythm], expected, rtol=1e-11, atol=1e-12)


class Told(SpikeDetection):
    """Counts the batches that it is told of."""

    batches = 0

    def on_train_batch_end(self, trainer: Any, pl_module: Any, outputs: Any, batch: Any, batch_idx: int) -> None:
        super().on_train_batch_end(trainer, pl_module, outputs, batch, batch_idx)
        self.batches += 1


def told() -> tuple[int, int]:
    callback = Told(warmup=100)
    found = fit(2, Regression, batches_of(5 * EACH), callbacks=callback)
    return found["steps"], callback.batches


def test_derived_callback_that_talks_to_the_other_processes_is_in_step_where_one_has_no_batch() -> None:
    assert run(2, told) == [(6, 6), (6, 4)]  # of two epochs
