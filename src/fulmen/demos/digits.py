"""Handwritten digits: the data and the network that ``fulmen demo`` trains. Read this first; it is how one uses Fulmen.

The 1797 images of 8x8 pixels are the *Optical Recognition of Handwritten Digits* set of the UCI Machine Learning
Repository, by E. Alpaydin and C. Kaynak (1998), licensed CC BY 4.0, https://doi.org/10.24432/C50P49: its test part, in
the form in which scikit-learn ships it. ``digits.csv.gz`` has one image per line: 64 pixels, row by row, from 0 (paper)
to 16 (ink), then the digit.
"""

from __future__ import annotations

import gzip
from importlib.resources import files

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset, random_split

from fulmen import LightningDataModule, LightningModule
from fulmen.utilities.types import OptimizerLRScheduler


def load_digits() -> tuple[Tensor, Tensor]:
    """The images, of shape ``(1797, 1, 8, 8)`` from 0 (paper) to 1 (ink), and their digits, of shape ``(1797,)``."""
    with files("fulmen.demos").joinpath("digits.csv.gz").open("rb") as packed, gzip.open(packed, "rt") as lines:
        table = np.loadtxt(lines, delimiter=",", dtype=np.int64)
    images = torch.from_numpy(table[:, :64]).reshape(-1, 1, 8, 8).float() / 16
    return images, torch.from_numpy(table[:, 64])


class DigitsDataModule(LightningDataModule):
    """The digits, split into 1197 images to train on, 300 to validate on and 300 to test on, always in the same way.

    Args:
        batch_size: images per batch.
    """

    def __init__(self, batch_size: int = 32) -> None:
        super().__init__()
        self.batch_size = batch_size

    def setup(self, stage: str) -> None:
        dataset = TensorDataset(*load_digits())
        split_of_everyone = torch.Generator().manual_seed(0)  # whatever the seed of the run: results can be compared
        self.train_set, self.val_set, self.test_set = random_split(dataset, [1197, 300, 300], split_of_everyone)

    def train_dataloader(self) -> DataLoader:
        return DataLoader(self.train_set, batch_size=self.batch_size, shuffle=True)

    def val_dataloader(self) -> DataLoader:
        return DataLoader(self.val_set, batch_size=self.batch_size)

    def test_dataloader(self) -> DataLoader:
        return DataLoader(self.test_set, batch_size=self.batch_size)

    def predict_dataloader(self) -> DataLoader:
        return self.test_dataloader()


class DigitsClassifier(LightningModule):
    """A small convolutional network that reads a digit; about 30,000 parameters.

    Args:
        channels: feature maps of the first convolution; the second has twice as many.
        dropout: the share of features that is dropped while training.
        learning_rate: of AdamW, at the start; it falls to zero along half a cosine.
    """

    def __init__(self, channels: int = 32, dropout: float = 0.25, learning_rate: float = 3e-3) -> None:
        super().__init__()
        self.save_hyperparameters()  # the three arguments: in self.hparams, and in every checkpoint
        self.network = nn.Sequential(
            nn.Conv2d(1, channels, kernel_size=3, padding=1),
            nn.BatchNorm2d(channels),
            nn.ReLU(),
            nn.Conv2d(channels, 2 * channels, kernel_size=3, padding=1),
            nn.BatchNorm2d(2 * channels),
            nn.ReLU(),
            nn.MaxPool2d(2),  # 8x8 -> 4x4
            nn.Dropout(dropout),
            nn.Flatten(),
            nn.Linear(2 * channels * 4 * 4, 10),
        )

    def forward(self, images: Tensor) -> Tensor:
        """The scores of the ten digits, of shape ``(n, 10)``, for ``images`` of shape ``(n, 1, 8, 8)``."""
        return self.network(images)

    def training_step(self, batch: list[Tensor], batch_idx: int) -> Tensor:
        loss, accuracy = self.loss_and_accuracy(batch)
        self.log("train_loss", loss)
        self.log("train_acc", accuracy, on_step=False, on_epoch=True)
        return loss

    def validation_step(self, batch: list[Tensor], batch_idx: int) -> None:
        loss, accuracy = self.loss_and_accuracy(batch)
        self.log("val_loss", loss)
        self.log("val_acc", accuracy, prog_bar=True)

    def test_step(self, batch: list[Tensor], batch_idx: int) -> None:
        loss, accuracy = self.loss_and_accuracy(batch)
        self.log("test_loss", loss)
        self.log("test_acc", accuracy)

    def predict_step(self, batch: list[Tensor], batch_idx: int) -> Tensor:
        images, _ = batch
        return self(images).argmax(dim=1)

    def configure_optimizers(self) -> OptimizerLRScheduler:
        optimizer = torch.optim.AdamW(self.parameters(), lr=self.hparams.learning_rate)
        scheduler = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, T_max=self.trainer.max_epochs)
        return {"optimizer": optimizer, "lr_scheduler": scheduler}

    def loss_and_accuracy(self, batch: list[Tensor]) -> tuple[Tensor, Tensor]:
        """The mean cross-entropy and the share of images read correctly."""
        images, digits = batch
        scores = self(images)
        return F.cross_entropy(scores, digits), (scores.argmax(dim=1) == digits).float().mean()
