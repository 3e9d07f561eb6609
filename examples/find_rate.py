"""Find a learning rate before training: see docs/tuner.md.

    python examples/find_rate.py

The network of ``fulmen demo`` reads handwritten digits. Its author chose the rate by hand. Here 100 steps of training,
in which the rate rises from next to nothing to 1, show where the loss falls, and the run that follows begins with the
rate that this curve suggests. The curve is written to ``find_rate.png``; of the test itself nothing is left.

    python examples/find_rate.py --compare 6

trains with six seeds and both rates, and prints the mean accuracies and losses.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from fulmen import Trainer, seed_everything
from fulmen.demos.digits import DigitsClassifier, DigitsDataModule
from fulmen.tuner import Tuner


def main(
    picture: Path = Path("find_rate.png"), seed: int = 0, max_epochs: int = 10, find: bool = True
) -> dict[str, float]:
    """Train on the digits, with the rate that was found or the one by hand; returns what the test has logged."""
    seed_everything(seed, verbose=False)
    model, digits = DigitsClassifier(), DigitsDataModule()
    trainer = Trainer(max_epochs=max_epochs, logger=False, enable_checkpointing=False, enable_model_summary=False)
    if find:
        by_hand = model.hparams.learning_rate
        curve = Tuner(trainer).lr_find(model, datamodule=digits)
        assert curve is not None
        curve.plot(suggest=True).savefig(picture, dpi=150)
        print(f"the rate by hand is {by_hand}; the curve in {picture} suggests {model.hparams.learning_rate:.2g}")
    trainer.fit(model, datamodule=digits)
    [results] = trainer.test(model, datamodule=digits, verbose=False)
    return results


def compare(seeds: int, max_epochs: int) -> tuple[dict[str, float], dict[str, float]]:
    """Accuracy and loss with the rate that is found and with the one by hand, as means over runs with other seeds."""
    found = [main(seed=seed, max_epochs=max_epochs) for seed in range(seeds)]
    by_hand = [main(seed=seed, max_epochs=max_epochs, find=False) for seed in range(seeds)]
    mean_found, mean_by_hand = (
        {name: sum(run[name] for run in runs) / seeds for name in runs[0]} for runs in (found, by_hand)
    )
    return mean_found, mean_by_hand


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--compare", type=int, metavar="SEEDS", help="train so often with each of both rates")
    parser.add_argument("--epochs", type=int, default=10)
    arguments = parser.parse_args()
    if arguments.compare:
        means = compare(arguments.compare, arguments.epochs)
        for name, mean in zip(("found", "by hand"), means):
            print(f"rate {name}: test accuracy {mean['test_acc']:.4f}, test loss {mean['test_loss']:.4f}")
    else:
        print(f"test accuracy: {main(max_epochs=arguments.epochs)['test_acc']:.4f}")
