"""How all processes come to the same decision at the same batch, without a collective.

A *boundary* is the end of a batch, counted over the run: all processes reach the same ones, each in its own time. A
process may pass the boundaries before its *limit*; at the limit it must look.

- To move its limit, a process **writes** the new one to the store, and **then reads** whether something is asked. Only
  if nothing is, the new limit holds; else it keeps the old one until the decision is there.
- Who wants something **writes** that it asks, and **then reads** the limits of all. The decision is: at their maximum.

Why nobody passes that maximum unaware: take a process whose limit holds. Either it was written before the asker read,
and then the maximum counts it; or it was written after, so that its process read the question, which was written
earlier still, and did not let the limit hold. The store does one thing after the other, so there is no third case.
Limits only grow, so a later decision is never at an earlier boundary.

Questions are numbered. The store gives each number to one asker (``compare_set``), who decides it; the others wait for
its decision and ask again under the next number. A process that is stuck (in its loader, say) does not hold this up:
its limit is in the store.
"""

from __future__ import annotations

import json
import threading
import time
from collections import deque
from collections.abc import Callable
from typing import Any, NamedTuple

NOTHING: frozenset[str] = frozenset()
_HORIZON = 0.3  #: seconds of steps that a process may go on without its thread
_WINDOW = 0.1  #: seconds over which steps are counted, at least, to know how many fit into that
_ENOUGH = 8  #: as many steps may be counted over a tenth of it


class _Decision(NamedTuple):
    boundary: int
    bits: list[str]
    question: int


class Lease:
    """One process's side of the agreement in one run.

    ``ask`` may be called from anywhere, ``look`` by the thread that trains, ``turn`` by the one of the store.

    Args:
        store: a connection to the store that all processes share.
        name: of the run; the same on all processes, and another one for each run.
        rank: this process's number, from 0.
        world_size: how many processes there are.
        position: gives the number of the last boundary that this process has reached.
        wake: has ``turn`` called soon.
        check: raises if this process cannot wait any longer.
        tell: is told the limit whenever it moves.

    Attributes:
        limit: the first boundary at which this process must look.
        waited: how often it had to wait there, as its thread came too late.
    """

    def __init__(
        self,
        store: Any,
        name: str,
        rank: int,
        world_size: int,
        position: Callable[[], int],
        wake: Callable[[], None],
        check: Callable[[], None],
        tell: Callable[[int], None],
    ) -> None:
        self._store, self._name, self._position, self._tell = store, name, position, tell
        self._mine = f"{name}/limit/{rank}"
        self._limits = [f"{name}/limit/{one}" for one in range(world_size)]
        self._wake, self._check = wake, check
        self._changed = threading.Condition()
        self._wanted: deque[str] = deque()
        self._open: dict[str, int] = {}  #: asked by this process and not answered, with the number of the question
        self._stops: deque[_Decision] = deque()  #: those that are ahead
        self._round = 1
        self._is_asked = self._decides = False
        self.waited = 0
        self.limit = self._holds = self._published = position()
        self._last, self._last_time, self._step_time = self.limit, time.monotonic(), 0.0
        store.set(self._mine, str(self.limit))
        tell(self.limit)

    # -- for the thread that trains -----------------------------------------------------------------------------------

    def ask(self, bit: str) -> None:
        """Want ``bit`` to be agreed. Takes no lock, so that a signal may call it at any moment."""
        self._wanted.append(bit)

    def look(self, position: int) -> frozenset[str]:
        """What is decided for the boundary ``position``. Waits until it may be passed."""
        found: set[str] = set()
        with self._changed:
            first = True
            while True:
                while self._stops and self._stops[0].boundary <= position:
                    found.update(self._answer(self._stops.popleft()))
                self._set_limit()
                if self.limit > position:
                    break
                self._check()
                self.waited += first
                first = False
                self._wake()
                self._changed.wait(0.5)
        return frozenset(found) if found else NOTHING

    def _answer(self, decision: _Decision) -> list[str]:
        for bit in decision.bits:
            if self._open.get(bit, decision.question + 1) <= decision.question:
                del self._open[bit]
        return decision.bits

    def stop_waiting(self) -> None:
        """Let ``look`` find out that it cannot wait any longer, at the next boundary if it does not wait now."""
        with self._changed:
            self._holds = self.limit = -1
            self._tell(-1)
            self._changed.notify_all()

    @property
    def unanswered(self) -> list[str]:
        """What this process has asked for and no boundary has brought."""
        with self._changed:
            return list(dict.fromkeys((*self._open, *self._wanted)))

    def _set_limit(self) -> None:
        self.limit = min(self._holds, self._stops[0].boundary) if self._stops else self._holds
        self._tell(self.limit)

    # -- for the thread that talks to the store -----------------------------------------------------------------------

    def turn(self) -> None:
        """Move the limit, ask what is wanted, decide what is asked."""
        while True:
            if self._wanted and not self._is_asked:
                self._ask()
            if not self._is_asked:
                self._extend()
            if not self._is_asked or not self._decide() or not self._learn():
                return

    def _ask(self) -> None:
        bits: list[str] = []
        while self._wanted:
            bits.append(self._wanted[0])
            self._open[bits[-1]] = self._round  # first here, then no longer there: it is always in one of the two
            self._wanted.popleft()
        question = json.dumps([self._mine, list(dict.fromkeys(bits))])
        winner = self._store.compare_set(f"{self._name}/ask/{self._round}", "", question).decode()
        self._is_asked, self._decides = True, winner == question
        if not self._decides:
            others = json.loads(winner)[1]
            self._wanted.extend(bit for bit in bits if bit not in others)

    def _extend(self) -> None:
        position, now = self._position(), time.monotonic()
        steps, seconds = position - self._last, now - self._last_time
        if steps and (seconds >= _WINDOW or (steps >= _ENOUGH and seconds >= _WINDOW / 10)):
            self._step_time = seconds / max(1, steps)
            self._last, self._last_time = position, now
        ahead = 0
        if self._step_time:
            ahead = int((min(now - self._last_time, self._step_time) + _HORIZON) / self._step_time)
        limit = position + 1 + ahead
        if limit > self._published:
            self._store.set(self._mine, str(limit))
            self._published = limit
        self._is_asked = self._store.check([f"{self._name}/ask/{self._round}"])
        if not self._is_asked and self._published > self._holds:
            self._let_hold(self._published)

    def _let_hold(self, limit: int, decision: _Decision | None = None) -> None:
        with self._changed:
            if decision is not None:
                self._stops.append(decision)
            if self._holds >= 0:
                self._holds = max(self._holds, limit)
            self._set_limit()
            self._changed.notify_all()

    def _decide(self) -> bool:
        """Decide the question if it is this process's to decide; False if that cannot be done yet."""
        if not self._decides:
            return True
        if not self._store.check(self._limits):  # somebody has not begun this run
            return False
        boundary = max(int(limit) for limit in self._store.multi_get(self._limits))
        question = json.loads(self._store.get(f"{self._name}/ask/{self._round}"))
        self._store.set(f"{self._name}/decision/{self._round}", json.dumps([boundary, question[1]]))
        self._decides = False
        return True

    def _learn(self) -> bool:
        """Read the decision; False if it is not there yet."""
        key = f"{self._name}/decision/{self._round}"
        if not self._store.check([key]):
            return False
        boundary, bits = json.loads(self._store.get(key))
        self._let_hold(boundary, _Decision(boundary, bits, self._round))  # before it, nothing else can be decided
        self._round, self._is_asked = self._round + 1, False
        return True
