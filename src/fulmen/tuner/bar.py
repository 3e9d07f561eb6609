"""One line that shows how far a search is. Where lines cannot be redrawn, there is none."""

from __future__ import annotations

from time import monotonic
from typing import TYPE_CHECKING, Any

from fulmen.callbacks.progress.timed_progress import Line
from fulmen.utilities.seed import isolate_rng

if TYPE_CHECKING:
    from fulmen.trainer.trainer import Trainer

_SECONDS = 0.2  # between two looks


class Bar:
    """A line such as ``Learning rate  ━━━━  45/100  0:01 • 0:02  loss: 1.23``, in a terminal or a notebook.

    Args:
        description: the words before the line.
        total: the steps; None: they are not known.
        shows: False: show nothing. See :func:`may_show`.
    """

    def __init__(self, description: str, total: int | None, shows: bool) -> None:
        self._line = Line("train", description, total, monotonic())
        self._shows = shows
        self._progress: Any = None
        self._task: Any = None
        self._due = 0.0

    def __enter__(self) -> Bar:
        if not self._shows:
            return self
        with isolate_rng(include_cuda=False):  # rich draws a random number when it is imported
            from rich.console import Console

            from fulmen.callbacks.progress import rich_parts as parts
        console = Console()
        if not (console.is_jupyter or console.is_interactive):
            return self
        colour = "#d79921"  # as the bar of a run
        self._progress = parts.CustomProgress(
            parts.DescriptionColumn(),
            parts.CustomBarColumn(complete_style=colour, finished_style=colour, pulse_style=colour),
            parts.BatchesProcessedColumn(""),
            parts.CustomTimeColumn("dim"),
            parts.MetricsTextColumn(),
            console=console,
        )
        line = self._line
        self._task = self._progress.add_task(line.description, total=line.total, line=line)
        self._progress.start()
        return self

    def advance(self, **values: Any) -> None:
        """A step is done; ``values`` are shown beside the line."""
        if self._progress is None:
            return
        now = monotonic()
        self._line.advance(self._line.completed + 1, now)
        self._line.metrics = values or self._line.metrics
        if now >= self._due:
            self._due = now + _SECONDS
            self._show()

    def _show(self) -> None:
        self._progress.update(self._task, completed=self._line.completed)
        self._progress.refresh()

    def __exit__(self, *exception: object) -> None:
        if self._progress is not None:
            self._show()
            self._progress.stop()


def may_show(trainer: Trainer) -> bool:
    """Whether a line of a search has a place on the screen."""
    bar = trainer.progress_bar_callback
    return trainer.is_global_zero and bar is not None and bar.is_enabled and getattr(bar, "progress", None) is None
