"""``pytorch_lightning.metrics``, which became torchmetrics: its classes, with the arguments that they had before."""

from __future__ import annotations

from importlib import import_module
from typing import Any

from fulmen.compat.old.messages import tell

try:
    import torchmetrics
except ModuleNotFoundError as error:
    raise ModuleNotFoundError(
        "`pytorch_lightning.metrics` became torchmetrics, which is not installed: "
        "`pip install 'fulmen[torchmetrics]'`, and write `import torchmetrics`.",
        name="torchmetrics",
    ) from error
import torch
from torch import Tensor

_OTHER_NAMES = {"F1": "F1Score", "IoU": "JaccardIndex", "PSNR": "PeakSignalNoiseRatio", "Fbeta": "FBetaScore"}
_OTHER_NAMES |= {"SSIM": "StructuralSimilarityIndexMeasure", "FBeta": "FBetaScore", "ROC": "ROC"}
#: they are told the task now, and found it out from the data then
_OF_CLASSES = frozenset("Precision Recall F1Score FBetaScore ConfusionMatrix JaccardIndex StatScores ROC".split())


class Accuracy(torchmetrics.Metric):
    """The share of samples that are predicted right, of labels, probabilities or scores of classes.

    Args:
        threshold: a probability from which on a sample is of the class, if there is one for each sample.
        kwargs: arguments of ``torchmetrics.Metric``. With ``task`` or ``num_classes`` it is torchmetrics' own.
    """

    full_state_update = False
    correct: Tensor
    total: Tensor

    def __new__(cls, *args: Any, **kwargs: Any) -> Any:
        if "task" in kwargs or "num_classes" in kwargs:
            return of_classes("Accuracy", *args, **kwargs)
        return super().__new__(cls)

    def __init__(self, threshold: float = 0.5, **kwargs: Any) -> None:
        tell("`pytorch_lightning.metrics.Accuracy()`", "Write `torchmetrics.Accuracy(task=..., num_classes=...)`.")
        super().__init__(**{name: value for name, value in kwargs.items() if name != "compute_on_step"})
        self.threshold = threshold
        for name in ("correct", "total"):
            self.add_state(name, torch.tensor(0), dist_reduce_fx="sum")

    def update(self, preds: Tensor, target: Tensor) -> None:
        """Take in the predictions of a batch."""
        right = is_right(preds, target, self.threshold)
        self.correct += right.sum()
        self.total += right.numel()

    def compute(self) -> Tensor:
        """The share over all batches."""
        return self.correct.float() / self.total


def is_right(preds: Tensor, target: Tensor, threshold: float) -> Tensor:
    """Which predictions are right."""
    if preds.ndim == target.ndim + 1:  # scores of classes
        return preds.argmax(1) == target
    return (preds >= threshold).to(target.dtype) == target if preds.is_floating_point() else preds == target


def of_classes(name: str, *args: Any, **kwargs: Any) -> Any:
    """A metric that is told what its data are, from the arguments that it had when it found that out."""
    kwargs.pop("compute_on_step", None)
    if args:  # it was the number of classes
        kwargs["num_classes"], args = args[0], args[1:]
    if "task" not in kwargs:
        several = kwargs.pop("multilabel", False)
        kwargs["task"] = "multilabel" if several else "multiclass" if kwargs.get("num_classes", 1) > 1 else "binary"
        if several:
            kwargs["num_labels"] = kwargs.pop("num_classes")
        if name not in ("ConfusionMatrix", "JaccardIndex", "ROC"):
            kwargs.setdefault("average", "micro")
    return getattr(torchmetrics, name)(*args, **kwargs)


def __getattr__(name: str) -> Any:
    if name.startswith("__"):
        raise AttributeError(name)
    today = _OTHER_NAMES.get(name, name)
    tell(f"`pytorch_lightning.metrics.{name}`", f"Write `torchmetrics.{today}`.")
    if today in _OF_CLASSES:
        return lambda *args, **kwargs: of_classes(today, *args, **kwargs)
    for home in map(import_module, ("torchmetrics", "torchmetrics.classification", "torchmetrics.image")):
        if hasattr(home, today):
            return getattr(home, today)
    raise AttributeError(f"torchmetrics has no {today!r}, which `pytorch_lightning.metrics.{name}` was")
