"""A project that is driven from the command line: the program says what there is, the files in ``configs/`` say how.

    python main.py fit --config configs/base.yaml
    python main.py fit --config configs/base.yaml --config configs/wide.yaml --optimizer.lr=0.05
    python main.py fit --config configs/base.yaml --optimizer=configs/adam.yaml --trainer.callbacks+=LearningRateMonitor
    python main.py test --config configs/base.yaml --ckpt_path=logs/digits/version_0/checkpoints/last.ckpt
    python main.py fit --config configs/base.yaml --print_config > everything.yaml

Of several files and options the later wins. The checkpoint knows the model's arguments, so that ``test`` needs none of
them; the whole configuration of each run lies beside its logs.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fulmen import LightningModule
from fulmen.cli import LightningArgumentParser, LightningCLI
from fulmen.demos.digits import DigitsDataModule


class DigitsNetwork(LightningModule):
    """Tells which digit a picture of 8x8 pixels shows.

    Args:
        width: the number of hidden units.
        dropout: the fraction of them that is left out of each step.
        activation: what comes after the hidden layer.
    """

    def __init__(self, width: int = 32, dropout: float = 0.0, activation: nn.Module | None = None) -> None:
        super().__init__()
        self.save_hyperparameters()
        self.layers = nn.Sequential(
            nn.Flatten(),
            nn.Linear(64, width),
            activation or nn.ReLU(),
            nn.Dropout(dropout),
            nn.Linear(width, 10),
        )

    def forward(self, images: Tensor) -> Tensor:
        return self.layers(images)

    def training_step(self, batch: tuple[Tensor, Tensor], batch_idx: int) -> Tensor:
        loss = F.cross_entropy(self(batch[0]), batch[1])
        self.log("train_loss", loss)
        return loss

    def validation_step(self, batch: tuple[Tensor, Tensor], batch_idx: int) -> None:
        self.log("val_accuracy", (self(batch[0]).argmax(-1) == batch[1]).float().mean(), prog_bar=True)

    def test_step(self, batch: tuple[Tensor, Tensor], batch_idx: int) -> None:
        self.log("test_accuracy", (self(batch[0]).argmax(-1) == batch[1]).float().mean())


class DigitsCLI(LightningCLI):
    """The command line of this project."""

    def add_arguments_to_parser(self, parser: LightningArgumentParser) -> None:
        parser.add_optimizer_args()  # any of torch's
        parser.add_lr_scheduler_args(torch.optim.lr_scheduler.CosineAnnealingLR)
        parser.link_arguments("trainer.max_epochs", "lr_scheduler.T_max")  # the curve ends where the run does
        parser.set_defaults({"optimizer": {"class_path": "torch.optim.SGD", "init_args": {"lr": 0.1}}})


def main(args: list[str] | None = None) -> DigitsCLI:
    """Run the command line; ``args`` in place of the program's."""
    defaults = {"max_epochs": 5}
    return DigitsCLI(DigitsNetwork, DigitsDataModule, trainer_defaults=defaults, seed_everything_default=0, args=args)


if __name__ == "__main__":
    main()
