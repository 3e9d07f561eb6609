"""What the tests of evaluation run in each process, and compare with one process."""

from __future__ import annotations

import math
from typing import Any

import torch
import torchmetrics
from torch.utils.data import DataLoader, Dataset

from fulmen import LightningModule, Trainer


class Squares(Dataset[Any]):
    def __init__(self, size: int) -> None:
        self.size = size

    def __len__(self) -> int:
        return self.size

    def __getitem__(self, index: int) -> Any:
        return torch.tensor(float(index * index))


class Evaluated(LightningModule):
    """Logs in every way whose value must be that of one process."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = torch.nn.Linear(1, 1)
        self.mean_metric, self.all_seen = torchmetrics.MeanMetric(), torchmetrics.CatMetric()

    def validation_step(self, batch: Any, batch_idx: int, dataloader_idx: int = 0) -> None:
        self.log("mean", batch.mean())
        self.log("sum", batch.sum(), reduce_fx="sum")
        self.log("min", batch.min(), reduce_fx="min")
        self.log("max", batch.max(), reduce_fx="max")
        self.mean_metric.update(batch)
        self.log("metric", self.mean_metric)
        self.all_seen.update(batch)

    test_step = validation_step

    def on_validation_epoch_end(self) -> None:
        self.log("number", float(torch.as_tensor(self.all_seen.compute()).numel()))
        self.all_seen.reset()

    on_test_epoch_end = on_validation_epoch_end

    def predict_step(self, batch: Any, batch_idx: int, dataloader_idx: int = 0) -> Any:
        return batch + 1


def trainer_of(world: int, **arguments: Any) -> Trainer:
    quiet = dict(logger=False, enable_checkpointing=False, enable_progress_bar=False, enable_model_summary=False)
    arguments = {"devices": world, "accelerator": "cpu", **quiet, **arguments}
    if "strategy" in arguments:
        arguments.pop("devices")
    return Trainer(**arguments)


def results_of(trainer: Trainer, size: int, batch_size: int) -> dict[str, Any]:
    module = Evaluated()
    data = DataLoader(Squares(size), batch_size)
    validated = trainer.validate(module, data, verbose=False)
    tested = trainer.test(module, data, verbose=False)
    read = {name: float(value) for name, value in trainer.callback_metrics.items()}
    predicted = trainer.predict(module, data)
    assert predicted is not None
    return {
        "validate": validated,
        "test": tested,
        "predict": [batch.tolist() for batch in predicted],
        "callback_metrics": read,
    }


def expected_of(size: int, batch_size: int) -> dict[str, Any]:
    """The same by arithmetic."""
    values = [float(index * index) for index in range(size)]
    logged = {
        "mean": sum(values) / size,
        "sum": sum(values),
        "min": min(values),
        "max": max(values),
        "metric": sum(values) / size,
        "number": float(size),
    }
    batches = [values[start : start + batch_size] for start in range(0, size, batch_size)]
    return {
        "validate": [logged],
        "test": [logged],
        "predict": [[value + 1 for value in batch] for batch in batches],
        "callback_metrics": logged,
    }


def are_close(one: Any, other: Any) -> bool:
    if isinstance(one, dict):
        return one.keys() == other.keys() and all(are_close(one[name], other[name]) for name in one)
    if isinstance(one, list):
        return len(one) == len(other) and all(map(are_close, one, other))
    return math.isclose(one, other, rel_tol=1e-6)


def matrix(world: int, sizes: list[int], batch_sizes: list[int]) -> list[Any]:
    """To be run in each of ``world`` processes: what differs from arithmetic."""
    wrong = []
    for size in sizes:
        for batch_size in batch_sizes:
            found, expected = results_of(trainer_of(world), size, batch_size), expected_of(size, batch_size)
            if not are_close(found, expected):
                wrong.append((size, batch_size, found, expected))
    return wrong
