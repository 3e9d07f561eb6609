"""What a profiler measures besides hooks: the wait for batches, their way to the device, and logging."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from fulmen.profilers.profiler import Profiler
    from fulmen.trainer.trainer import Trainer

_LOGGING = (
    "finish_batch",
    "end_of_epoch",
    "finish_epoch",
    "finish_training",
    "finish_evaluation_batch",
    "write_evaluation",
)


def measure(trainer: Trainer) -> None:
    """Let the trainer's profiler measure the parts of a run that has begun."""
    profiler = trainer.profiler
    trainer.data.measure(profiler)
    for name in _LOGGING:
        setattr(trainer.metrics, name, measured(profiler, f"[Metrics]{name}", getattr(trainer.metrics, name)))


def measured(profiler: Profiler, action: str, method: Callable[..., Any]) -> Callable[..., Any]:
    """``method``, each call of which is measured as ``action``."""
    return partial(_call, profiler, action, method)


def _call(profiler: Profiler, action: str, method: Callable[..., Any], *args: Any) -> Any:
    with profiler.profile(action):
        return method(*args)
