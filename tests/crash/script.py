"""A training script that goes on where it was killed: started by the same command again and again, it finishes its run.

python tests/crash/script.py --root runs --workers 2 --background
"""

from __future__ import annotations

import argparse
import json
import random
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torchmetrics
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset

from fulmen import Callback, LightningModule, Trainer, seed_everything
from fulmen.callbacks import EarlyStopping, LearningRateMonitor, ModelCheckpoint
from fulmen.loggers import CSVLogger
from fulmen.plugins.io import AsyncCheckpointIO


class Augmented(Dataset):
    """Samples with noise from all three generators, and a class."""

    def __init__(self, samples: int) -> None:
        self.samples = samples

    def __len__(self) -> int:
        return self.samples

    def __getitem__(self, index: int) -> tuple[int, Tensor, int]:
        noise = torch.rand(4) + random.random() + np.random.rand()
        return index, torch.full((4,), float(index)) * 0.1 + noise, index % 3


class Model(LightningModule):
    def __init__(self, width: int = 8, lr: float = 0.02) -> None:
        super().__init__()
        self.save_hyperparameters()
        self.net = nn.Sequential(nn.Linear(4, width), nn.BatchNorm1d(width), nn.Dropout(0.3), nn.Linear(width, 3))
        self.accuracy = torchmetrics.classification.MulticlassAccuracy(3, average="micro")
        self.median = torchmetrics.CatMetric()

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        _, x, y = batch
        scores = self.net(x)
        loss = nn.functional.cross_entropy(scores, y)
        self.accuracy(scores, y)
        self.median.update(loss.detach())
        self.log("accuracy", self.accuracy, on_step=True, on_epoch=True)
        self.log("loss", loss, on_step=True, on_epoch=True)
        return loss

    def on_train_epoch_end(self) -> None:
        self.log("median_loss", self.median.compute().median())
        self.median.reset()

    def validation_step(self, batch: Any, batch_idx: int) -> None:
        _, x, y = batch
        self.log("val_loss", nn.functional.cross_entropy(self.net(x), y))

    def configure_optimizers(self) -> Any:
        optimizer = torch.optim.Adam(self.parameters(), self.hparams["lr"])
        per_step = torch.optim.lr_scheduler.StepLR(optimizer, 3, 0.9)
        plateau = torch.optim.lr_scheduler.ReduceLROnPlateau(optimizer, patience=0)
        return [optimizer], [
            {"scheduler": per_step, "interval": "step"},
            {"scheduler": plateau, "interval": "epoch", "monitor": "val_loss"},
        ]


class SampleIds(Callback):
    """Writes down which samples each batch had. What it knows is in the checkpoint, so the list is whole in the end."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.seen: list[list[int]] = []

    def on_train_batch_end(self, trainer: Trainer, module: Any, outputs: Any, batch: Any, batch_idx: int) -> None:
        self.seen.append(batch[0].tolist())

    def on_train_end(self, trainer: Trainer, module: Any) -> None:
        self.path.write_text(json.dumps(self.seen))

    def state_dict(self) -> dict[str, Any]:
        return {"seen": self.seen}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.seen = state["seen"]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--root", type=Path, required=True, help="where everything is written")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--epochs", type=int, default=4)
    parser.add_argument("--workers", type=int, default=0, help="processes that load the data")
    parser.add_argument("--background", action="store_true", help="write checkpoints while training goes on")
    arguments = parser.parse_args()

    seed_everything(arguments.seed)
    train = DataLoader(Augmented(23), 3, shuffle=True, num_workers=arguments.workers)
    validation = DataLoader(Augmented(4), 2)
    trainer = Trainer(
        default_root_dir=arguments.root,
        accelerator="cpu",
        max_epochs=arguments.epochs,
        accumulate_grad_batches=3,
        val_check_interval=4,
        log_every_n_steps=2,
        enable_progress_bar=False,
        logger=CSVLogger(arguments.root, flush_logs_every_n_steps=3),
        plugins=[AsyncCheckpointIO()] if arguments.background else None,
        callbacks=[
            SampleIds(arguments.root / "samples.json"),
            EarlyStopping("val_loss", patience=100),
            LearningRateMonitor(),
            ModelCheckpoint(
                filename="{step}-{val_loss:.3f}",
                monitor="val_loss",
                every_n_train_steps=2,
                save_top_k=2,
                save_last=True,
            ),
            ModelCheckpoint(filename="{epoch}", every_n_epochs=1, save_on_train_epoch_end=True),
        ],
    )
    trainer.fit(Model(), train, validation, ckpt_path="auto")


if __name__ == "__main__":
    main()
