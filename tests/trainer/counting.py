"""A module that counts what happens to it."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn
from torch.utils.data import DataLoader

from fulmen import LightningModule

DATA = torch.arange(20.0).view(20, 1)


def batches(number: int = 5, **arguments: Any) -> DataLoader[Any]:
    """So many batches of two samples."""
    return DataLoader(DATA[: 2 * number], **{"batch_size": 2, **arguments})


class Trains(LightningModule):
    """Trains one weight; `trained` holds `(epoch, batch_idx)` of each batch, `numbers` the data."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(1, 1)
        self.trained: list[tuple[int, int]] = []
        self.numbers: list[list[float]] = []

    def training_step(self, batch: Any, batch_idx: int) -> Any:
        self.trained.append((self.current_epoch, batch_idx))
        self.numbers.append(batch.flatten().tolist())
        return self.layer(batch / 20).square().mean()

    def configure_optimizers(self) -> Any:
        return torch.optim.SGD(self.parameters(), lr=0.01)


class Validates(Trains):
    """Validates too; `validated` holds for each validation the number of training batches before it, and `checked` the
    data of all validation batches."""

    def __init__(self) -> None:
        super().__init__()
        self.validated: list[int] = []
        self.checked: list[list[float]] = []

    def on_validation_start(self) -> None:
        if not self.trainer.sanity_checking:
            self.validated.append(len(self.trained))

    def validation_step(self, batch: Any, batch_idx: int) -> Any:
        self.checked.append(batch.flatten().tolist())
        self.log("val", batch.mean())
