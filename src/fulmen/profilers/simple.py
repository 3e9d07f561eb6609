"""How long each action took."""

from __future__ import annotations

import time
from array import array
from collections import Counter, defaultdict
from collections.abc import Iterable
from functools import partial
from pathlib import Path

from fulmen.profilers.profiler import Profiler


class SimpleProfiler(Profiler):
    """Measure the wall time of every action and report it as a table, the longest first.

    Args:
        dirpath: where the report is written; None for the trainer's ``log_dir``.
        filename: the report's name; None prints it.
        extended: whether the table also has the number of calls and the share of the whole run. Actions lie within
            each other, so the shares add up to more than 100 %.

    Attributes:
        recorded_durations: the seconds of each call by action, of this run.
    """

    def __init__(self, dirpath: str | Path | None = None, filename: str | None = None, extended: bool = True) -> None:
        super().__init__(dirpath, filename)
        self.extended = extended
        self.current_actions: dict[str, float] = {}
        self.recorded_durations: defaultdict[str, array[float]] = defaultdict(partial(array, "d"))
        self.start_time = time.perf_counter()
        self._reported = False

    def setup(self, stage: str, local_rank: int | None = None, log_dir: str | None = None) -> None:
        super().setup(stage, local_rank, log_dir)
        if self._reported or not self.recorded_durations:
            self.start_time = time.perf_counter()
        if self._reported:  # what an earlier run has reported belongs to it
            self.recorded_durations.clear()
            self._reported = False

    def start(self, action_name: str) -> None:
        if action_name in self.current_actions:
            raise ValueError(f"The action {action_name!r} was started twice: stop it before it starts again.")
        self.current_actions[action_name] = time.perf_counter()

    def stop(self, action_name: str) -> None:
        now = time.perf_counter()
        if action_name not in self.current_actions:
            raise ValueError(f"The action {action_name!r} was stopped but never started: call start({action_name!r}).")
        self.recorded_durations[action_name].append(now - self.current_actions.pop(action_name))

    def describe(self) -> None:
        super().describe()
        self._reported = True

    def teardown(self, stage: str | None) -> None:
        self.current_actions.clear()  # an exception leaves actions open

    def summary(self) -> str:
        whole = time.perf_counter() - self.start_time
        totals = {action: sum(durations) for action, durations in self.recorded_durations.items()}
        names = _shortened(totals)
        rows = []
        for action in sorted(totals, key=lambda action: -totals[action]):
            calls = len(self.recorded_durations[action])
            share = 100 * totals[action] / whole
            rows.append(
                (names[action], f"{totals[action] / calls:.7f}", str(calls), f"{totals[action]:.4f}", f"{share:.2f}")
            )
        rows.insert(0, ("Total", "-", str(sum(map(len, self.recorded_durations.values()))), f"{whole:.4f}", "100.00"))
        head = ("Action", "Mean duration (s)", "Num calls", "Total time (s)", "Percentage %")
        if not self.extended:
            head, rows = _short(head), [_short(row) for row in rows]
        title = f"{(self._stage or '').upper()} Profiler Report".strip()
        return f"\n{title}\n{_table(head, rows)}\n"


def _short(row: tuple[str, ...]) -> tuple[str, ...]:
    return (row[0], row[1], row[3])


def _shortened(actions: Iterable[str], width: int = 96) -> dict[str, str]:
    """Names that leave the table narrow enough for a screen: long ones lose their middle, unless two became equal."""
    head = width - 40  # the end says which hook it was
    short = {a: a if len(a) <= width else f"{a[:head]}...{a[-37:]}" for a in actions}
    counts = Counter(short.values())
    return {action: name if counts[name] == 1 else action for action, name in short.items()}


def _table(head: tuple[str, ...], rows: list[tuple[str, ...]]) -> str:
    """Names to the left, numbers to the right, each column as wide as its widest cell."""
    widths = [max(map(len, column)) for column in zip(head, *rows)]
    lines = [
        "| " + " | ".join([row[0].ljust(widths[0]), *map(str.rjust, row[1:], widths[1:])]) + " |"
        for row in (head, *rows)
    ]
    rule = "-" * len(lines[0])
    return "\n".join([rule, lines[0], rule, lines[1], rule, *lines[2:], rule])
