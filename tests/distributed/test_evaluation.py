"""What evaluation gives on several processes: the numbers and the order of one."""

from __future__ import annotations

from typing import Any

import pytest
from tests.distributed.evaluating import (
    Evaluated,
    Squares,
    are_close,
    expected_of,
    matrix,
    results_of,
    trainer_of,
)
from tests.distributed.processes import run
from tests.distributed.simulated import Job, Simulated
from torch.utils.data import DataLoader

from fulmen import LightningModule
from fulmen.callbacks import BasePredictionWriter


class Plain(LightningModule):
    """Without metrics, which only real processes can exchange."""

    def validation_step(self, batch: Any, batch_idx: int, dataloader_idx: int = 0) -> None:
        self.log("mean", batch.mean())
        self.log("sum", batch.sum(), reduce_fx="sum")
        self.log("max", batch.max(), reduce_fx="max")

    test_step = validation_step

    def predict_step(self, batch: Any, batch_idx: int, dataloader_idx: int = 0) -> Any:
        return batch + 1


def in_each(world: int, function: Any) -> list[Any]:
    """What ``function(trainer)`` returns in each of ``world`` simulated processes."""
    job = Job(world)
    return job.run(lambda rank: function(trainer_of(world, strategy=Simulated(job, rank))))


def plain_results(trainer: Any, size: int, batch_size: int) -> Any:
    data = DataLoader(Squares(size), batch_size)
    predicted = trainer.predict(Plain(), data)
    return trainer.validate(Plain(), data, verbose=False), trainer.test(Plain(), data, verbose=False), predicted


@pytest.mark.parametrize("world", [2, 3, 4])
def test_validate_test_and_predict_give_the_numbers_of_one_process_whatever_the_sizes(world: int) -> None:
    for size in range(1, 18, 2):
        for batch_size in (1, 2, 3, 5):
            expected = expected_of(size, batch_size)
            logged = [{name: expected["test"][0][name] for name in ("mean", "sum", "max")}]
            for validated, tested, predicted in in_each(world, lambda one: plain_results(one, size, batch_size)):  # noqa: B023
                assert are_close(validated, logged), (size, batch_size)
                assert are_close(tested, logged)
                assert [batch.tolist() for batch in predicted] == expected["predict"]


@pytest.mark.slow
@pytest.mark.parametrize("world", [1, 2, 3, 4])
def test_all_sizes_give_the_numbers_of_arithmetic_in_real_processes(world: int) -> None:
    assert run(world, matrix, world, list(range(1, 18)), [1, 2, 3, 4, 5], timeout=540) == [[]] * world


def test_metrics_and_predictions_of_three_real_processes_are_those_of_one() -> None:
    assert run(3, matrix, 3, [1, 7], [2]) == [[], [], []]


def test_one_process_gives_the_numbers_of_arithmetic() -> None:
    assert are_close(results_of(trainer_of(1), 7, 2), expected_of(7, 2))


def test_several_loaders_keep_their_numbers_and_their_order() -> None:
    def results(trainer: Any) -> Any:
        data = [DataLoader(Squares(5), 2), DataLoader(Squares(1), 2), DataLoader(Squares(4), 1)]
        return trainer.validate(Plain(), data, verbose=False), trainer.predict(Plain(), data)

    alone = results(trainer_of(1))
    for validated, predicted in in_each(3, results):
        assert are_close(validated, alone[0])
        assert [[batch.tolist() for batch in one] for one in predicted] == [
            [batch.tolist() for batch in one] for one in alone[1]
        ]


@pytest.mark.parametrize("limit", [3, 0.5])
def test_limited_evaluation_takes_the_same_samples_on_any_number_of_processes(limit: Any) -> None:
    def results(trainer: Any) -> Any:
        return trainer.validate(Plain(), DataLoader(Squares(10), 1), verbose=False)

    alone = results(trainer_of(1, limit_val_batches=limit))
    job = Job(2)
    for validated in job.run(
        lambda rank: results(trainer_of(2, strategy=Simulated(job, rank), limit_val_batches=limit))
    ):
        assert are_close(validated, alone)


class Writer(BasePredictionWriter):
    def __init__(self) -> None:
        super().__init__("batch_and_epoch")
        self.batches: list[Any] = []
        self.epoch: Any = None

    def write_on_batch_end(
        self,
        trainer: Any,
        pl_module: Any,
        prediction: Any,
        batch_indices: Any,
        batch: Any,
        batch_idx: int,
        dataloader_idx: int,
    ) -> None:
        self.batches.append((batch_idx, prediction.tolist(), batch_indices))

    def write_on_epoch_end(self, trainer: Any, pl_module: Any, predictions: Any, batch_indices: Any) -> None:
        self.epoch = [batch.tolist() for batch in predictions], batch_indices


@pytest.mark.parametrize("keep", [True, False])
def test_prediction_writers_get_their_own_batches_with_their_places_in_the_data(keep: bool) -> None:
    job = Job(2)

    def predicted(rank: int) -> Any:
        writer = Writer()
        trainer = trainer_of(2, strategy=Simulated(job, rank), callbacks=[writer])
        trainer.predict(Plain(), DataLoader(Squares(5), 2), return_predictions=keep)
        return writer.batches, writer.epoch

    (first, first_epoch), (second, second_epoch) = job.run(predicted)
    assert first == [(0, [1.0, 2.0], [0, 1]), (2, [17.0], [4])]
    assert second == [(1, [5.0, 10.0], [2, 3])]
    assert first_epoch == ([[1.0, 2.0], [17.0]], [[[0, 1], [4]]])
    assert second_epoch == ([[5.0, 10.0]], [[[2, 3]]])


class Collective(Simulated):
    forward_is_collective = True


class CountsForwards(Evaluated):
    def __init__(self) -> None:
        super().__init__()
        self.forwards = 0
        self.outputs: list[Any] = []
        self.all_seen.sync_on_compute = self.mean_metric.sync_on_compute = False

    def validation_step(self, batch: Any, batch_idx: int, dataloader_idx: int = 0) -> None:
        self.forwards += 1
        self.outputs.append(batch)
        self.log("sum", batch.sum(), reduce_fx="sum")
        self.all_seen.update(batch)

    def on_validation_epoch_end(self) -> None:
        pass


@pytest.mark.parametrize("size", [1, 4])
def test_processes_without_a_batch_run_another_where_all_must_and_nothing_of_it_is_left(size: int) -> None:
    job = Job(3)

    def validated(rank: int) -> Any:
        module = CountsForwards()
        trainer = trainer_of(3, strategy=Collective(job, rank))
        logged = trainer.validate(module, DataLoader(Squares(size), 1), verbose=False)
        return logged, module.forwards, len(module.outputs), module.all_seen.update_count

    results = job.run(validated)
    assert {forwards for _, forwards, _, _ in results} == {(size + 2) // 3}
    assert sum(outputs for _, _, outputs, _ in results) == sum(seen for *_, seen in results) == size
    assert all(logged == [{"sum": float(sum(n * n for n in range(size)))}] for logged, *_ in results)
