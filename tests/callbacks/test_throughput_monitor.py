"""ThroughputMonitor: exact counts and rates, over accumulation, validation, resumed runs and several processes."""

from __future__ import annotations

import contextlib
import logging
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch.utils.data import DataLoader

from fulmen.callbacks import ThroughputMonitor, throughput_monitor
from fulmen.demos.boring_classes import BoringModel
from fulmen.loggers.csv_logs import CSVLogger
from fulmen.utilities.exceptions import MisconfigurationException


class Rows(CSVLogger):
    """Remembers what it is given."""

    def __init__(self, folder: Any) -> None:
        super().__init__(folder)
        self.rows: list[tuple[Any, dict[str, float]]] = []

    def log_metrics(self, metrics: Any, step: int | None = None) -> None:
        self.rows.append((step, dict(metrics)))

    def of(self, stage: str) -> list[tuple[Any, dict[str, float]]]:
        """The rows of a stage, without its name."""
        return [
            (step, {name.removeprefix(f"{stage}/"): value for name, value in row.items()})
            for step, row in self.rows
            if f"{stage}/time" in row
        ]


class Clock:
    """A clock that moves on by hand."""

    def __init__(self) -> None:
        self.now = 50.0

    def perf_counter(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(throughput_monitor, "time", SimpleNamespace(perf_counter=clock.perf_counter))
    return clock


class Slow(BoringModel):
    """Two seconds a training batch, ten a batch of evaluation; 100 operations a batch."""

    flops_per_batch = 100

    def __init__(self, clock: Clock) -> None:
        super().__init__()
        self.clock = clock

    def training_step(self, batch: Any, batch_idx: int) -> Any:
        self.clock.now += 2
        return super().training_step(batch, batch_idx)

    def validation_step(self, batch: Any, batch_idx: int) -> None:
        self.clock.now += 10

    test_step = validation_step

    def predict_step(self, batch: Any, batch_idx: int) -> Any:
        self.clock.now += 10
        return batch


def data(samples: int = 11, batch_size: int = 2) -> DataLoader:
    return DataLoader(torch.ones(samples, 32), batch_size)  # type: ignore[arg-type]


def monitor(**arguments: Any) -> ThroughputMonitor:
    return ThroughputMonitor(**{"batch_size_fn": len, "length_fn": torch.numel, "window_size": 2, **arguments})


def test_training_is_counted_in_batches_and_logged_at_steps(clock, trainer_of, tmp_path):
    logger = Rows(tmp_path)
    trainer = trainer_of(
        max_epochs=1,
        accumulate_grad_batches=4,
        log_every_n_steps=1,
        logger=logger,
        callbacks=monitor(available_flops=200),
    )
    trainer.fit(Slow(clock), data())
    rates = {"device/batches_per_sec": 0.5, "device/flops_per_sec": 50.0, "device/mfu": 0.25}
    assert logger.of("train") == [
        (
            0,
            {
                "time": 8.0,
                "batches": 4,
                "samples": 8,
                "lengths": 256,
                "device/samples_per_sec": 1.0,
                "device/items_per_sec": 32.0,
                "epoch": 0,
                **rates,
            },
        ),
        (
            1,
            {  # the last batch has one sample
                "time": 12.0,
                "batches": 6,
                "samples": 11,
                "lengths": 352,
                "device/samples_per_sec": 0.5,
                "device/items_per_sec": 16.0,
                "epoch": 0,
                **rates,
            },
        ),
    ]


def test_time_of_training_is_without_validation(clock, trainer_of, tmp_path):
    logger = Rows(tmp_path)
    trainer = trainer_of(
        max_epochs=2, val_check_interval=2, log_every_n_steps=1, logger=logger, callbacks=monitor(length_fn=None)
    )
    trainer.fit(Slow(clock), data(8), data(6))
    rows = logger.of("train")
    assert [row["time"] for _, row in rows] == [2.0, 4.0, 6.0, 8.0, 10.0, 12.0, 14.0, 16.0]
    assert {row["device/batches_per_sec"] for _, row in rows[1:]} == {0.5}
    assert all("lengths" not in row and "device/items_per_sec" not in row for _, row in rows)


def test_validations_of_a_fit_add_up_and_the_sanity_check_does_not_count(clock, trainer_of, tmp_path):
    logger = Rows(tmp_path)
    trainer = trainer_of(
        max_epochs=2, num_sanity_val_steps=2, log_every_n_steps=2, logger=logger, callbacks=monitor(separator="|")
    )
    trainer.fit(Slow(clock), data(4), data(6))
    rows = [(step, row) for step, row in logger.rows if "validate|time" in row]
    assert [(step, row["validate|time"], row["validate|samples"]) for step, row in rows] == [
        (2, 20.0, 4),  # the second batch, and the end
        (3, 30.0, 6),
        (5, 50.0, 10),
        (6, 60.0, 12),
    ]
    assert rows[0][1]["validate|device|samples_per_sec"] == 0.2
    # what the module tells is of forward and backward
    assert not [name for _, row in logger.rows for name in row if "flops" in name and "validate" in name]


@pytest.mark.parametrize(("verb", "stage"), [("validate", "validate"), ("test", "test"), ("predict", "predict")])
def test_other_verbs_count_from_zero_each_time(verb, stage, clock, trainer_of, tmp_path):
    logger = Rows(tmp_path)
    trainer = trainer_of(log_every_n_steps=50, logger=logger, callbacks=monitor())
    for _ in range(2):
        getattr(trainer, verb)(Slow(clock), data(7))
    assert [(step, row["time"], row["batches"], row["samples"]) for step, row in logger.of(stage)] == [
        (4, 40.0, 4, 7),
        (4, 40.0, 4, 7),
    ]


class Stopping(Slow):
    """Saves itself at one moment, and ends the run."""

    def __init__(self, clock: Clock, hook: str, batch: int, path: Any) -> None:
        super().__init__(clock)
        self.moment, self.path = (hook, batch), path

    def _look(self, hook: str) -> None:
        if self.moment == (hook, self.trainer.progress.total_batches):
            self.trainer.save_checkpoint(self.path)
            raise KeyError(hook)

    def on_train_batch_end(self, outputs: Any, batch: Any, batch_idx: int) -> None:
        self._look("batch")

    def on_validation_batch_end(self, outputs: Any, batch: Any, batch_idx: int) -> None:
        if batch_idx == 1 and not self.trainer.sanity_checking:
            self._look("validation")

    def on_validation_end(self) -> None:
        if not self.trainer.sanity_checking:
            self._look("end of validation")


@pytest.mark.parametrize(
    ("hook", "batch"),
    [*(("batch", batch) for batch in range(1, 13)), ("validation", 8), ("end of validation", 2)],
)
def test_resumed_run_goes_on_with_the_counts_of_the_one_before(hook, batch, clock, trainer_of, tmp_path):
    def trained(model: Any, **arguments: Any) -> Rows:
        logger = Rows(tmp_path)
        trainer = trainer_of(
            max_epochs=2,
            val_check_interval=2,
            accumulate_grad_batches=4,
            log_every_n_steps=1,
            logger=logger,
            callbacks=monitor(),
        )
        with contextlib.suppress(KeyError):
            trainer.fit(model, data(), data(5), **arguments)
        return logger

    def totals(logger: Rows, stage: str) -> list[Any]:
        return [{name: row[name] for name in row if "device" not in name} for _, row in logger.of(stage)]

    path = tmp_path / "saved.ckpt"
    whole = trained(Slow(clock))
    first = trained(Stopping(clock, hook, batch, path))
    clock.now += 1000
    second = trained(Slow(clock), ckpt_path=path)

    assert totals(first, "train") + totals(second, "train") == totals(whole, "train")
    validated, again = totals(whole, "validate"), totals(second, "validate")
    assert validated[-1]["samples"] == 30  # six times five
    assert again == validated[len(validated) - len(again) :]
    assert totals(first, "validate") == validated[: len(totals(first, "validate"))]


def test_same_model_trained_further_goes_on_and_another_begins_at_zero(clock, trainer_of, tmp_path):
    logger, model = Rows(tmp_path), Slow(clock)
    callback = monitor()
    trainer = trainer_of(max_epochs=1, log_every_n_steps=1, logger=logger, callbacks=callback)
    trainer.fit(model, data(4))
    trainer.max_epochs = 2
    trainer.fit(model, data(4))
    trainer_of(max_epochs=1, log_every_n_steps=1, logger=logger, callbacks=callback).fit(Slow(clock), data(4))
    assert [(row["batches"], row["time"]) for _, row in logger.of("train")] == [
        (1, 2.0),
        (2, 4.0),
        (3, 6.0),
        (4, 8.0),
        (1, 2.0),
        (2, 4.0),
    ]


def test_cpu_has_no_mfu_and_says_so_once(clock, trainer_of, tmp_path, caplog):
    logger = Rows(tmp_path)
    trainer = trainer_of(max_epochs=1, log_every_n_steps=1, logger=logger, callbacks=monitor())
    with caplog.at_level(logging.INFO):
        trainer.fit(Slow(clock), data(8))
        trainer.test(Slow(clock), data(8))
    assert "device/flops_per_sec" in logger.of("train")[-1][1]
    assert not [name for _, row in logger.rows for name in row if "mfu" in name]
    assert [record.getMessage() for record in caplog.records].count(
        "ThroughputMonitor logs no `mfu`: the peak of a CPU device in 32-true is not known. Pass "
        "`ThroughputMonitor(available_flops=...)` to have it."
    ) == 1


def test_peak_that_is_not_used_is_warned_of(trainer_of, tmp_path):
    trainer = trainer_of(max_steps=1, logger=Rows(tmp_path), callbacks=monitor(available_flops=1e12))
    with pytest.warns(UserWarning, match="available_flops=.* is not used: BoringModel has no `flops_per_batch`"):
        trainer.fit(BoringModel())


def test_monitor_without_a_logger_is_refused(trainer_of):
    with pytest.raises(MisconfigurationException, match="ThroughputMonitor logs, but the trainer has no logger"):
        trainer_of(max_steps=1, callbacks=monitor()).fit(BoringModel())


def test_impossible_window_is_refused():
    with pytest.raises(ValueError, match="window_size=1"):
        monitor(window_size=1)
