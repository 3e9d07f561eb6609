"""A run that turns NaN, to see how it is found: see docs/replay.md.

    python examples/turns_nan.py
    fulmen replay turns_nan_runs/version_0

A small network learns to say how far two points are apart. Its loss has a mistake that is often made: the derivative of
``sqrt`` is infinite at zero, and one of the 2000 pairs is a point beside itself. Mostly dropout hides it, since it
disturbs the two points differently. When it happens to disturb them alike, the loss is finite and the gradient is NaN:
after that step the whole network is.
"""

from __future__ import annotations

import argparse

import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

from fulmen import LightningModule, Trainer, seed_everything
from fulmen.callbacks import ModelCheckpoint, NonFiniteGuard
from fulmen.loggers import CSVLogger

PAIRS, SAME = 2000, 1234  # pairs, and the one whose points are the same


def pairs_of_points() -> TensorDataset:
    """Pairs of points in the unit square: four numbers each."""
    generator = torch.Generator().manual_seed(0)
    pairs = torch.rand(PAIRS, 4, generator=generator)
    pairs[SAME, 2:] = pairs[SAME, :2]
    return TensorDataset(pairs)


class Distance(LightningModule):
    """Puts two points into a space of its own, in which they are as far apart as in the plane."""

    def __init__(self, width: int = 8) -> None:
        super().__init__()
        self.place = nn.Sequential(nn.Linear(2, width), nn.Tanh(), nn.Dropout(0.1), nn.Linear(width, 8))

    def forward(self, pairs: Tensor) -> Tensor:
        here, there = self.place(pairs[:, :2]), self.place(pairs[:, 2:])
        return (here - there).square().sum(dim=1).sqrt()

    def training_step(self, batch: list[Tensor], batch_idx: int) -> Tensor:
        [pairs] = batch
        loss = (self(pairs) - distance(pairs)).square().mean()
        self.log("loss", loss)
        return loss

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.Adam(self.parameters(), lr=1e-2)


def distance(pairs: Tensor) -> Tensor:
    """The distances in the plane."""
    return (pairs[:, :2] - pairs[:, 2:]).norm(dim=1)


def main(argv: list[str] | None = None) -> None:
    """Train as the command line says."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0] if __doc__ else None)
    parser.add_argument("--action", default="stop", choices=["stop", "skip", "rollback"], help="what the guard does")
    parser.add_argument("--epochs", type=int, default=20, help="passes over the pairs")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--dir", default="turns_nan_runs", help="the folder for metrics and checkpoints")
    arguments = parser.parse_args(argv)
    seed_everything(arguments.seed)
    trainer = Trainer(
        max_epochs=arguments.epochs,
        accelerator="cpu",
        logger=CSVLogger(arguments.dir, name=None),
        callbacks=[
            NonFiniteGuard(arguments.action),
            ModelCheckpoint(every_n_train_steps=20, save_top_k=-1),
        ],
        log_every_n_steps=10,
    )
    trainer.fit(Distance(), DataLoader(pairs_of_points(), batch_size=25, shuffle=True))


if __name__ == "__main__":
    main()
