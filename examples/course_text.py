"""From one layer of one's own to a network that is trained, tested, saved and rebuilt: a short road through Fulmen.

python examples/course_text.py
"""

from __future__ import annotations

from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fulmen import LightningModule, Trainer, seed_everything
from fulmen.demos.digits import DigitsDataModule


# 1. A layer: parameters, and what happens to a batch.
class DenseLayer(nn.Module):
    """``x @ weight``: a batch of shape ``(n, in_shape)`` becomes one of shape ``(n, out_shape)``."""

    def __init__(self, in_shape: int, out_shape: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(in_shape, out_shape))

    def forward(self, x: Tensor) -> Tensor:
        return torch.matmul(x, self.weight)


# 2. Layers in a row are a network. It can be called at once.
def call_a_network() -> Tensor:
    """The output, of shape ``(8, 10)``, of three layers for a batch of 8 random vectors of 512 numbers."""
    network = nn.Sequential(DenseLayer(512, 256), DenseLayer(256, 128), DenseLayer(128, 10))
    return network(torch.randn(8, 512))


# 3. A LightningModule holds the whole network, and says what a step of training, validation and testing is.
class DigitsNetwork(LightningModule):
    """Three dense layers that read handwritten digits of 8x8 pixels.

    Args:
        hidden: the widths between the layers.
        learning_rate: of Adam.
    """

    def __init__(self, hidden: tuple[int, int] = (64, 32), learning_rate: float = 0.01) -> None:
        super().__init__()
        self.save_hyperparameters()
        first, second = hidden
        self.network = nn.Sequential(DenseLayer(64, first), DenseLayer(first, second), DenseLayer(second, 10))

    def forward(self, images: Tensor) -> Tensor:
        return self.network(images.flatten(start_dim=1))

    def training_step(self, batch: list[Tensor], batch_idx: int) -> Tensor:
        images, digits = batch
        loss = F.cross_entropy(self(images), digits)
        self.log("train_loss", loss)
        return loss

    def validation_step(self, batch: list[Tensor], batch_idx: int) -> None:
        self.log("val_acc", self.accuracy(batch), prog_bar=True)

    def test_step(self, batch: list[Tensor], batch_idx: int) -> None:
        self.log("test_acc", self.accuracy(batch))

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.Adam(self.parameters(), lr=self.hparams.learning_rate)

    def accuracy(self, batch: list[Tensor]) -> Tensor:
        images, digits = batch
        return (self(images).argmax(dim=1) == digits).float().mean()


# 4. A Trainer does the rest.
def main(directory: str | Path = "course_text") -> float:
    """Train, save, rebuild, test; returns the test accuracy of the rebuilt network."""
    print("Three layers make of a batch of shape (8, 512) one of shape", tuple(call_a_network().shape))

    seed_everything(0)
    data = DigitsDataModule()
    model = DigitsNetwork(hidden=(48, 24))
    trainer = Trainer(max_epochs=20, default_root_dir=directory)
    trainer.fit(model, datamodule=data)

    checkpoint = Path(directory) / "digits.ckpt"
    trainer.save_checkpoint(checkpoint)
    rebuilt = DigitsNetwork.load_from_checkpoint(checkpoint)
    print("Rebuilt from the file, with the arguments it was made with:", dict(rebuilt.hparams))

    [result] = trainer.test(rebuilt, datamodule=data)
    return result["test_acc"]


if __name__ == "__main__":
    main()
