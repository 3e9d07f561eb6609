"""Which checkpoints a logger has still to send to its service."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fulmen.utilities.cloud_io import is_remote
from fulmen.utilities.rank_zero import rank_zero_warn

if TYPE_CHECKING:
    from fulmen.callbacks.checkpoint import Checkpoint

_SETTINGS = ("monitor", "mode", "save_last", "save_top_k", "save_weights_only", "_every_n_train_steps")


def newly_written(
    checkpoint_callback: Checkpoint, logged_model_time: dict[str, float]
) -> list[tuple[float, str, Any, str]]:
    """The files and folders that ``checkpoint_callback`` keeps and that are newer than what was sent, oldest first.

    Args:
        checkpoint_callback: knows its last and its best files; what it has not written is left out.
        logged_model_time: the time of what was sent already, by path.

    Returns:
        Of each: the time when it was written, its path, its score (None if it has none), and ``"best"``, ``"best_k"``
        or ``"latest"``.
    """
    found: dict[str, tuple[Any, str]] = {}
    last, best = (getattr(checkpoint_callback, name, "") or "" for name in ("last_model_path", "best_model_path"))
    if last and getattr(checkpoint_callback, "save_last", True):  # else it is there to go on from, on this disk
        found[last] = (getattr(checkpoint_callback, "current_score", None), "latest")
    for path, score in (getattr(checkpoint_callback, "best_k_models", None) or {}).items():
        found[path] = (score, "best_k")
    if best:
        found[best] = (getattr(checkpoint_callback, "best_model_score", None), "best")
    new = []
    for path, (score, rank) in found.items():
        if is_remote(path):
            rank_zero_warn(f"The checkpoint {path} lies in a remote folder: it is not sent to the logger.")
        elif os.path.exists(path):
            written = Path(path).stat().st_mtime
            if logged_model_time.get(path, -1.0) < written:
                new.append((written, path, score, rank))
    return sorted(new, key=lambda each: each[:2])


def description(checkpoint_callback: Checkpoint, path: str, score: Any) -> dict[str, Any]:
    """What is told about a checkpoint beside it: its score, its name, and the settings of the callback."""
    settings = {name: getattr(checkpoint_callback, name) for name in _SETTINGS if hasattr(checkpoint_callback, name)}
    return {
        "score": score.item() if hasattr(score, "item") else score,
        "original_filename": Path(path).name,
        type(checkpoint_callback).__name__: settings,
    }


def aliases(checkpoint_callback: Checkpoint, path: str) -> list[str]:
    """The names under which a service finds the checkpoint."""
    is_best = path == getattr(checkpoint_callback, "best_model_path", None)
    return ["latest", "best"] if is_best else ["latest"]


def sends_each(log_model: bool | str, checkpoint_callback: Checkpoint) -> bool:
    """Whether a checkpoint is sent as soon as it is written, and not when the run ends: all of them are kept."""
    return log_model == "all" or (log_model is True and getattr(checkpoint_callback, "save_top_k", None) == -1)


def check_log_model(log_model: bool | str, logger: str) -> None:
    """Refuse what is neither True nor False nor ``"all"``.

    Raises:
        ValueError: naming the ``logger``.
    """
    if log_model not in (True, False, "all"):
        raise ValueError(
            f"{logger}(log_model={log_model!r}) is not known. Write True (the kept ones when the run ends), 'all' "
            "(each when it is written) or False."
        )
