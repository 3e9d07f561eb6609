"""A training whose monitored values are known beforehand, and what it leaves on the disk."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.utils.data import DataLoader

from fulmen import Trainer
from fulmen.callbacks.model_checkpoint import ModelCheckpoint
from fulmen.demos.boring_classes import BoringModel, RandomDataset


class Scored(BoringModel):
    """Logs the given values as ``v``, one per validation."""

    def __init__(self, values: Sequence[float], num_batches: int = 3) -> None:
        super().__init__()
        self.values = list(values)
        self.num_batches = num_batches

    def train_dataloader(self) -> DataLoader:
        return DataLoader(RandomDataset(32, self.num_batches))

    def val_dataloader(self) -> DataLoader:
        return DataLoader(RandomDataset(32, 1))

    def validation_step(self, batch: Any, batch_idx: int) -> None:
        """The value does not depend on the data."""

    def on_validation_epoch_end(self) -> None:
        if not self.trainer.sanity_checking:
            self.log("v", self.values.pop(0))


@pytest.fixture
def scored() -> type[Scored]:
    return Scored


@pytest.fixture
def fit() -> Callable[..., Trainer]:
    """Train four epochs of three batches, with the values 3, 1, 2, 4 unless others are given."""

    def fit(
        *callbacks: Any,
        model: Any = None,
        values: Sequence[float] = (3.0, 1.0, 2.0, 4.0),
        ckpt_path: str | None = None,
        **arguments: Any,
    ) -> Trainer:
        options = {
            "accelerator": "cpu",
            "max_epochs": 4,
            "logger": False,
            "enable_progress_bar": False,
            "enable_model_summary": False,
            "num_sanity_val_steps": 0,
            **arguments,
        }
        trainer = Trainer(callbacks=list(callbacks), **options)
        trainer.fit(Scored(values) if model is None else model, ckpt_path=ckpt_path)
        return trainer

    return fit


@pytest.fixture
def policy(tmp_path: Path) -> Callable[..., ModelCheckpoint]:
    """A ModelCheckpoint that writes to ``tmp_path / "checkpoints"``."""

    def policy(**arguments: Any) -> ModelCheckpoint:
        return ModelCheckpoint(**{"dirpath": tmp_path / "checkpoints", **arguments})

    return policy


@pytest.fixture
def left(tmp_path: Path) -> Callable[..., dict[str, Any]]:
    """What is in a folder: for each file the epochs and steps that it holds, for a link the name that it points to."""

    def left(folder: Path = tmp_path / "checkpoints") -> dict[str, Any]:
        found: dict[str, Any] = {}
        for path in sorted(folder.rglob("*.ckpt")) if folder.exists() else []:
            name = str(path.relative_to(folder)).removesuffix(".ckpt")
            if path.is_symlink():
                found[name] = os.readlink(path)
            else:
                content = torch.load(path, weights_only=True)
                found[name] = (content["epoch"], content["global_step"])
        return dict(sorted(found.items()))

    return left
