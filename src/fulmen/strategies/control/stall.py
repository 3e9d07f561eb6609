"""Where each process is, and what is told when none of them gets on."""

from __future__ import annotations

import json
import sys
import threading
import time
import traceback
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from types import FrameType
from typing import Any, NamedTuple

#: modules by their beginning, and what a process does while one of their functions runs; the innermost counts
_WORK = (
    ("torch.utils.data.", "waiting for data"),
    ("fulmen.trainer.sources", "waiting for data"),
    ("fulmen.trainer.streams", "waiting for data"),
    ("fulmen.plugins.io.", "saving"),
    ("fulmen.callbacks.checkpointing.", "saving"),
    ("torch.distributed.checkpoint", "saving"),
    ("fulmen.loops.evaluate", "evaluation"),
    ("fulmen.loops.predict", "prediction"),
    ("fulmen.loops.fit", "training"),
)
_MEETINGS = (
    "torch.distributed.distributed_c10d",
    "torch.distributed._functional_collectives",
    "fulmen.strategies.control",
)
_SAVING = ("save_checkpoint", "save_now")  #: also of the user's classes
_BACKWARD = "_engine_run_backward"
_WITHOUT_COUNTERS = ("setting up", "saving")  #: whoever is at another line than before advances
_PATIENCE = 3  #: times as long may what takes long by its nature take: to set up, to save, the first batch of an epoch


class Counters(NamedTuple):
    """How far a run is.

    Attributes:
        numbers: they grow as the run advances; the last one is the number of batches of the current pass.
        where: the same for people: ``"epoch 0, batch 5"``.
        state: something that changes while the numbers stand still, though the run advances.
    """

    numbers: tuple[int, ...]
    where: str
    state: object = None


@dataclass(slots=True)
class Place:
    """Where a process is.

    Attributes:
        counters: what it has done so far; while they stay the same, it does not advance.
        where: the same for people: ``"epoch 0, batch 5"``.
        work: what it does: ``"training"``, ``"waiting for data"``, ``"evaluation"``, ``"saving"``, ``"setting up"``...
        waits_in: the function in which it waits for other processes, or "".
        takes_long: by its nature, it may do so for longer than a step.
        seconds: for how long it has not advanced.
        message: the number of this message, so that no two are alike.
    """

    counters: list[Any] = field(default_factory=list)
    where: str = ""
    work: str = "it has not begun this run"
    waits_in: str = ""
    takes_long: bool = True
    seconds: float = 0.0
    message: int = 0

    def to_text(self) -> str:
        """As it is put into the store."""
        return json.dumps(asdict(self))

    @classmethod
    def from_text(cls, text: bytes) -> Place:
        """As it is read from there."""
        return cls(**json.loads(text))

    def __str__(self) -> str:
        work = f"{self.work}, waits for the others in {self.waits_in}" if self.waits_in else self.work
        return ", ".join(part for part in (self.where, work) if part)


class Whereabouts:
    """Finds out where this process is, without its help: from its counters, and its main thread's stack.

    Args:
        counters: gives the counters of the run.
    """

    def __init__(self, counters: Callable[[], Counters]) -> None:
        self._counters, self._thread = counters, threading.get_ident()
        self._last: tuple[Any, ...] = ()
        self._since = time.monotonic()
        self._messages = 0

    def now(self) -> Place:
        """Where this process is now."""
        numbers, where, changes = self._counters()
        frame = sys._current_frames().get(self._thread)
        work, waits_in = _work_of(frame)
        now, state = time.monotonic(), (*numbers, work, changes)
        if work in _WITHOUT_COUNTERS and frame is not None and not waits_in:
            state = (*state, frame.f_code, frame.f_lineno)
        if state != self._last:
            self._last, self._since = state, now
        takes_long = work in _WITHOUT_COUNTERS or (work == "waiting for data" and not numbers[-1])
        self._messages += 1
        return Place([*numbers], where, work, waits_in, takes_long, now - self._since, self._messages)


def _work_of(frame: FrameType | None) -> tuple[str, str]:
    work, waits_in, innermost = "", "", True
    while frame is not None and not work:
        module, function = frame.f_globals.get("__name__", ""), frame.f_code.co_name
        if module.startswith(_MEETINGS):
            waits_in = function
        elif function == _BACKWARD and innermost:
            waits_in = "backward"
        innermost = False
        if function in _SAVING:
            return "saving", waits_in
        work = next((work for start, work in _WORK if module.startswith(start)), "")
        frame = frame.f_back
    return work or "setting up", waits_in


def is_stalled(places: list[Place], timeout: float) -> bool:
    """Whether no process has advanced for ``timeout`` seconds, or longer where something takes long by its nature."""
    patience = timeout * (_PATIENCE if any(place.takes_long for place in places) else 1)
    return all(place.seconds >= patience for place in places)


def behind(places: list[Place]) -> list[int]:
    """The ranks that the others wait for."""
    at_work = [rank for rank, place in enumerate(places) if not place.waits_in]
    if at_work and len(at_work) < len(places):
        return at_work
    least = min(place.counters for place in places)
    return [rank for rank, place in enumerate(places) if place.counters == least]


def verdict(places: list[Place]) -> str:
    """Who is behind, in a line."""
    late = behind(places)
    if len(late) == len(places):
        return "no process is behind the others"
    what = _ranks(late)
    waiting = [rank for rank in range(len(places)) if rank not in late]
    waits = "waits" if len(waiting) == 1 else "wait"
    return f"{what} {'is' if len(late) == 1 else 'are'} behind ({places[late[0]]}); {_ranks(waiting)} {waits} for it"


def _ranks(ranks: list[int]) -> str:
    names = ", ".join(map(str, ranks[:8])) + (" ..." if len(ranks) > 8 else "")
    return f"rank {names}" if len(ranks) == 1 else f"ranks {names}"


def table(places: list[Place]) -> str:
    """Where all are: a line for each rank."""
    late = behind(places)
    late = late if len(late) < len(places) else []
    lines = [
        f"  rank {rank}: {place}; for {place.seconds:.0f} s{'  <- behind' if rank in late else ''}"
        for rank, place in enumerate(places)
    ]
    return "\n".join([*lines, verdict(places)])


def stacks(rank: int) -> str:
    """What all Python threads of this process do now, the main one first; each line names the rank."""
    names = {thread.ident: thread.name for thread in threading.enumerate()}
    frames = sys._current_frames()
    frames.pop(threading.get_ident(), None)
    main = threading.main_thread().ident
    lines = []
    for ident in sorted(frames, key=lambda ident: ident != main):
        lines.append(f"thread {names.get(ident, ident)}:")
        lines += "".join(traceback.format_stack(frames[ident])).splitlines()
    return "\n".join(f"[rank {rank}] {line}" for line in lines)
