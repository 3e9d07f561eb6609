"""What is logged on several processes becomes one value."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from tests.distributed.evaluating import Squares, trainer_of
from tests.distributed.processes import run
from tests.distributed.simulated import Job, Simulated
from torch.utils.data import DataLoader

from fulmen import LightningModule
from fulmen.callbacks import Callback, EarlyStopping, ModelCheckpoint
from fulmen.utilities.exceptions import MisconfigurationException


class Trained(LightningModule):
    def __init__(self, logs: Any = None) -> None:
        super().__init__()
        self.layer = torch.nn.Linear(1, 1)
        self.logs = logs

    def training_step(self, batch: Any, batch_idx: int) -> Any:
        if self.logs is not None:
            self.logs(self, batch, batch_idx)
        return self.layer(batch.view(-1, 1)).mean()

    def configure_optimizers(self) -> Any:
        return torch.optim.SGD(self.parameters(), lr=1e-6)


def fitted(world: int, logs: Any, size: int = 7, batch_size: int = 2, **arguments: Any) -> list[Any]:
    """The metrics that each process has after the fit, and its module; and how often it has exchanged something."""
    job = Job(world)

    def fit(rank: int) -> Any:
        module = Trained(logs)
        trainer = trainer_of(world, strategy=Simulated(job, rank), max_epochs=1, **arguments)
        trainer.fit(module, DataLoader(Squares(size), batch_size))
        return {name: float(value) for name, value in trainer.callback_metrics.items()}, module, job.exchanges[rank]

    return job.run(fit)


def test_values_of_an_epoch_are_those_of_all_samples_on_every_process() -> None:
    def logs(module: Any, batch: Any, batch_idx: int) -> None:
        options = {"on_step": False, "on_epoch": True}
        module.log("mean", batch.mean(), **options)
        module.log("number", float(len(batch)), reduce_fx="sum", **options)
        module.log("largest", batch.max(), reduce_fx="max", **options)
        module.log("smallest", batch.min(), reduce_fx="min", **options)

    squares = [float(n * n) for n in range(7)]
    for world in (2, 3, 4):
        for metrics, *_ in fitted(world, logs):
            assert metrics == pytest.approx(
                {"mean": sum(squares) / 7, "number": 7.0, "largest": 36.0, "smallest": 0.0}, rel=1e-6
            )


def test_values_of_steps_are_those_of_each_process_unless_asked_for() -> None:
    seen: dict[int, list[float]] = {0: [], 1: []}

    def logs(module: Any, batch: Any, batch_idx: int) -> None:
        module.log("own", batch.mean())
        seen[module.trainer.global_rank].append(float(module.trainer.callback_metrics["own"]))

    fitted(2, logs, size=8)
    assert seen == {0: [0.5, 20.5], 1: [6.5, 42.5]}


def test_synced_values_of_steps_are_those_of_the_whole_group_also_where_one_has_no_batch() -> None:
    written: dict[int, list[Any]] = {0: [], 1: []}

    def logs(module: Any, batch: Any, batch_idx: int) -> None:
        for kind in ("mean", "sum", "min", "max"):
            module.log(kind, batch.mean(), sync_dist=True, reduce_fx=kind)

    class Keeps(Callback):
        def on_train_epoch_end(self, trainer: Any, pl_module: Any) -> None:
            written[trainer.global_rank].append(
                {name: float(value) for name, value in trainer.callback_metrics.items()}
            )

    fitted(2, logs, size=7, batch_size=2, callbacks=[Keeps()])  # the last group: 16, 25 and 36
    weighted = (20.5 * 2 + 36.0 * 1) / 3
    assert written[0] == written[1] == [pytest.approx({"mean": weighted, "sum": 56.5, "min": 20.5, "max": 36.0})]
    written.update({rank: [] for rank in range(3)})
    fitted(3, logs, size=9, batch_size=2, callbacks=[Keeps()])  # the last group: 36 and 49, 64, and none
    weighted = (42.5 * 2 + 64.0 * 1) / 3
    assert written[0] == written[1] == [pytest.approx({"mean": weighted, "sum": 106.5, "min": 42.5, "max": 64.0})]


def test_nothing_is_exchanged_per_step_unless_asked_for() -> None:
    def logs(module: Any, batch: Any, batch_idx: int) -> None:
        module.log("own", batch.mean(), on_epoch=True)

    few, many = (fitted(2, logs, size=size, batch_size=1)[0][2] for size in (4, 40))
    assert few == many


def test_value_of_rank_zero_only_is_the_same_everywhere() -> None:
    def logs(module: Any, batch: Any, batch_idx: int) -> None:
        module.log("first", batch.mean(), on_step=False, on_epoch=True, rank_zero_only=True)

    assert [metrics for metrics, *_ in fitted(2, logs, size=4, batch_size=2)] == [{"first": 0.5}, {"first": 0.5}]


def test_name_logged_on_one_process_only_is_an_error_on_all_that_names_it_and_them() -> None:
    def logs(module: Any, batch: Any, batch_idx: int) -> None:
        if module.trainer.global_rank == 1:
            module.log("alone", 1.0, on_epoch=True)

    with pytest.raises(MisconfigurationException, match=r"'alone'.*on rank 1.*not on ranks 0, 2"):
        fitted(3, logs, size=6, batch_size=2)


@pytest.mark.filterwarnings("ignore:.*so nothing was trained")
def test_process_that_had_no_batch_need_not_log() -> None:
    def logs(module: Any, batch: Any, batch_idx: int) -> None:
        module.log("value", batch.mean(), on_epoch=True)

    results = fitted(3, logs, size=3, batch_size=2)
    assert [metrics["value"] for metrics, *_ in results] == [pytest.approx(5 / 3)] * 3


def test_values_logged_at_the_end_of_the_epoch_are_averaged() -> None:
    class Ends(Callback):
        def on_train_epoch_end(self, trainer: Any, pl_module: Any) -> None:
            pl_module.log("rank", float(trainer.global_rank))

    assert [metrics for metrics, *_ in fitted(2, None, callbacks=[Ends()])] == [{"rank": 0.5}, {"rank": 0.5}]


def test_different_reductions_under_one_name_are_refused() -> None:
    def logs(module: Any, batch: Any, batch_idx: int) -> None:
        module.log("value", 1.0, on_epoch=True, reduce_fx=("sum", "mean")[module.trainer.global_rank])

    with pytest.raises(MisconfigurationException, match=r"'value', reduce_fx=.* mean and sum"):
        fitted(2, logs)


def test_metric_that_cannot_be_reduced_is_averaged_with_a_warning() -> None:
    class Own:
        def __init__(self) -> None:
            self.value = 0.0

        def update(self, value: float) -> None:
            self.value = value

        def compute(self) -> float:
            return self.value

        def reset(self) -> None:
            self.value = 0.0

    def logs(module: Any, batch: Any, batch_idx: int) -> None:
        module.own = module.__dict__.get("own") or Own()
        module.own.update(float(module.trainer.global_rank))
        module.log("own", module.own, on_step=False, on_epoch=True)

    with pytest.warns(UserWarning, match="logged as 'own' has different values on the processes"):
        assert fitted(2, logs)[1][0] == {"own": 0.5}


def followed(folder: str) -> Any:
    """To be run in each of two processes: what those see that watch a metric, which is worse on one of them."""

    class Watched(Trained):
        def validation_step(self, batch: Any, batch_idx: int) -> None:
            values = ([1.0, 2.0, 3.0], [5.0, 0.0, 6.0])[
                self.trainer.global_rank
            ]  # together 6, 2, 9: the second is best
            self.log("loss", values[min(self.trainer.current_epoch, 2)])

    best, stop = ModelCheckpoint(folder, monitor="loss", filename="{epoch}"), EarlyStopping("loss", patience=1)
    trainer = trainer_of(2, max_epochs=9, enable_checkpointing=True, num_sanity_val_steps=0, callbacks=[best, stop])
    trainer.fit(Watched(), DataLoader(Squares(8), 2), DataLoader(Squares(4), 2))
    return trainer.current_epoch, best.best_model_path, float(trainer.callback_metrics["loss"])


def test_those_that_watch_a_metric_decide_alike_in_real_processes(tmp_path: Any) -> None:
    first, second = run(2, followed, str(tmp_path))
    assert first == second
    assert first[0] == 3
    assert first[1].endswith("epoch=1.ckpt")


def missing_key() -> None:
    def logs(module: Any, batch: Any, batch_idx: int) -> None:
        if module.trainer.global_rank == 0:
            module.log("alone", 1.0)

    trainer_of(2, max_epochs=1).fit(Trained(logs), DataLoader(Squares(8), 2))


def missing_key_is_refused() -> str:
    with pytest.raises(MisconfigurationException) as raised:
        missing_key()
    return str(raised.value)


def test_name_logged_on_one_process_only_ends_real_processes_without_a_hang() -> None:
    for message in run(2, missing_key_is_refused):
        assert "'alone'" in message
        assert "on rank 0" in message
        assert "not on rank 1" in message
