"""Progress as plain lines, for files, pipes and the logs of clusters."""

from __future__ import annotations

from math import isfinite
from time import monotonic
from typing import TYPE_CHECKING, Any

from fulmen.callbacks.progress.timed_progress import Line, TimedProgress, clock_text, speed_text

if TYPE_CHECKING:
    from fulmen.core.module import LightningModule
    from fulmen.trainer.trainer import Trainer

INTERVAL_SECONDS = 10.0
BYTES_PER_MINUTE = 8192


class PlainLines:
    """Prints one plain line per call, within a budget of bytes.

    The budget starts half full and gains the other half in a minute, so that no minute exceeds the whole of it. Ask
    :meth:`have_room` first; a line that must be printed (the last one of a run) need not ask.
    """

    __slots__ = ("_bytes", "_filled_at", "_per_minute")

    def __init__(self, bytes_per_minute: float = BYTES_PER_MINUTE) -> None:
        self._per_minute = bytes_per_minute
        self._bytes = bytes_per_minute / 2
        self._filled_at = monotonic()

    def have_room(self) -> bool:
        """Whether another line may be printed now."""
        now = monotonic()
        half = self._per_minute / 2
        self._bytes = min(half, self._bytes + half * (now - self._filled_at) / 60)
        self._filled_at = now
        return self._bytes >= min(256, half)

    def write(self, text: str) -> None:
        print(text, flush=True)
        self._bytes -= len(text) + 1


class PlainProgress(TimedProgress):
    """One plain line per interval, per finished epoch and per finished validation, test or prediction.

    For example ``epoch 2/9  step 420  loss 0.231  val_acc 0.971  12.3 s  (210 it/s)``. This is the default where the
    output is no terminal. Epochs are counted as in the logs and in the names of checkpoints, so ``9/9`` is the last of
    ten. A validation at the end of an epoch has no line of its own: its values stand in the line of the epoch.

    Args:
        interval: seconds between two lines while an epoch or an evaluation runs.
        bytes_per_minute: not more than this is printed in a minute; when epochs are so short that their lines would be
            more, some are left out (never the last).

    Raises:
        ValueError: ``interval`` or ``bytes_per_minute`` is not positive.
    """

    def __init__(self, interval: float = INTERVAL_SECONDS, bytes_per_minute: float = BYTES_PER_MINUTE) -> None:
        for name, value in (("interval", interval), ("bytes_per_minute", bytes_per_minute)):
            if not value > 0:
                raise ValueError(f"`PlainProgress({name}={value!r})`: write a number above 0.")
        self.interval = interval
        self._lines = PlainLines(bytes_per_minute)

    def get_metrics(self, trainer: Trainer, pl_module: LightningModule) -> dict[str, Any]:
        """What was logged with ``prog_bar=True``; the version of the logger would only repeat itself line by line."""
        return dict(trainer.progress_bar_metrics)

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        super().setup(trainer, pl_module, stage)
        self._due += monotonic() + self.interval  # stays infinite when disabled

    def enable(self) -> None:
        self._enabled = True
        self._due = monotonic() + self.interval

    def _show(self, trainer: Trainer) -> None:
        line = self._evaluation or self._train
        if line is not None and self._lines.have_room():
            self._lines.write(running_text(line, trainer))

    def _keeps(self, trainer: Trainer, line: Line) -> bool:
        return keeps_plain(trainer, line) and self._lines.have_room()

    def _keep(self, trainer: Trainer, line: Line, last: bool) -> None:
        self._lines.write(finished_text(line, trainer))

    def _close(self) -> None:
        pass


def keeps_plain(trainer: Trainer, line: Line) -> bool:
    """Whether a finished line is worth a line of text: not the sanity check, nor a validation that ends an epoch."""
    return line.stage == "train" or (line.stage != "sanity_check" and not trainer.is_last_batch)


def finished_text(line: Line, trainer: Trainer) -> str:
    """The line of what is complete: ``epoch 2/9  step 420  loss 0.231  12.3 s  (210 it/s)``."""
    seconds = f"{line.elapsed:.1f} s" if line.elapsed < 60 else clock_text(line.elapsed)
    speed = f"({speed_text(line.average_speed)})" if line.average_speed else ""
    return _joined(*_where(line, trainer), _metrics_text(line.metrics), seconds, speed)


def running_text(line: Line, trainer: Trainer) -> str:
    """The line of what still runs: ``epoch 2/9  batch 120/938  step 360  loss 0.231  0:12, 1:40 left  (210 it/s)``."""
    words, *step = _where(line, trainer)
    batch = f"batch {line.completed}" if line.total is None else f"batch {line.completed}/{line.total}"
    left = "" if line.remaining is None else f", {clock_text(line.remaining)} left"
    speed = f"({speed_text(line.speed)})" if line.speed else ""
    return _joined(words, batch, *step, _metrics_text(line.metrics), f"{clock_text(line.elapsed)}{left}", speed)


def _where(line: Line, trainer: Trainer) -> list[str]:
    words = line.description.lower()
    return [words, f"step {trainer.global_step}"] if trainer.state.fn == "fit" else [words]


def _metrics_text(metrics: dict[str, Any]) -> str:
    return "  ".join(f"{name} {number_text(value)}" for name, value in metrics.items())


def number_text(value: Any) -> str:
    """Four significant digits and no exponent where the number is of a usual size: ``0.231``, ``12.5``, ``1e-05``."""
    if not isinstance(value, float) or not isfinite(value):
        return str(value)
    return f"{value:.4g}" if 0 < abs(value) < 1e-3 or abs(value) >= 1e4 else f"{value:.3f}"


def _joined(*parts: str) -> str:
    return "  ".join(part for part in parts if part)
