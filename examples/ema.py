"""Average the weights while training: see docs/averaging.md.

    python examples/ema.py

A small network reads handwritten digits. It is trained with a rate that stays high, so that its weights never come to
rest. Their average does: training is the same in every bit, and the test with the averaged weights is better, and
differs less from seed to seed. Validation runs with the average, too.

    python examples/ema.py --seeds 8 --decay 0.95
"""

from __future__ import annotations

import argparse
import statistics

import torch

from fulmen import Trainer, seed_everything
from fulmen.callbacks import EMAWeightAveraging
from fulmen.demos.digits import DigitsClassifier, DigitsDataModule


class RestlessClassifier(DigitsClassifier):
    """The network of ``fulmen demo``, smaller, and with a rate that does not fall."""

    def __init__(self, learning_rate: float = 0.02) -> None:
        super().__init__(channels=8, learning_rate=learning_rate)

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.AdamW(self.parameters(), lr=self.hparams.learning_rate)


def main(seed: int = 0, decay: float | None = 0.98, max_epochs: int = 10) -> dict[str, float]:
    """Train and test; returns what the test has logged.

    Args:
        decay: how much of the average stays at each step. None: no average.
    """
    seed_everything(seed, verbose=False)
    model, digits = RestlessClassifier(), DigitsDataModule()
    trainer = Trainer(
        max_epochs=max_epochs,
        logger=False,
        callbacks=[] if decay is None else [EMAWeightAveraging(decay=decay)],
        enable_checkpointing=False,
        enable_model_summary=False,
        enable_progress_bar=False,
    )
    trainer.fit(model, datamodule=digits)
    [results] = trainer.test(model, datamodule=digits, verbose=False)
    return results


def compare(seeds: int, decay: float, max_epochs: int) -> dict[str, dict[str, float]]:
    """Mean and standard deviation, over seeds, of the test's loss and accuracy, without and with averages."""
    table = {}
    for name, own in (("without", None), ("with", decay)):
        runs = [main(seed, own, max_epochs) for seed in range(seeds)]
        losses, accuracies = ([run[key] for run in runs] for key in ("test_loss", "test_acc"))
        table[name] = {
            "loss": statistics.mean(losses),
            "loss +-": statistics.stdev(losses),
            "accuracy": statistics.mean(accuracies),
            "accuracy +-": statistics.stdev(accuracies),
        }
    return table


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=4, help="train so often in each of both ways (at least 2)")
    parser.add_argument("--decay", type=float, default=0.98, help="how much of the average stays at each step")
    parser.add_argument("--epochs", type=int, default=10)
    arguments = parser.parse_args()
    for way, row in compare(arguments.seeds, arguments.decay, arguments.epochs).items():
        print(
            f"{way:>7} averages: loss {row['loss']:.4f} +- {row['loss +-']:.4f}, "
            f"accuracy {row['accuracy']:.4f} +- {row['accuracy +-']:.4f}"
        )
