"""What the searches of the tests train; a process finds it by its name, as this folder is on its path."""

from __future__ import annotations

import os
import time
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader

from fulmen import LightningModule


class Bowl(LightningModule):
    """Logs ``score``, which is best where ``x`` is 3, and falls a little with each epoch.

    Args:
        x: where.
        kind: ``"raises"`` fails, ``"crashes"`` ends the process, ``"nan"`` logs NaN.
        wait: in the second epoch, until this file is there.
    """

    def __init__(self, x: float = 0.0, kind: str = "plain", wait: str | None = None) -> None:
        super().__init__()
        self.x, self.kind, self.wait = x, kind, wait
        self.layer = nn.Linear(1, 1)

    def train_dataloader(self) -> DataLoader:
        return DataLoader(torch.ones(2, 1))

    def on_train_epoch_start(self) -> None:
        with Path(self.trainer.default_root_dir, "epochs.txt").open("a") as file:
            print(self.current_epoch, file=file)
        if self.kind == "raises":
            raise ValueError(f"there is no way at {self.x}")
        if self.kind == "crashes":
            os.abort()
        if self.wait is not None and self.current_epoch == 1:
            Path(self.trainer.default_root_dir, "waits").touch()
            while not Path(self.wait).exists():
                time.sleep(0.02)

    def training_step(self, batch: Tensor, batch_idx: int) -> Tensor:
        score = (self.x - 3) ** 2 + 1 / (1 + self.current_epoch)
        self.log("score", float("nan") if self.kind == "nan" else score, on_step=False, on_epoch=True)
        return self.layer(batch).mean()

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.SGD(self.parameters(), lr=0.01)
