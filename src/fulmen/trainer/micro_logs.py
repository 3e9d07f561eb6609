"""What is logged while a batch is run in parts: values of epochs have the samples of each part, and the value of the
step is that of the whole batch.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from fulmen.trainer.accumulator import Accumulator, double

if TYPE_CHECKING:
    from fulmen.trainer.metrics import Metrics

#: where `batch_size` and `sync_dist_group` stand among what is given to `Metrics.log` after name and value
_BATCH_SIZE, _GROUP = 7, 10


class LogsOfParts:
    """Takes the place of ``metrics.log`` for the length of a ``with``, in which the parts of one batch are run."""

    def __init__(self, metrics: Metrics) -> None:
        self._metrics = metrics
        self._log, self._batch_size_of = metrics.log, metrics.batch_size_of
        self._place = 0
        self._samples: float | None = None
        self._values: dict[Any, dict[int, tuple[Any, float]]] = {}  # by key, then by part
        self._entries: dict[Any, tuple[Accumulator, Any]] = {}

    def __enter__(self) -> LogsOfParts:
        self._metrics.log = self._note  # type: ignore[method-assign]
        self._metrics.batch_size_of = self._count
        self._metrics.syncs_steps = False
        return self

    def __exit__(self, *exception: Any) -> None:
        del self._metrics.log
        self._metrics.batch_size_of = self._batch_size_of
        self._metrics.syncs_steps = True

    def begin(self, place: int, samples: float | None) -> None:
        """From here on, values belong to the part number ``place``, which has so many samples; None: to the batch as a
        whole.
        """
        self._place, self._samples = place, samples

    def _count(self) -> float:
        return self._batch_size_of() if self._samples is None else self._samples

    def _note(self, name: str, value: Any, *options: Any, **named: Any) -> None:
        self._log(name, value, *options, **named)
        metrics = self._metrics
        entry = metrics.entry(name)
        if entry is None or not entry.on_step:
            return
        if not entry.syncs and self._samples is None:
            return  # it is that of the batch already
        given = options[_BATCH_SIZE] if len(options) > _BATCH_SIZE else named.get("batch_size")
        group = options[_GROUP] if len(options) > _GROUP else named.get("sync_dist_group")
        key = (metrics.hook, name)
        self._entries[key] = entry, group
        weight = given or self._count() if entry.reduction == "mean" else 1.0
        self._values.setdefault(key, {})[self._place] = entry.last, weight

    def finish(self) -> None:
        """All parts are run: make the values of the step those of the batch, and of all processes where that is asked
        for.
        """
        metrics, hook = self._metrics, self._metrics.hook
        for (metrics.hook, name), (entry, group) in self._entries.items():
            parts = list(self._values[metrics.hook, name].values())
            if len(parts) > 1:
                entry.last = _of_batch(entry.reduction, parts)
            if entry.syncs:
                weight = sum(weight for _, weight in parts)
                metrics.sync_step(entry, weight if entry.reduction == "mean" else 1.0, group)
        metrics.hook = hook


def _of_batch(reduction: str, parts: list[tuple[Any, float]]) -> Any:
    """One value of those of the parts, each with its weight."""
    last = parts[-1][0]
    if not all(isinstance(value, (Tensor, int, float)) for value, _ in parts):
        return last  # of a metric object that has no number for a step
    dtype = last.dtype if isinstance(last, Tensor) else None
    wide = [double(torch.as_tensor(value)).reshape(()) for value, _ in parts]
    if reduction == "mean":
        total: Any = sum(value * weight for value, (_, weight) in zip(wide, parts)) / sum(weight for _, weight in parts)
    else:
        combine: Callable[..., Any] = {"sum": sum, "min": _least, "max": _greatest}[reduction]
        total = combine(wide)
    if dtype is None:
        return float(total)
    return total.to(dtype if dtype.is_floating_point else torch.get_default_dtype())


def _least(values: list[Tensor]) -> Tensor:
    return torch.stack(values).amin()


def _greatest(values: list[Tensor]) -> Tensor:
    return torch.stack(values).amax()
