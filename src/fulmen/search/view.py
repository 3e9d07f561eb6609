"""How a search goes: a live table in a terminal, else a line for each trial."""

from __future__ import annotations

import sys
import time
from types import TracebackType
from typing import Any, Self

from fulmen.search.study import failure_of, ranked, shown_parameters, state_counts, value_text
from fulmen.search.workers import Workers

_SECONDS_BETWEEN_LOOKS = 0.5


def duration_text(seconds: float) -> str:
    """``12 s``, ``3 min 5 s``, ``2 h 10 min``."""
    whole = int(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60} s"
    return f"{whole // 3600} h {whole % 3600 // 60} min"


class View:
    """Shows a search while it runs.

    Args:
        study: Optuna's.
        monitor: the metric.
        maximize: whether a higher one is better.
        trials: how many there shall be; None: no limit.
        epochs: of a trial, if that is known.
    """

    def __init__(self, study: Any, monitor: str, maximize: bool, trials: int | None, epochs: int | None) -> None:
        self.study, self.monitor, self.maximize, self.trials, self.epochs = study, monitor, maximize, trials, epochs
        self._live: Any = None
        self._next_look = 0.0
        self._best: int | None = None

    def __enter__(self) -> Self:
        if sys.stdout.isatty():
            from rich.console import Console
            from rich.live import Live

            self._live = Live(console=Console(highlight=False), refresh_per_second=4, transient=True)
            self._live.__enter__()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if self._live is not None:
            self._live.__exit__(kind, error, traceback)
            self._live = None

    def say(self, text: str) -> None:
        """A line that stays."""
        if self._live is None:
            print(text, flush=True)
        else:
            self._live.console.print(text, markup=False)

    def finished(self, trial: Any, state: str) -> None:
        """A trial is over: one line."""
        frozen = self.study.trials[trial.number]
        parameters = shown_parameters(frozen.params)
        took = frozen.duration.total_seconds() if frozen.duration is not None else 0.0
        match state:
            case "complete":
                what = f"{self.monitor} = {value_text(frozen.value)}"
                best = ranked(self.study.get_trials(deepcopy=False), self.maximize)[0]
                if best.number == trial.number:
                    what += "  (best so far)"
            case "pruned":
                at = frozen.last_step
                what = "pruned" + (
                    f" after epoch {at}, {self.monitor} = {value_text(frozen.value)}" if at is not None else ""
                )
            case _:
                what = f"failed: {failure_of(frozen)}"
        self.say(f"trial {trial.number:<3}  {what}  [{parameters}]  {duration_text(took)}")

    def look(self, workers: Workers) -> None:
        """Draw anew, now and then."""
        if self._live is None or time.monotonic() < self._next_look:
            return
        self._next_look = time.monotonic() + _SECONDS_BETWEEN_LOOKS
        self._live.update(self._drawn(workers))

    def _drawn(self, workers: Workers) -> Any:
        from rich.console import Group
        from rich.table import Table
        from rich.text import Text

        trials = self.study.get_trials(deepcopy=False)
        counts, best = state_counts(trials), ranked(trials, self.maximize)
        over = counts["complete"] + counts["pruned"] + counts["fail"]
        words = [
            f"{over}{f' of {self.trials}' if self.trials is not None else ''} trials",
            f"{counts['complete']} complete",
            f"{counts['pruned']} pruned",
            f"{counts['fail']} failed",
            duration_text(time.monotonic() - workers.began),
        ]
        head = Text("  ".join(words), style="bold")
        parts: list[Any] = [head]
        if best:
            parts.append(
                Text(
                    f"best so far: trial {best[0].number}  {self.monitor} = {value_text(best[0].value)}  "
                    f"[{shown_parameters(best[0].params)}]",
                    style="green",
                )
            )
        table = Table(box=None, pad_edge=False, header_style="dim")
        for name, justify in (("running", "left"), ("epoch", "right"), (self.monitor, "right"), ("time", "right")):
            table.add_column(name, justify=justify, no_wrap=True)  # type: ignore[arg-type]
        table.add_column("parameters", overflow="fold")
        by_number = {trial.number: trial for trial in trials}
        for one in sorted(workers.running, key=lambda one: one.trial.number):
            frozen = by_number[one.trial.number]
            step = frozen.last_step
            table.add_row(
                f"trial {frozen.number}",
                "" if step is None else f"{step + 1}{f'/{self.epochs}' if self.epochs else ''}",
                "" if step is None else value_text(frozen.intermediate_values[step]),
                duration_text(time.monotonic() - one.began),
                shown_parameters(frozen.params),
            )
        if workers.running:
            parts += [Text(), table]
        return Group(*parts)
