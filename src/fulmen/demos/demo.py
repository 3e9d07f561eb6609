"""What ``fulmen demo`` does: train on handwritten digits, keep the best model, test it, look at it."""

from __future__ import annotations

import csv
import sys
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from fulmen import Trainer, seed_everything
from fulmen.callbacks import ModelCheckpoint
from fulmen.demos.digits import DigitsClassifier, DigitsDataModule
from fulmen.loggers import CSVLogger


@dataclass(frozen=True, slots=True)
class DemoResult:
    """What a demo leaves behind.

    Attributes:
        test_acc: the share of the 300 test images that the best model reads correctly.
        checkpoint: the file of the best model.
        metrics: the CSV file of everything that was logged.
        curves: the picture of loss and accuracy.
    """

    test_acc: float
    checkpoint: Path
    metrics: Path
    curves: Path


def run_demo(max_epochs: int = 10, directory: str | Path = "fulmen_demo", seed: int = 0) -> DemoResult:
    """Train, test and draw; everything is written to a new folder ``version_<n>`` in ``directory``."""
    seed_everything(seed)
    datamodule = DigitsDataModule()
    logger = CSVLogger(directory, name=None)
    best = ModelCheckpoint(monitor="val_acc", mode="max", filename="{epoch}-{val_acc:.3f}")
    trainer = Trainer(max_epochs=max_epochs, logger=logger, callbacks=[best], log_every_n_steps=5)

    print(f"\nTraining on 1197 handwritten digits for {max_epochs} epochs ...\n")
    trainer.fit(DigitsClassifier(), datamodule=datamodule)

    print("\nTesting the best model on 300 digits that it has never seen ...\n")
    model = DigitsClassifier.load_from_checkpoint(best.best_model_path)
    [results] = trainer.test(model, datamodule=datamodule)
    predictions = torch.cat(trainer.predict(model, datamodule=datamodule) or [])
    show_predictions(datamodule, predictions)

    folder = Path(logger.log_dir)
    curves = draw_curves(folder / "metrics.csv", folder / "curves.png")
    result = DemoResult(results["test_acc"], Path(best.best_model_path), folder / "metrics.csv", curves)
    print(
        f"\nThe best model read {result.test_acc:.1%} of the test digits correctly. What the run left behind:\n\n"
        f"  the learning curves   {result.curves}\n"
        f"  every logged value    {result.metrics}\n"
        f"  the best model        {result.checkpoint}\n\n"
        "Open the curves in any image viewer and the values in any spreadsheet. To use the model:\n\n"
        "  from fulmen.demos.digits import DigitsClassifier\n"
        f'  model = DigitsClassifier.load_from_checkpoint("{result.checkpoint}")\n\n'
        f"How it was made: {Path(sys.modules[DigitsClassifier.__module__].__file__ or '')}"
    )
    return result


def show_predictions(datamodule: DigitsDataModule, predictions: Tensor) -> None:
    """Draw three test images that were read correctly, and one that was not if there is one."""
    images, digits = (torch.stack(column) for column in zip(*((image, digit) for image, digit in datamodule.test_set)))
    right, wrong = (predictions == digits).nonzero().flatten(), (predictions != digits).nonzero().flatten()
    shown = torch.cat([right[:3], wrong[:1] if len(wrong) else right[3:4]]).tolist()
    drawings = [draw_digit(images[index, 0]) for index in shown]
    print()
    for lines in zip(*drawings):
        print("  " + "   ".join(lines))
    captions = [
        f"reads {predictions[index]}" + ("" if predictions[index] == digits[index] else f", is {digits[index]}")
        for index in shown
    ]
    print("  " + "   ".join(caption.center(16) for caption in captions).rstrip())


def draw_digit(image: Tensor) -> list[str]:
    """Eight lines of text for an image of 8x8 pixels from 0 (paper) to 1 (ink); a pixel is two characters wide."""
    shades = " ░▒▓█" if "utf" in (sys.stdout.encoding or "").lower() else " .+*#"
    return ["".join(2 * shades[round(pixel * 4)] for pixel in row) for row in image.tolist()]


def draw_curves(metrics: Path, picture: Path) -> Path:
    """Draw loss and accuracy, as read from the CSV file ``metrics``, into the PNG file ``picture``, and return it."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg  # without pyplot: no window, no global state
    from matplotlib.figure import Figure

    with metrics.open(newline="") as file:
        rows = list(csv.DictReader(file))

    def series(name: str) -> tuple[list[int], list[float]]:
        points = [(int(row["step"]) + 1, float(row[name])) for row in rows if row.get(name)]
        return [step for step, _ in points], [value for _, value in points]

    figure = Figure(figsize=(10, 4.2), layout="constrained")
    FigureCanvasAgg(figure)
    loss, accuracy = figure.subplots(1, 2)
    blue, orange, grey = "#3b6fb6", "#e0752d", "#5a5a5a"
    loss.plot(*series("train_loss"), color=blue, alpha=0.55, linewidth=1.1, label="training, each logged step")
    loss.plot(*series("val_loss"), color=orange, marker="o", markersize=4, label="validation")
    loss.set(title="Loss", yscale="log", ylabel="cross-entropy")
    accuracy.plot(*series("train_acc"), color=blue, marker="o", markersize=4, label="training, with dropout")
    accuracy.plot(*series("val_acc"), color=orange, marker="o", markersize=4, label="validation")
    accuracy.set(title="Accuracy")
    accuracy.yaxis.set_major_formatter(lambda share, _: f"{share:.0%}")

    steps, values = series("val_acc")
    highest = max(values)
    accuracy.annotate(
        f"best: {highest:.1%}",
        (steps[values.index(highest)], highest),
        xytext=(0, -34),
        textcoords="offset points",
        ha="center",
        color=grey,
        arrowprops={"arrowstyle": "-", "color": grey, "linewidth": 0.8},
    )
    for panel in (loss, accuracy):
        panel.set_xlabel("optimizer steps")
        panel.grid(True, color="#dddddd", linewidth=0.6)
        panel.spines[["top", "right"]].set_visible(False)
        panel.legend(frameon=False)
    figure.savefig(picture, dpi=150)
    return picture
