"""The progress bar for terminals and notebooks."""

from __future__ import annotations

import atexit
from dataclasses import dataclass
from importlib import import_module
from time import monotonic
from typing import TYPE_CHECKING, Any

from fulmen.callbacks.progress.plain_progress import (
    INTERVAL_SECONDS,
    PlainLines,
    finished_text,
    keeps_plain,
    running_text,
)
from fulmen.callbacks.progress.timed_progress import Line, TimedProgress
from fulmen.utilities.seed import isolate_rng

if TYPE_CHECKING:
    from rich.console import Console
    from rich.progress import ProgressColumn, Task
    from rich.style import Style

    from fulmen.callbacks.progress.rich_parts import CustomProgress
    from fulmen.core.module import LightningModule
    from fulmen.trainer.trainer import Trainer

_PARTS = (
    "BatchesProcessedColumn",
    "CustomBarColumn",
    "CustomProgress",
    "CustomTimeColumn",
    "MetricsTextColumn",
    "ProcessingSpeedColumn",
)


def __getattr__(name: str) -> Any:
    if name in _PARTS:
        return getattr(import_module("fulmen.callbacks.progress.rich_parts"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


@dataclass
class RichProgressBarTheme:
    """How a :class:`RichProgressBar` looks.

    Attributes:
        description: style of the words before the bar.
        progress_bar: colour of the bar.
        progress_bar_finished: colour of the bar when it is full.
        progress_bar_pulse: colour of the bar while the total is not known.
        batch_progress: style of ``n/total``.
        time: style of the elapsed and the remaining time.
        processing_speed: style of the speed.
        metrics: style of the metrics.
        metrics_text_delimiter: what stands between two metrics.
        metrics_format: the format of a float.

    Styles are those of rich: ``"bold"``, ``"green"``, ``"#d79921"``, ``"dim italic"``, ... or ``rich.style.Style``.
    """

    description: str | Style = ""
    progress_bar: str | Style = "#d79921"
    progress_bar_finished: str | Style = "#d79921"
    progress_bar_pulse: str | Style = "#d79921"
    batch_progress: str | Style = ""
    time: str | Style = "dim"
    processing_speed: str | Style = "dim"
    metrics: str | Style = ""
    metrics_text_delimiter: str = " "
    metrics_format: str = ".3f"


class RichProgressBar(TimedProgress):
    """A calm line for training, and a second one while validation runs. The default in terminals and notebooks.

    It is redrawn from the training loop when the clock says so: there is no thread, and between two refreshes a batch
    costs one look at the clock. What is printed, or logged, meanwhile appears above the bar. Where nothing can be drawn
    over (a file, a pipe) it prints the lines of :class:`~fulmen.callbacks.progress.plain_progress.PlainProgress`.

    Args:
        refresh_rate: refreshes per second, at most; 0 disables the bar.
        leave: keep the line of each finished epoch on the screen.
        theme: colours, styles and the format of numbers.
        console_kwargs: arguments for ``rich.console.Console``, as ``{"stderr": True}``.

    Raises:
        ValueError: ``refresh_rate`` is negative.
    """

    def __init__(
        self,
        refresh_rate: float = 5,
        leave: bool = False,
        theme: RichProgressBarTheme = RichProgressBarTheme(),  # noqa: B008 (it is never changed)
        console_kwargs: dict[str, Any] | None = None,
    ) -> None:
        if refresh_rate < 0:
            raise ValueError(
                f"`RichProgressBar(refresh_rate={refresh_rate})`: write refreshes per second, or 0 for no bar."
            )
        self._refresh_rate = refresh_rate
        self._leave = leave
        self._console_kwargs = console_kwargs or {}
        self.theme = theme
        self.progress: CustomProgress | None = None  # while something is on the screen
        self._console: Console | None = None  # from setup to the end of the run
        self._plain: PlainLines | None = None  # when nothing can be redrawn

    @property
    def refresh_rate(self) -> float:
        """Refreshes per second, at most."""
        return self._refresh_rate

    @property
    def is_enabled(self) -> bool:
        return self._enabled and self._refresh_rate > 0

    @property
    def train_progress_bar(self) -> Task | None:
        """rich's task for the epoch, None while there is none. So for the other stages below."""
        return self._task("train")

    @property
    def val_sanity_check_bar(self) -> Task | None:
        return self._task("sanity_check")

    @property
    def val_progress_bar(self) -> Task | None:
        return self._task("validate")

    @property
    def test_progress_bar(self) -> Task | None:
        return self._task("test")

    def _task(self, stage: str) -> Task | None:
        tasks = self.progress.tasks if self.progress is not None else []
        return next((task for task in tasks if task.fields["line"].stage == stage), None)

    def configure_columns(self, trainer: Trainer) -> list[ProgressColumn]:
        """The columns of a line. Override this to choose others; any of rich's will do."""
        from fulmen.callbacks.progress import rich_parts as parts

        theme = self.theme
        return [
            parts.DescriptionColumn(theme.description),
            parts.CustomBarColumn(
                complete_style=theme.progress_bar,
                finished_style=theme.progress_bar_finished,
                pulse_style=theme.progress_bar_pulse,
            ),
            parts.BatchesProcessedColumn(theme.batch_progress),
            parts.CustomTimeColumn(theme.time),
            parts.ProcessingSpeedColumn(theme.processing_speed),
            parts.MetricsTextColumn(trainer, theme.metrics, theme.metrics_text_delimiter, theme.metrics_format),
        ]

    def refresh(self, hard: bool = False) -> None:
        """Draw what is there, now. ``hard`` makes no difference: whatever is drawn is drawn at once."""
        if self.progress is not None:
            self.progress.refresh()

    def print(self, *args: Any, sep: str = " ", end: str = "\n", **kwargs: Any) -> None:
        """Print as ``print`` does, above the bar; brackets are characters like all others."""
        if self.progress is None or self.progress.console.is_jupyter or "file" in kwargs:
            print(*args, sep=sep, end=end, **kwargs)
        else:
            self.progress.console.print(
                sep.join(map(str, args)), end=end, markup=False, highlight=False, emoji=False, soft_wrap=True
            )

    # when: besides the intervals, a line is drawn as soon as it begins and, if anybody has seen it, when it ends

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        super().setup(trainer, pl_module, stage)
        if self.is_disabled:
            return
        with isolate_rng(include_cuda=False):  # rich draws a random number when it is imported
            from rich.console import Console

        self._console = Console(**self._console_kwargs)
        if self._console.is_jupyter or self._console.is_interactive:
            self._plain = None
            self.interval = 1 / self._refresh_rate
        else:
            self._plain = PlainLines()
            self.interval = INTERVAL_SECONDS
            self._due = monotonic() + self.interval

    def on_train_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        super().on_train_epoch_start(trainer, pl_module)
        self._refresh_if_due(trainer)

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        super().on_train_epoch_end(trainer, pl_module)
        if self.progress is not None and self._train is not None and self._train.shown:
            self._train.metrics = self.get_metrics(trainer, pl_module)
            self._refresh(trainer)

    def _begin_evaluation(self, trainer: Trainer, description: str, batches: list[int | float]) -> None:
        super()._begin_evaluation(trainer, description, batches)
        self._refresh_if_due(trainer)

    def _finish_evaluation(self, trainer: Trainer, pl_module: LightningModule) -> None:
        seen = self._evaluation is not None and self._evaluation.shown
        super()._finish_evaluation(trainer, pl_module)
        if self.progress is None or not seen:
            return
        if self._train is not None and not trainer.is_last_batch:  # else the end of the epoch shows them in a moment
            self._train.metrics = self.get_metrics(trainer, pl_module)
        self._refresh(trainer)

    def _refresh_if_due(self, trainer: Trainer) -> None:
        if self._plain is None and monotonic() >= self._due:
            self._refresh(trainer)

    # how

    def _show(self, trainer: Trainer) -> None:
        lines = [line for line in (self._train, self._evaluation) if line is not None]
        if self._plain is not None:
            if self._plain.have_room():
                self._plain.write(running_text(lines[-1], trainer))
            return
        progress = self.progress or self._open(trainer)
        tasks = {id(task.fields["line"]): task.id for task in progress.tasks}
        for line in lines:
            if (task := tasks.pop(id(line), None)) is None:
                progress.add_task(line.description, total=line.total, completed=line.completed, line=line)
            else:
                progress.update(task, completed=line.completed)
        for gone in tasks.values():
            progress.remove_task(gone)
        progress.refresh()

    def _open(self, trainer: Trainer) -> CustomProgress:
        from rich.console import Console

        from fulmen.callbacks.progress.rich_parts import CustomProgress

        self.progress = CustomProgress(
            *self.configure_columns(trainer), console=self._console or Console(**self._console_kwargs)
        )
        atexit.register(self._close)  # gives the cursor back even if nobody tells us that the run is over
        self.progress.start()
        return self.progress

    def _keeps(self, trainer: Trainer, line: Line) -> bool:
        if self._plain is not None:
            return keeps_plain(trainer, line) and self._plain.have_room()
        return self._leave and line.stage == "train"

    def _keep(self, trainer: Trainer, line: Line, last: bool) -> None:
        if self._plain is not None:
            self._plain.write(finished_text(line, trainer))
            return
        self._show(trainer)
        if not last and self.progress is not None:  # the last one simply stays where it is
            self.progress.console.print(self.progress.get_renderable())

    def _close(self) -> None:
        progress, self.progress, self._console = self.progress, None, None
        if progress is not None:
            atexit.unregister(self._close)
            progress.stop()
