"""A job of two processes that is meant to be killed and started again: ``python killed_job.py FOLDER [STRATEGY]``."""

from __future__ import annotations

import sys
import time
from typing import Any

import torch
from torch import nn
from torch.utils.data import DataLoader, Dataset

from fulmen import LightningModule, Trainer, seed_everything
from fulmen.callbacks import ModelCheckpoint
from fulmen.loggers import CSVLogger


class Points(Dataset[Any]):
    """Thirty-five points with random noise, which is drawn anew each time."""

    def __len__(self) -> int:
        return 35

    def __getitem__(self, index: int) -> tuple[torch.Tensor, torch.Tensor]:
        point = torch.full((4,), index / 35) + 0.1 * torch.randn(4)
        return point, point.sum(0, keepdim=True)


class Net(LightningModule):
    """A small net with dropout."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.Sequential(nn.Linear(4, 16), nn.Dropout(0.2), nn.ReLU(), nn.Linear(16, 1))

    def training_step(self, batch: Any, batch_idx: int) -> torch.Tensor:
        time.sleep(0.03)  # so that there is something to kill
        loss = nn.functional.mse_loss(self.layers(batch[0]), batch[1])
        self.log("loss", loss, on_step=True, on_epoch=True)
        return loss

    def validation_step(self, batch: Any, batch_idx: int) -> None:
        self.log("val_loss", nn.functional.mse_loss(self.layers(batch[0]), batch[1]))

    def configure_optimizers(self) -> Any:
        optimizer = torch.optim.AdamW(self.parameters(), lr=0.01)
        return [optimizer], [{"scheduler": torch.optim.lr_scheduler.StepLR(optimizer, 5), "interval": "step"}]


def main(folder: str, strategy: str) -> None:
    """Train, or go on training, and leave the weights in ``folder``."""
    seed_everything(3, verbose=False)
    module = Net()
    trainer = Trainer(
        accelerator="cpu",
        devices=2,
        strategy=strategy,
        max_epochs=4,
        accumulate_grad_batches=2,
        log_every_n_steps=1,
        num_sanity_val_steps=0,
        default_root_dir=folder,
        logger=CSVLogger(folder, name="logs"),
        callbacks=[ModelCheckpoint(monitor="val_loss", save_last=True, every_n_train_steps=1)],
        enable_progress_bar=False,
        enable_model_summary=False,
    )
    trainer.fit(module, DataLoader(Points(), 3, shuffle=True), DataLoader(Points(), 4), ckpt_path="auto")
    weights = trainer.strategy.lightning_module_state_dict(module)
    if trainer.is_global_zero:
        torch.save(weights, f"{folder}/weights.pt")


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2] if len(sys.argv) > 2 else "ddp")
