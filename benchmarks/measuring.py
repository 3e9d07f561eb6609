"""What the benchmarks share: a clock that contenders call, quiet output, and tables."""

from __future__ import annotations

import contextlib
import cProfile
import gc
import json
import logging
import os
import platform
import statistics
import subprocess
import sys
import time
import warnings
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, field
from typing import Literal

import torch


class Clock:
    """Called once at every training step; keeps the time of every ``steps_per_stamp``-th call.

    What lies between two steps of one run is thus measured, and a framework's start and end are not.
    """

    def __init__(self, steps_per_stamp: int, now: Callable[[], float] = time.perf_counter) -> None:
        self.steps_per_stamp = steps_per_stamp
        self.now = now
        self.stamps: list[float] = []
        self._steps_left = 1

    def __call__(self) -> None:
        self._steps_left -= 1
        if self._steps_left == 0:
            self.stamps.append(self.now())
            self._steps_left = self.steps_per_stamp

    def seconds(self, warmup: int = 1) -> list[float]:
        """The seconds between stamps, without the first ``warmup`` of them."""
        return [later - earlier for earlier, later in zip(self.stamps, self.stamps[1:])][warmup:]


class ProfilingClock(Clock):
    """Runs ``cProfile`` from one call to another, so that its counts are those of ``last - first`` whole steps."""

    def __init__(self, first: int, last: int) -> None:
        super().__init__(steps_per_stamp=1)
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
    """One contender's seconds, one number per stamp, over all rounds."""

    contender: str
    seconds: list[float] = field(default_factory=list)

    @property
    def least(self) -> float:
        return min(self.seconds)

    @property
    def median(self) -> float:
        return statistics.median(self.seconds)


def interleave(
    contenders: dict[str, Callable[[Clock], None]], rounds: int, make_clock: Callable[[], Clock], per: int = 1
) -> list[Result]:
    """Run all contenders in turn, ``rounds`` times, so that a slow minute of the machine meets them all.

    Args:
        contenders: functions that train once, calling the clock at every step, by name.
        rounds: how often each one trains.
        make_clock: a new clock for each training.
        per: what to divide a stamp's seconds by.
    """
    results = {name: Result(name) for name in contenders}
    for _ in range(rounds):
        for name, contender in contenders.items():
            gc.collect()
            clock = make_clock()
            contender(clock)
            results[name].seconds += [seconds / per for seconds in clock.seconds()]
    return list(results.values())


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
    """One thread, no warnings, no INFO lines: the same for everyone."""
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")
    logging.disable(logging.INFO)


def table(title: str, results: list[Result], unit: Literal["us", "ms"] = "us") -> str:
    """The results beside the first one, which is the plain loop."""
    scale = 1e6 if unit == "us" else 1e3
    plain = results[0]
    head = ("", f"min {unit}", f"median {unit}", "over plain (min)", "over plain (median)", "ratio (min)")
    rows = [
        (
            result.contender,
            f"{scale * result.least:.1f}",
            f"{scale * result.median:.1f}",
            f"{scale * (result.least - plain.least):+.1f}",
            f"{scale * (result.median - plain.median):+.1f}",
            f"{result.least / plain.least:.3f}",
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
    results = {
        name: [asdict(result) | {"min": result.least, "median": result.median} for result in results]
        for name, results in named.items()
    }
    return json.dumps({"machine": machine, "seconds": results}, indent=1)
