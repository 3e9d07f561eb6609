"""The small model and the loop written by hand that Fulmen is measured against."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader

from fulmen import LightningModule, Trainer


class Toy(LightningModule):
    """Three layers; logs nothing."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.Sequential(nn.Linear(4, 4), nn.ReLU(), nn.Linear(4, 1))

    def forward(self, x: Tensor) -> Tensor:
        return self.layers(x)

    def training_step(self, batch: Tensor, batch_idx: int) -> Tensor:
        return self(batch).square().mean()

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.SGD(self.parameters(), lr=0.01)


def loader(batches: int) -> DataLoader:
    return DataLoader(torch.ones(batches * 2, 4), batch_size=2)  # type: ignore[arg-type]


def quiet_trainer(**arguments: Any) -> Trainer:
    """A Trainer for one epoch that writes and prints nothing, unless ``arguments`` say otherwise."""
    quiet = {
        "max_epochs": 1,
        "accelerator": "cpu",
        "logger": False,
        "enable_checkpointing": False,
        "enable_progress_bar": False,
        "enable_model_summary": False,
    }
    return Trainer(**(quiet | arguments))


def plain_loop(module: Toy, batches: DataLoader) -> None:
    """What the Trainer does, as one would write it for this one model."""
    optimizer = module.configure_optimizers()
    module.train()
    for batch_idx, batch in enumerate(batches):
        loss = module.training_step(batch, batch_idx)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
