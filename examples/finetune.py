"""Learn a new task from a few images, with what was learned from another: see docs/finetuning.md.

    python examples/finetune.py

A network learns to read handwritten digits. Then it is to tell how many holes a digit has (an 8 has two), and there are
only three images of each digit to learn it from. It gets a new head, which is trained alone at first; from epoch 10 on
its backbone is trained too, with a tenth of the learning rate. For comparison the same network learns the same from
nothing.
"""

from __future__ import annotations

import argparse

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

from fulmen import LightningModule, Trainer, seed_everything
from fulmen.callbacks import BackboneFinetuning
from fulmen.demos.digits import load_digits

HOLES = torch.tensor([1, 0, 0, 0, 0, 0, 1, 0, 2, 1])  # of each digit
MANY, FEW = 100, 3  # images of each digit to learn the first task and the second from


class DigitReader(LightningModule):
    """Says which of several answers an image has.

    Args:
        count: how many answers there are.
        backbone: makes 64 features of an image. None: one that has learned nothing yet.
    """

    def __init__(self, count: int, backbone: nn.Module | None = None) -> None:
        super().__init__()
        self.backbone = backbone or nn.Sequential(
            nn.Conv2d(1, 16, kernel_size=3, padding=1),
            nn.BatchNorm2d(16),
            nn.ReLU(),
            nn.Conv2d(16, 32, kernel_size=3, padding=1),
            nn.BatchNorm2d(32),
            nn.ReLU(),
            nn.MaxPool2d(2),
            nn.Flatten(),
            nn.Linear(32 * 4 * 4, 64),
            nn.ReLU(),
        )
        self.head = nn.Linear(64, count)

    def training_step(self, batch: list[Tensor], batch_idx: int) -> Tensor:
        images, digits = batch
        return F.cross_entropy(self.head(self.backbone(images)), digits)

    def test_step(self, batch: list[Tensor], batch_idx: int) -> None:
        images, digits = batch
        right = self.head(self.backbone(images)).argmax(dim=1) == digits
        self.log("accuracy", right.float().mean())

    def configure_optimizers(self) -> torch.optim.Optimizer:
        trained = [parameter for parameter in self.parameters() if parameter.requires_grad]  # the rest comes later
        return torch.optim.AdamW(trained, lr=3e-3)


def images(first: int, last: int | None, answers: Tensor) -> TensorDataset:
    """The images of each digit from the number ``first`` to ``last``, with the answer for their digit."""
    pictures, digits = load_digits()
    chosen = torch.cat([torch.nonzero(digits == digit).flatten()[first:last] for digit in range(10)])
    return TensorDataset(pictures[chosen], answers[digits[chosen]])


def fit(model: DigitReader, data: TensorDataset, epochs: int, *callbacks: BackboneFinetuning) -> Trainer:
    trainer = Trainer(
        max_epochs=epochs,
        callbacks=list(callbacks),
        accelerator="cpu",
        logger=False,
        enable_checkpointing=False,
        enable_model_summary=False,
        enable_progress_bar=False,
    )
    trainer.fit(model, DataLoader(data, batch_size=16, shuffle=True))
    return trainer


def main(epochs: int = 30, seed: int = 0) -> tuple[float, float]:
    """The accuracies in counting holes of a network that can read digits, and of one that cannot."""
    seed_everything(seed, verbose=False)
    taught = DigitReader(count=10)
    fit(taught, images(0, MANY, answers=torch.arange(10)), epochs=5)

    few, rest = images(MANY, MANY + FEW, HOLES), images(MANY + FEW, None, HOLES)
    finetuning = BackboneFinetuning(unfreeze_backbone_at_epoch=epochs // 3, lambda_func=lambda epoch: 1.0)
    accuracies = []
    for model, callbacks in ((DigitReader(3, taught.backbone), [finetuning]), (DigitReader(3), [])):
        trainer = fit(model, few, epochs, *callbacks)
        [results] = trainer.test(model, DataLoader(rest, batch_size=100), verbose=False)
        accuracies.append(results["accuracy"])
    return accuracies[0], accuracies[1]


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--epochs", type=int, default=30)
    parser.add_argument("--seeds", type=int, default=4, help="so many runs, of which the means are printed")
    arguments = parser.parse_args()
    runs = [main(arguments.epochs, seed) for seed in range(arguments.seeds)]
    finetuned, from_nothing = (sum(run[way] for run in runs) / len(runs) for way in (0, 1))
    print(f"holes from {FEW} images of each digit: accuracy {finetuned:.2f} finetuned, {from_nothing:.2f} from nothing")
