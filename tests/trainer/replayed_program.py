"""A program that trains, for the tests to repeat: ``python replayed_program.py DIRECTORY [fault] [options]``."""

from __future__ import annotations

import argparse
import os
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset

from fulmen import Callback, LightningModule, Trainer, seed_everything
from fulmen.callbacks import ModelCheckpoint, NonFiniteGuard, OnExceptionCheckpoint
from fulmen.loggers import CSVLogger

BAD = 21  # the sample that is wrong
SAMPLES, BATCH = 24, 3


class Numbers(Dataset):
    """Random numbers that are new in every epoch."""

    def __len__(self) -> int:
        return SAMPLES

    def __getitem__(self, index: int) -> tuple[int, Tensor]:
        return index, torch.rand(4) + index * 0.01


class Model(LightningModule):
    """Dropout and momentum, and from epoch 1 on something wrong with one sample."""

    def __init__(self, fault: str) -> None:
        super().__init__()
        self.fault = fault
        self.automatic_optimization = fault != "manual"
        self.net = nn.Sequential(nn.Linear(4, 6), nn.Dropout(0.2), nn.Tanh(), nn.Linear(6, 2))

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        indices, x = batch
        spoilt = (indices == BAD) & (self.current_epoch > 0)
        y = self.net(x).square().sum(dim=1) + 0.1
        if self.fault == "forward":
            y = torch.log(torch.where(spoilt, -y, y))  # the mistake in the forward
        elif self.fault in ("backward", "manual"):
            y = torch.where(spoilt, y * 0, y).sqrt()  # the mistake in the backward
        loss = y.mean()
        self.log("loss", loss)
        if not self.automatic_optimization:
            for optimizer in self.optimizers():
                optimizer.zero_grad()
                self.manual_backward(
                    self.net(x).square().mean() if optimizer is self.optimizers()[0] else self.again(x)
                )
                optimizer.step()
        return loss

    def again(self, x: Tensor) -> Tensor:
        spoilt = self.global_step == 21
        return (self.net(x).square().sum() * (0 if spoilt else 1)).sqrt()

    def validation_step(self, batch: Any, batch_idx: int) -> None:
        self.log("val_loss", self.net(batch[1]).square().mean())

    def configure_optimizers(self) -> Any:
        if not self.automatic_optimization:
            return [torch.optim.SGD(layer.parameters(), lr=0.1, momentum=0.9) for layer in (self.net[0], self.net[3])]
        return torch.optim.Adam(self.parameters(), lr=float(os.environ.get("RATE", "0.02")))


class Writes(Callback):
    """What users' callbacks do: write checkpoints of their own, files beside the logger's, a note when all fails."""

    def __init__(self, folder: str) -> None:
        self.folder = folder

    def on_train_batch_end(self, trainer: Trainer, *args: Any) -> None:
        if trainer.global_step % 7 == 0:
            trainer.save_checkpoint(os.path.join(self.folder, "own.ckpt"))
        with open(os.path.join(str(trainer.log_dir), "own.txt"), "a") as file:
            file.write(f"{trainer.global_step}\n")

    def on_exception(self, trainer: Trainer, *args: Any) -> None:
        os.makedirs(self.folder, exist_ok=True)
        Path(self.folder, "failed.txt").write_text("failed")


def parse(argv: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser()
    parser.add_argument("directory")
    parser.add_argument("fault", nargs="?", default="nothing")
    parser.add_argument("--action", default="stop")
    parser.add_argument("--every", type=int, default=4, help="steps between checkpoints")
    parser.add_argument("--keep", type=int, default=-1, help="checkpoints to keep")
    parser.add_argument("--link", action="store_true", help="make the last one a link")
    parser.add_argument("--accumulate", type=int, default=1)
    parser.add_argument("--no-seed", action="store_true")
    parser.add_argument("--fits", type=int, default=1)
    return parser.parse_args(argv)


def make_trainer(options: argparse.Namespace) -> Trainer:
    folder = os.path.join(options.directory, "checkpoints")
    return Trainer(
        max_epochs=3,
        accelerator="cpu",
        logger=CSVLogger(options.directory, name=None, version=""),
        callbacks=[
            NonFiniteGuard(options.action),
            ModelCheckpoint(
                folder,
                every_n_train_steps=options.every,
                save_top_k=options.keep,
                save_last="link" if options.link else True,
            ),
            ModelCheckpoint(
                folder + "/weights", monitor="step", mode="max", every_n_train_steps=1, save_weights_only=True
            ),
            OnExceptionCheckpoint(folder),
            Writes(folder),
        ],
        accumulate_grad_batches=options.accumulate,
        enable_progress_bar=False,
        enable_model_summary=False,
        log_every_n_steps=1,
    )


def fit(trainer: Trainer, model: Model) -> None:
    trainer.fit(model, DataLoader(Numbers(), batch_size=BATCH, shuffle=True), DataLoader(Numbers(), batch_size=8))


if __name__ == "__main__":
    options = parse()
    if not options.no_seed:
        seed_everything(1, verbose=False)
    for _ in range(options.fits):
        fit(make_trainer(options), Model(options.fault))
