"""What ThroughputMonitor counts on several processes: the work of all of them."""

from __future__ import annotations

from typing import Any

import torch
from tests.distributed.evaluating import trainer_of
from tests.distributed.processes import run
from torch.utils.data import DataLoader

from fulmen.callbacks import ThroughputMonitor
from fulmen.demos.boring_classes import BoringModel
from fulmen.loggers.csv_logs import CSVLogger
from fulmen.profilers import TimeProfiler


class Rows(CSVLogger):
    """Remembers what it is given."""

    def __init__(self, folder: Any) -> None:
        super().__init__(folder)
        self.rows: list[tuple[Any, dict[str, float]]] = []

    def log_metrics(self, metrics: Any, step: int | None = None) -> None:
        self.rows.append((step, dict(metrics)))


class Model(BoringModel):
    def validation_step(self, batch: Any, batch_idx: int, dataloader_idx: int = 0) -> None:
        pass


def data(samples: int) -> DataLoader:
    return DataLoader(torch.ones(samples, 32), 2)  # type: ignore[arg-type]


class Derived(ThroughputMonitor):
    """A class of the user's own."""


def trained(folder: Any, world: int, path: Any = None, epochs: int = 1, own: bool = False) -> Any:
    kind = Derived if own else ThroughputMonitor
    logger = Rows(folder)
    trainer = trainer_of(
        world,
        max_epochs=epochs,
        log_every_n_steps=1,
        logger=logger,
        profiler=TimeProfiler(dirpath=folder, filename="time"),
        callbacks=kind(len, length_fn=torch.numel, window_size=2),
    )
    trainer.fit(Model(), data(9), [data(5), data(4)], ckpt_path=path)
    if path is None:
        trainer.save_checkpoint(f"{folder}/saved.ckpt")
    return logger.rows


def counts(rows: Any, stage: str) -> list[tuple[float, ...]]:
    names = ("batches", "samples", "lengths")
    return [tuple(row[f"{stage}/{name}"] for name in names) for _, row in rows if f"{stage}/time" in row]


def test_totals_and_common_rates_are_those_of_all_processes_whatever_the_sizes(tmp_path: Any) -> None:
    rows, _ = run(2, trained, str(tmp_path), 2)  # only rank 0 writes, but all are given the rows
    # of five batches, rank 0 has three, the last of them with one sample
    assert counts(rows, "train") == [(2, 4, 128), (4, 8, 256), (5, 9, 288)]
    assert counts(rows, "validate")[-1] == (5, 9, 288)
    second = next(row for _, row in rows if row.get("train/batches") == 4)
    assert second["train/samples_per_sec"] > second["train/device/samples_per_sec"] > 0

    # each process reports its own time
    for rank in range(2):
        text = (tmp_path / f"fit-time-{rank}.txt").read_text()
        assert f"Where the time of fit went, rank {rank}\n" in text

    # one process goes on with what the two have done
    assert counts(trained(str(tmp_path), 1, f"{tmp_path}/saved.ckpt", epochs=2), "train")[0] == (6, 11, 352)


def test_class_of_the_users_own_waits_for_nobody_who_is_not_there(tmp_path: Any) -> None:
    rows, _ = run(2, trained, str(tmp_path), 2, None, 1, True)
    assert counts(rows, "train") == [(2, 4, 128), (4, 8, 256)]
