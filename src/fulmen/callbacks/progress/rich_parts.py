"""What the rich bar is made of. This module imports rich, so it is itself imported only when a bar is shown."""

from __future__ import annotations

import io
import logging
import os
import sys
from typing import TYPE_CHECKING, Any

from rich.ansi import AnsiDecoder
from rich.console import Console
from rich.measure import Measurement
from rich.progress import BarColumn, Progress, ProgressColumn, Task, TaskID
from rich.table import Column, Table
from rich.text import Text

from fulmen.callbacks.progress.timed_progress import Line, clock_text, count_text, speed_text

if TYPE_CHECKING:
    from collections.abc import Iterable

    from rich.style import Style

BAR_WIDTH = 40
NARROW_BAR_WIDTH = 8
GAP = 2


class CustomBarColumn(BarColumn):
    """The bar. It takes what room the other columns leave, between 8 and 40 characters."""


class DescriptionColumn(ProgressColumn):
    """What is going on; square brackets are characters like all others."""

    def __init__(self, style: str | Style = "") -> None:
        self.style = style
        super().__init__()

    def render(self, task: Task) -> Text:
        return Text(task.description, style=self.style)


class BatchesProcessedColumn(ProgressColumn):
    """``12/100``, or ``12/--`` when the total is not known."""

    def __init__(self, style: str | Style) -> None:
        self.style = style
        super().__init__(Column(justify="right"))

    def render(self, task: Task) -> Text:
        total = None if task.total is None or task.total == float("inf") else int(task.total)
        return Text(count_text(int(task.completed), total), style=self.style)


class CustomTimeColumn(ProgressColumn):
    """The time that has passed and the time that is left: ``0:12 • 1:40``."""

    def __init__(self, style: str | Style) -> None:
        self.style = style
        super().__init__()

    def render(self, task: Task) -> Text:
        line = task.fields.get("line")
        elapsed, remaining = (
            (line.elapsed, line.remaining) if isinstance(line, Line) else (task.elapsed, task.time_remaining)
        )
        return Text(f"{clock_text(elapsed)} • {clock_text(remaining)}", style=self.style)


class ProcessingSpeedColumn(ProgressColumn):
    """Batches per second."""

    def __init__(self, style: str | Style) -> None:
        self.style = style
        super().__init__(Column(justify="right"))

    def render(self, task: Task) -> Text:
        line = task.fields.get("line")
        return Text(speed_text(line.speed if isinstance(line, Line) else task.speed), style=self.style)


class MetricsTextColumn(ProgressColumn):
    """The metrics of a line, as ``name: value``. ``trainer`` is not used, and not kept."""

    def __init__(
        self, trainer: Any = None, style: str | Style = "", text_delimiter: str = " ", metrics_format: str = ".3f"
    ) -> None:
        self.style = style
        self.text_delimiter = text_delimiter
        self.metrics_format = metrics_format
        super().__init__()

    def render(self, task: Task) -> Text:
        line = task.fields.get("line")
        metrics = line.metrics if isinstance(line, Line) else {}
        return Text(
            self.text_delimiter.join(f"{name}: {self._shown(value)}" for name, value in metrics.items()), self.style
        )

    def _shown(self, value: Any) -> str:
        return format(value, self.metrics_format) if isinstance(value, float) else str(value)


