"""``pytorch_lightning.metrics.functional``, which became ``torchmetrics.functional``."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from fulmen.compat.old.messages import tell
from fulmen.compat.old.metrics import is_right

_OTHER_NAMES = {"psnr": "peak_signal_noise_ratio", "ssim": "structural_similarity_index_measure", "f1": "f1_score"}
_OTHER_NAMES |= {"iou": "jaccard_index", "fbeta": "fbeta_score", "mse": "mean_squared_error"}
_OTHER_NAMES |= {"mae": "mean_absolute_error", "rmsle": "mean_squared_log_error"}
_OF_CLASSES = frozenset("confusion_matrix f1_score fbeta_score jaccard_index precision recall roc stat_scores".split())


def accuracy(preds: Tensor, target: Tensor, num_classes: int | None = None, threshold: float = 0.5, **_: Any) -> Tensor:
    """The share of samples that are predicted right, of labels, probabilities or scores of classes."""
    tell("`pytorch_lightning.metrics.functional.accuracy`", "Write `torchmetrics.functional.accuracy(..., task=...)`.")
    return is_right(preds, target, threshold).float().mean()


def __getattr__(name: str) -> Any:
    if name.startswith("__"):
        raise AttributeError(name)
    from torchmetrics import functional

    today = _OTHER_NAMES.get(name, name)
    tell(f"`pytorch_lightning.metrics.functional.{name}`", f"Write `torchmetrics.functional.{today}`.")
    function = getattr(functional, today, None)
    if function is None:
        raise AttributeError(f"torchmetrics.functional has no {today!r}, which `{name}` was")
    if today not in _OF_CLASSES:
        return function

    def of_classes(preds: Tensor, target: Tensor, *args: Any, **kwargs: Any) -> Any:
        kwargs.setdefault(
            "task", "multiclass" if kwargs.get("num_classes", 2 + preds.ndim - target.ndim) > 2 else "binary"
        )
        if kwargs["task"] == "multiclass":
            kwargs.setdefault("num_classes", preds.shape[1] if preds.ndim > target.ndim else int(target.max()) + 1)
        return function(preds, target, *args, **kwargs)

    return of_classes
