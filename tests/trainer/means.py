"""A module that logs what a test says, over eleven numbers in three batches, and a reader of what came of it."""

from __future__ import annotations

import csv
from pathlib import Path

import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from fulmen import LightningModule


class Mean(LightningModule):
    """Logs the mean of each batch; does whatever `logs` says beyond that.

    Args:
        logs: called as `logs(module, value, batch_idx)` in each step.
        stages: which of "train", "validate" and "test" it is called in.
    """

    def __init__(self, logs=None, stages=("train", "validate", "test")):
        super().__init__()
        self.layer = nn.Linear(1, 1)
        self.logs, self.stages = logs, stages

    def value(self, batch):
        return batch.mean()

    def _step(self, stage, batch, batch_idx):
        if self.logs is not None and stage in self.stages:
            self.logs(self, self.value(batch), batch_idx)

    def training_step(self, batch, batch_idx):
        self._step("train", batch, batch_idx)
        return self.layer.weight.sum() * 0.1

    def validation_step(self, batch, batch_idx, dataloader_idx=0):
        self._step("validate", batch, batch_idx)

    def test_step(self, batch, batch_idx, dataloader_idx=0):
        self._step("test", batch, batch_idx)

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=0.1)


VALUES = torch.tensor([3.0, -1.0, 4.0, 1.0, -5.0, 9.0, 2.0, 6.0, 5.0, 3.0, 5.0])
BATCHES = [VALUES[:4], VALUES[4:8], VALUES[8:]]
MEANS = [float(batch.mean()) for batch in BATCHES]
BY_SAMPLE = sum(mean * len(batch) for mean, batch in zip(MEANS, BATCHES)) / len(VALUES)


class Vector(TensorDataset):
    """Numbers, one by one."""

    def __getitem__(self, index):
        return self.tensors[0][index]


def values(**arguments):
    return DataLoader(Vector(VALUES), **{"batch_size": 4, **arguments})


def rows(directory: Path) -> list[dict[str, float]]:
    """The rows of the only CSV file under `directory`; empty cells left out."""
    (path,) = directory.rglob("metrics.csv")
    with open(path) as file:
        return [{name: float(value) for name, value in row.items() if value} for row in csv.DictReader(file)]


def with_name(found: list[dict[str, float]], name: str) -> list[dict[str, float]]:
    return [row for row in found if name in row]
