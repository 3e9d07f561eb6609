"""A program in the style of 2021, with its options by ``argparse``: see docs/argparse.md.

    python examples/argparse_2021.py --max_epochs 3
    python examples/argparse_2021.py --gpus 0 --max_epochs 3 --progress_bar_refresh_rate 0 --hidden_dim 64
    python examples/argparse_2021.py --help

It is what people wrote for Lightning 1: only the import is another. ``--gpus`` and ``--progress_bar_refresh_rate`` are
options of that time; a warning shows how they are written now.
"""

from __future__ import annotations

from argparse import ArgumentParser
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset, random_split

import fulmen as pl
from fulmen.callbacks import ModelCheckpoint
from fulmen.demos.digits import load_digits


class DigitsDataModule(pl.LightningDataModule):
    """Handwritten digits of 8x8 pixels.

    Args:
        batch_size: images per batch
        val_share: the share of the images to validate on, and as many to test on
        num_workers: processes that load images; 0 loads them in the process that trains
    """

    def __init__(self, batch_size: int = 32, val_share: float = 0.15, num_workers: int = 0) -> None:
        super().__init__()
        self.batch_size = batch_size
        self.val_share = val_share
        self.num_workers = num_workers

    def setup(self, stage: str | None = None) -> None:
        dataset = TensorDataset(*load_digits())
        held_out = int(len(dataset) * self.val_share)
        sizes = [len(dataset) - 2 * held_out, held_out, held_out]
        self.train_set, self.val_set, self.test_set = random_split(
            dataset, sizes, generator=torch.Generator().manual_seed(42)
        )

    def train_dataloader(self) -> DataLoader:
        return DataLoader(self.train_set, batch_size=self.batch_size, shuffle=True, num_workers=self.num_workers)

    def val_dataloader(self) -> DataLoader:
        return DataLoader(self.val_set, batch_size=self.batch_size, num_workers=self.num_workers)

    def test_dataloader(self) -> DataLoader:
        return DataLoader(self.test_set, batch_size=self.batch_size, num_workers=self.num_workers)


class LitClassifier(pl.LightningModule):
    """A network with one hidden layer."""

    def __init__(self, hidden_dim: int = 128, learning_rate: float = 1e-3) -> None:
        super().__init__()
        self.save_hyperparameters()
        self.l1 = nn.Linear(8 * 8, self.hparams.hidden_dim)
        self.l2 = nn.Linear(self.hparams.hidden_dim, 10)

    @staticmethod
    def add_model_specific_args(parent_parser: ArgumentParser) -> ArgumentParser:
        parser = parent_parser.add_argument_group("LitClassifier")
        parser.add_argument("--hidden_dim", type=int, default=128, help="units of the hidden layer (default: 128)")
        parser.add_argument("--learning_rate", type=float, default=1e-3, help="of Adam (default: 0.001)")
        return parent_parser

    def forward(self, x: Tensor) -> Tensor:
        x = x.view(x.size(0), -1)
        return self.l2(torch.relu(self.l1(x)))

    def training_step(self, batch: list[Tensor], batch_idx: int) -> Tensor:
        x, y = batch
        loss = F.cross_entropy(self(x), y)
        self.log("train_loss", loss)
        return loss

    def validation_step(self, batch: list[Tensor], batch_idx: int) -> None:
        x, y = batch
        self.log("val_acc", (self(x).argmax(dim=1) == y).float().mean(), prog_bar=True)

    def test_step(self, batch: list[Tensor], batch_idx: int) -> None:
        x, y = batch
        self.log("test_acc", (self(x).argmax(dim=1) == y).float().mean())

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.Adam(self.parameters(), lr=self.hparams.learning_rate)


def cli_main(argv: Sequence[str] | None = None) -> float:
    """Train and test; ``argv`` in place of the command line. Returns the accuracy on the test images."""
    # ------------
    # args
    # ------------
    parser = ArgumentParser(description="Train a small network on handwritten digits.")
    parser.add_argument("--seed", type=int, default=1234, help="of all random numbers (default: 1234)")
    parser = DigitsDataModule.add_argparse_args(parser)
    parser = LitClassifier.add_model_specific_args(parser)
    parser = pl.Trainer.add_argparse_args(parser)
    args = parser.parse_args(argv)
    pl.seed_everything(args.seed)

    # ------------
    # data and model
    # ------------
    dm = DigitsDataModule.from_argparse_args(args)
    model = LitClassifier(args.hidden_dim, args.learning_rate)

    # ------------
    # training
    # ------------
    checkpoint = ModelCheckpoint(monitor="val_acc", mode="max")
    trainer = pl.Trainer.from_argparse_args(args, callbacks=[checkpoint])
    trainer.fit(model, datamodule=dm)

    # ------------
    # testing
    # ------------
    result = trainer.test(model, datamodule=dm)
    return result[0]["test_acc"]


if __name__ == "__main__":
    cli_main()
