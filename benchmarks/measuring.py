"""What the benchmarks share: a clock that contenders call, quiet output, and tables."""

from __future__ import annotations

import contextlib
import cProfile
import json
import logging
import os
import platform
import statistics
import subprocess
import sys
import threading
import warnings
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, field
from functools import partial
from typing import Literal

import torch


class Clock:
    """Called once at every training step; adds up stretches of steps and lets the others have a turn between them.

    What lies between two steps of one run is thus measured; a framework's start and end are not.
    """

    def __init__(self, steps_per_stretch: int, now: Callable[[], float], turn: Callable[[], None]) -> None:
        self.steps_per_stretch = steps_per_stretch
        self.now = now
        self.turn = turn
        self.seconds: list[float] = []  #: of each stretch
        self._since: float | None = None
        self._steps_left = 1

    def __call__(self) -> None:
        self._steps_left -= 1
        if self._steps_left == 0:
            now = self.now()
            if self._since is not None:
                self.seconds.append(now - self._since)
            self.turn()
            self._steps_left = self.steps_per_stretch
            self._since = self.now()


class Turns:
    """Several functions in one process, of which only one runs at a time: each goes on until it passes its turn.

    Every function has a thread of its own, so that a training can be left in the middle and taken up again.
    """

    def __init__(self, functions: dict[str, Callable[[Callable[[], None]], None]]) -> None:
        self._functions = functions
        self._gates = {name: threading.Semaphore(0) for name in functions}
        self._alive = list(functions)
        self._error: BaseException | None = None

    def run(self) -> None:
        """Run all functions to their ends, in turn. Each is called with what it must call to pass its turn."""
        threads = [threading.Thread(target=self._run_one, args=(name,)) for name in self._functions]
        for thread in threads:
            thread.start()
        self._gates[self._alive[0]].release()
        for thread in threads:
            thread.join()
        if self._error is not None:
            raise self._error

    def _run_one(self, name: str) -> None:
        self._gates[name].acquire()
        try:
            torch.set_num_threads(1)
            self._functions[name](lambda: self._pass(name))
        except BaseException as error:
            self._error = self._error or error
        following = self._following(name)
        self._alive.remove(name)
        if following != name:
            self._gates[following].release()

    def _pass(self, name: str) -> None:
        following = self._following(name)
        if following != name:
            self._gates[following].release()
            self._gates[name].acquire()

    def _following(self, name: str) -> str:
        return self._alive[(self._alive.index(name) + 1) % len(self._alive)]


class ProfilingClock(Clock):
    """Runs ``cProfile`` from one call to another, so that its counts are those of ``last - first`` whole steps."""

    def __init__(self, first: int, last: int) -> None:
        self.first, self.last = first, last
        self.calls = 0
        self.profile = cProfile.Profile()

    def __call__(self) -> None:
        self.calls += 1
        if self.calls == self.first:
            self.profile.enable()
        elif self.calls == self.last:
            self.profile.disable()


@dataclass(slots=True)
class Result:
    """One contender's seconds, one number per stretch."""

    contender: str
    seconds: list[float] = field(default_factory=list)

    @property
    def least(self) -> float:
        return min(self.seconds)

    @property
    def median(self) -> float:
        return statistics.median(self.seconds)

    def over(self, plain: Result) -> float:
        """The median of what a stretch took longer than the plain loop's in the same turn."""
        return statistics.median(own - other for own, other in zip(self.seconds, plain.seconds))


def interleave(
    contenders: dict[str, Callable[[Clock], None]],
    steps_per_stretch: int,
    now: Callable[[], float],
    per: int = 1,
    warmup: int = 2,
) -> list[Result]:
    """Train all contenders at once, a stretch of steps each in turn: a slow moment of the machine meets them all.

    Args:
        contenders: functions that train once, calling the clock at every step, by name; the plain loop first.
        steps_per_stretch: how many steps a turn has.
        now: the clock's time in seconds.
        per: what to divide a stretch's seconds by.
        warmup: how many stretches at the start do not count.
    """
    results = [Result(name) for name in contenders]

    def turns_of(result: Result, contender: Callable[[Clock], None], turn: Callable[[], None]) -> None:
        clock = Clock(steps_per_stretch, now, turn)
        contender(clock)
        result.seconds = [seconds / per for seconds in clock.seconds[warmup:]]

    Turns({r.contender: partial(turns_of, r, each) for r, each in zip(results, contenders.values())}).run()
    return results


@contextlib.contextmanager
def output_to(where: Literal["null", "pty"]) -> Iterator[None]:
    """Send what the block prints to /dev/null, or to a terminal that nobody looks at (bars draw only on terminals)."""
    sys.stdout.flush()
    sys.stderr.flush()
    kept = os.dup(1), os.dup(2)
    reader = None
    if where == "pty":
        import fcntl
        import struct
        import termios

        master, target = os.openpty()
        fcntl.ioctl(target, termios.TIOCSWINSZ, struct.pack("HHHH", 24, 100, 0, 0))
        reader = subprocess.Popen(["cat"], stdin=master, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        os.close(master)
        os.environ.setdefault("TERM", "xterm")
    else:
        target = os.open(os.devnull, os.O_WRONLY)
    try:
        os.dup2(target, 1)
        os.dup2(target, 2)
        yield
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os.dup2(kept[0], 1)
        os.dup2(kept[1], 2)
        for descriptor in (*kept, target):
            os.close(descriptor)
        if reader is not None:
            reader.terminate()
            reader.wait()


def quiet() -> None:
    """No warnings, no INFO lines, one thread for torch: the same for everyone."""
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")
    logging.disable(logging.INFO)


def table(title: str, results: list[Result], unit: Literal["us", "ms"] = "us") -> str:
    """The results beside the first one, which is the plain loop."""
    scale = 1e6 if unit == "us" else 1e3
    plain = results[0]
    head = ("", f"min {unit}", f"median {unit}", "over plain (min)", "over plain (paired)", "ratio")
    rows = [
        (
            result.contender,
            f"{scale * result.least:.1f}",
            f"{scale * result.median:.1f}",
            f"{scale * (result.least - plain.least):+.1f}",
            f"{scale * result.over(plain):+.1f}",
            f"{1 + result.over(plain) / plain.median:.3f}",
        )
        for result in results
    ]
    return f"\n{title}\n{aligned(head, rows)}"


def aligned(head: tuple[str, ...], rows: list[tuple[str, ...]]) -> str:
    """Names to the left, numbers to the right."""
    widths = [max(map(len, column)) for column in zip(head, *rows)]
    lines = ["  ".join([row[0].ljust(widths[0]), *map(str.rjust, row[1:], widths[1:])]) for row in (head, *rows)]
    return "\n".join([lines[0], "-" * len(lines[0]), *lines[1:]])


def as_json(named: dict[str, list[Result]]) -> str:
    """All results and the machine they were seen on."""
    machine = {"python": platform.python_version(), "torch": torch.__version__, "cpus": os.cpu_count()}
    results = {name: [_summary(result, results[0]) for result in results] for name, results in named.items()}
    return json.dumps({"machine": machine, "seconds": results}, indent=1)


def _summary(result: Result, plain: Result) -> dict[str, object]:
    return asdict(result) | {"min": result.least, "median": result.median, "over_plain": result.over(plain)}