class CustomProgress(Progress):
    """Lines of columns that are drawn when asked, never by a thread, and always fit the width.

    When the room is short the bar shrinks first, then the speed goes, then the bar, then the time; last the metrics are
    cut. A column that has grown does not shrink again, so that the line does not tremble with its numbers.
    """

    def __init__(self, *columns: ProgressColumn, console: Console) -> None:
        self._page = console  # the base asks for the table before it has made `console` available
        self._widest: dict[ProgressColumn, int] = {}
        self._streams: list[StreamAbove] = []
        self._notebook: Any = None
        super().__init__(*columns, console=console, auto_refresh=False, redirect_stdout=False, redirect_stderr=False)

    @property
    def redraws(self) -> bool:
        """Whether what was drawn can be drawn over."""
        return self.console.is_jupyter or self.console.is_interactive

    def start(self) -> None:
        if self.console.is_jupyter:
            return
        super().start()
        self._streams = StreamAbove.redirect(self.console)

    def stop(self) -> None:
        if self.console.is_jupyter:
            self._notebook = None
            return
        try:
            for stream in self._streams:
                stream.restore()
            self._streams = []
        finally:
            self.live.stop()  # draws the last state, and gives the cursor back

    def refresh(self) -> None:
        if self.console.is_jupyter:
            self._refresh_notebook()
        elif self.live.is_started:
            self.live.refresh()

    def _refresh_notebook(self) -> None:
        from IPython.display import HTML, display  # type: ignore[import-not-found]

        page = Console(
            file=io.StringIO(), record=True, width=self.console.width, force_jupyter=False, force_terminal=True
        )
        page.print(self.get_renderable())
        style = (
            "white-space:pre;overflow-x:auto;line-height:normal;font-family:Menlo,'DejaVu Sans Mono',consolas,monospace"
        )
        shown = HTML(page.export_html(inline_styles=True, code_format=f'<pre style="{style}">{{code}}</pre>'))
        if self._notebook is None:
            self._notebook = display(shown, display_id=True)
        else:
            self._notebook.update(shown)

    def remove_task(self, task_id: TaskID) -> None:
        super().remove_task(task_id)
        if not self.tasks:
            self._widest.clear()

    def make_tasks_table(self, tasks: Iterable[Task]) -> Table:
        shown = [task for task in tasks if task.visible]
        cells: dict[ProgressColumn, list[Any]] = {}
        for column in self.columns:
            if isinstance(column, ProgressColumn):
                cells[column] = [column(task) for task in shown]
                width = BAR_WIDTH if isinstance(column, BarColumn) else self._width(cells[column])
                self._widest[column] = max(width, self._widest.get(column, 0))
        widths = self._fitting(list(cells))
        for column, width in widths.items():
            if isinstance(column, BarColumn):
                column.bar_width = width
                cells[column] = [column(task) for task in shown]
        made = [self._table_column(column, width) for column, width in widths.items()]
        table = Table.grid(*made, padding=(0, GAP, 0, 0), pad_edge=False)
        for row in range(len(shown)):
            table.add_row(*(cells[column][row] for column in widths))
        return table

    def _width(self, cells: list[Any]) -> int:
        return max((Measurement.get(self._page, self._page.options, cell).maximum for cell in cells), default=0)

    def _fitting(self, columns: list[ProgressColumn]) -> dict[ProgressColumn, int]:
        """The columns for which there is room, and their widths."""
        widths = {column: self._widest[column] for column in columns if self._widest[column]}
        for going in (None, ProcessingSpeedColumn, BarColumn, CustomTimeColumn):
            widths = {
                column: width for column, width in widths.items() if going is None or not isinstance(column, going)
            }
            excess = sum(widths.values()) + GAP * (len(widths) - 1) - self._page.width
            bars = {column: width for column, width in widths.items() if isinstance(column, BarColumn)}
            if excess <= sum(bars.values()) - NARROW_BAR_WIDTH * len(bars):
                each = -(-max(excess, 0) // len(bars)) if bars else 0
                return widths | {column: max(width - each, NARROW_BAR_WIDTH) for column, width in bars.items()}
        for column in widths:
            if isinstance(column, MetricsTextColumn):
                widths[column] = max(widths[column] - excess, 1)
        return widths

    def _table_column(self, column: ProgressColumn, width: int) -> Column:
        made = column.get_table_column().copy()
        made.no_wrap, made.overflow, made.width = True, "ellipsis", width
        return made


class StreamAbove:
    """Stands in for ``sys.stdout`` or ``sys.stderr`` while a bar is on the screen: whole lines are printed above it.

    In a forked process (a worker of a loader) lines are written in the place of the bar, and after :meth:`restore`
    everything goes straight to the stream.
    """

    def __init__(self, name: str, console: Console) -> None:
        self._name = name
        self._stream: Any = getattr(sys, name)
        self._console: Console | None = console
        self._process = os.getpid()
        self._rest = ""
        self._decoder = AnsiDecoder()
        # what ``logging`` writes to this stream with
        self._outlets = [
            outlet
            for logger in (logging.root, logging.getLogger("fulmen"))
            for outlet in logger.handlers
            if isinstance(outlet, logging.StreamHandler) and outlet.stream is self._stream
        ]

    @classmethod
    def redirect(cls, console: Console) -> list[StreamAbove]:
        """Put one in the place of each stream that shows on a terminal, also where ``logging`` writes to it."""
        console.file = console.file  # the stream of this moment: it must not follow ``sys.stdout`` to us
        streams = []
        for name in ("stdout", "stderr"):
            stream = getattr(sys, name)
            if stream is not None and console.is_interactive and stream.isatty() and not isinstance(stream, cls):
                streams.append(cls(name, console))
                for outlet in streams[-1]._outlets:
                    outlet.setStream(streams[-1])
                setattr(sys, name, streams[-1])
        return streams

    def restore(self) -> None:
        """Give the stream its place back, unless somebody else has taken it meanwhile."""
        if self._rest:
            self.write("\n")
        self._console = None
        for outlet in self._outlets:
            if outlet.stream is self:
                outlet.setStream(self._stream)
        if getattr(sys, self._name) is self:
            setattr(sys, self._name, self._stream)

    def write(self, text: str) -> int:
        console = self._console
        if console is None:
            return self._stream.write(text)
        if os.getpid() != self._process:
            clear = "" if self._rest else "\r\x1b[2K"  # the bar is drawn again below what is written over it
            self._rest = (self._rest + text).rpartition("\n")[2]
            return self._stream.write(clear + text)
        whole, newline, self._rest = (self._rest + text).rpartition("\n")
        if newline:
            lines = [self._decoder.decode_line(line) for line in whole.split("\n")]
            console.print(Text("\n").join(lines), soft_wrap=True)
        return len(text)

    def flush(self) -> None:
        self._stream.flush()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)
