"""The thread of each process that talks to the other processes while the main one trains."""

from __future__ import annotations

import contextlib
import os
import signal
import sys
import threading
import time
import weakref
from collections.abc import Callable
from multiprocessing.connection import wait
from multiprocessing.util import Finalize
from typing import Any, Literal, NoReturn

from fulmen.strategies.control import stall
from fulmen.strategies.control.failure import Failure, PeerFailure, abort_process_groups, may_be_consequence
from fulmen.strategies.control.lease import NOTHING, Lease
from fulmen.strategies.control.lines import Lines, innermost

_TICK = 0.1  #: seconds between two looks at the store; more with many processes, which share one store
_TICK_PER_PROCESS = 0.001
_BEAT = 1.0  #: seconds between two messages about where this process is
_TIME_FOR_CAUSE = 2.0  #: seconds within which the first failure is told, if this one is its consequence
_TIME_TO_NOTICE = 1.0  #: seconds after a failure elsewhere until the main thread is interrupted
_TIME_TO_END = 3.0  #: ... until the process ends in spite of it
_TIME_TO_BE_ENDED = 30.0  #: ... if somebody else is there to end it
_TIME_TO_CLOSE = 7.0  #: ... until it ends although its main thread is about to
_TIME_TO_MEET = 1.0  #: seconds that processes wait for others that may want the same
_TIME_FOR_OTHERS = 4.0  #: seconds that the process that failed waits for the others, so that its traceback is the last
_WAKE_UP: int | None = getattr(signal, "SIGURG", None)  #: ignored where nobody listens


class Control:
    """What this process tells the others, and hears from them, through a store.

    Args:
        store: shared by all processes, such as a ``TCPStore``. This object makes a connection of its own.
        rank: this process's number, from 0.
        world_size: how many processes there are.
        prefix: of the keys in the store; one that is not used in it for another purpose.

    Attributes:
        limit: the first step boundary at which :meth:`at` must be called.
        failure: the first failure of the job; None as long as all is well.
        is_attended: this process is not ours to end, nor are its connections: somebody else, such as Ray, ends all of
            the job when he sees that one has failed. Those who wait for the one that failed are left to him.
    """

    def __init__(
        self,
        store: Any,
        rank: int,
        world_size: int,
        prefix: str = "fulmen",
    ) -> None:
        self.rank, self.world_size = rank, world_size
        self.is_attended = False
        self.failure: Failure | None = None
        self.finalize: Callable[[], None] = _nothing  #: done before the process ends without its main thread
        self._kept, self._store, self._prefix = store, store.clone(), prefix  # its server may live in the one given
        self._stall_timeout: float | None = None
        self._on_stall = "report"
        self._process = os.getpid()
        self._tick = _TICK + _TICK_PER_PROCESS * world_size
        self._lease: Lease | None = None
        self._before: list[str] = []  #: asked before there was a lease
        self._failed = threading.Event()
        self._failed_at = 0.0
        self._main_ends = self._was_interrupted = self._closed = False
        self._is_cut_off = self._is_over = self._is_told = self._is_first = self._is_own = False
        self._runs, self._run, self._listened_before = 0, "", None
        self._whereabouts: stall.Whereabouts | None = None
        self._run_began = self._next_beat = 0.0
        self._news, self._reports, self._reported_at = 0, 0, 0.0
        self._heard: dict[int, tuple[bytes, float]] = {}  #: the last message about a place by rank, and when it came
        self._woken, self._bell = os.pipe()
        os.set_blocking(self._bell, False)
        os.set_blocking(self._woken, False)
        self._lines = Lines(self._store, prefix, rank)
        ports = [one.getsockname()[1] for one in self._lines.sockets]
        self._kept_ports = frozenset({getattr(innermost(store), "port", 0), *ports})
        self._thread = threading.Thread(target=self._talk, name="fulmen control", daemon=True)
        self._thread.start()
        if _WAKE_UP is not None and threading.current_thread() is threading.main_thread():
            self._listened_before = signal.signal(_WAKE_UP, self._on_wake_up)
        # not `atexit`, which the processes of `multiprocessing` do not run
        Finalize(None, _close, (weakref.ref(self),), exitpriority=100)

    # -- agreement ----------------------------------------------------------------------------------------------------

    @property
    def limit(self) -> int:
        return self._lease.limit if self._lease is not None else 0

    def begin_training(self, position: Callable[[], int], tell: Callable[[int], None] | None = None) -> None:
        """From here on processes agree at step boundaries. To be called on all of them.

        Args:
            position: gives the number of the last boundary that was reached; called from another thread.
            tell: is told :attr:`limit` whenever it moves; called from another thread, too.

        Raises:
            PeerFailure: another process has failed.
        """
        self._check()
        name = f"{self._run or self._prefix}/training"
        lease = Lease(
            self._store, name, self.rank, self.world_size, position, self._wake, self._check, tell or _nothing
        )
        while self._before:
            lease.ask(self._before.pop(0))
        self._lease = lease
        if self.failure is not None:
            lease.stop_waiting()
        self._wake()

    def ask(self, bit: str) -> None:
        """Have all processes see ``bit`` at the same step boundary soon. Also for signal handlers and other threads."""
        if self._lease is not None:
            self._lease.ask(bit)
        else:
            self._before.append(bit)
        self._wake()

    def at(self, position: int) -> frozenset[str]:
        """What all processes agreed on for the step boundary ``position``; costs a comparison as a rule.

        Raises:
            PeerFailure: another process has failed.
        """
        lease = self._lease
        if lease is None or position < lease.limit:
            return NOTHING
        return lease.look(position)

    def end_training(self) -> frozenset[str]:
        """The last boundary is passed. To be called on all processes; waits for them.

        Returns:
            What was asked for and came too late for a boundary; the same on all processes.

        Raises:
            PeerFailure: another process has failed.
        """
        lease, self._lease = self._lease, None
        if lease is None:
            return NOTHING
        self._lease = lease  # its thread still answers for this process
        try:
            left = self.gather(f"{self._run or self._prefix}/training/left", "\n".join(lease.unanswered))
        finally:
            self._lease = None
        return frozenset(bit for text in left for bit in text.split("\n") if bit)

    def gather(self, key: str, text: str) -> list[str]:
        """The texts of all processes, by rank; ``key`` may be used once. Waits for all of them, without a collective.

        Raises:
            PeerFailure: another process has failed.
        """
        self._store.set(f"{key}/{self.rank}", text)
        self._meet(key)
        texts = self._store.multi_get([f"{key}/{rank}" for rank in range(self.world_size)])
        self._part(key)
        return [text.decode() for text in texts]

    def _meet(self, key: str) -> None:
        self._store.add(f"{key}/here", 1)
        self._wait_for(f"{key}/here", self.world_size)

    def _part(self, key: str) -> None:
        """Everything is read: rank 0 waits for that, as its process may end then, and the store with it."""
        self._store.add(f"{key}/read", 1)
        if self.rank == 0:
            self._wait_for(f"{key}/read", self.world_size)

    def _wait_for(self, key: str, count: int) -> None:
        pause = 0.001
        while self._store.add(key, 0) < count:
            self._check()
            time.sleep(pause)
            pause = min(2 * pause, self._tick)

    # -- a run --------------------------------------------------------------------------------------------------------

    def meet(self, name: str) -> None:
        """Wait for all processes, without a collective; each ``name`` once in a run.

        Raises:
            PeerFailure: another process has failed.
        """
        self.gather(f"{self._run or self._prefix}/{name}", "")

    def wanted_by_all(self, name: str, seconds: float = _TIME_TO_MEET) -> bool:
        """Whether all processes call this with the same ``name``, about now: the same answer on all that do. One that
        does not call it does not hear of it.

        Args:
            seconds: how long to wait for the others.

        Raises:
            PeerFailure: another process has failed.
        """
        key = f"{self._run or self._prefix}/wanted/{name}"
        count, deadline = self._store.add(f"{key}/count", 1), time.monotonic() + seconds
        while count < self.world_size and time.monotonic() < deadline:
            self._check()
            time.sleep(0.002)
            count = self._store.add(f"{key}/count", 0)
        # who comes too late must hear the same as those that have gone on
        mine = "all" if count >= self.world_size else "some"
        return self._store.compare_set(f"{key}/answer", "", mine) == b"all"

    def begin_run(
        self,
        counters: Callable[[], stall.Counters],
        finalize: Callable[[], None],
        stall_timeout: float | None = None,
        on_stall: Literal["report", "end"] = "report",
    ) -> None:
        """A run begins. To be called on all processes.

        Args:
            counters: gives the counters of the run; called from another thread.
            finalize: what must be done at least before the process ends, such as closing files of logs.
            stall_timeout: seconds after which processes of which none advances are reported. None: never.
            on_stall: ``"report"`` where all are, or ``"end"`` the job after that.

        Raises:
            PeerFailure: another process has failed.
        """
        self._runs += 1
        self._run = f"{self._prefix}/run{self._runs}"
        self._main_ends = self._is_over = False
        self.finalize, self._stall_timeout, self._on_stall = finalize, stall_timeout, on_stall
        self._run_began = time.monotonic()
        self._whereabouts = stall.Whereabouts(counters)
        self._check()

    def end_run(self) -> None:
        """The run has ended well on this process: wait until it has on all.

        Raises:
            PeerFailure: another process has failed.
        """
        self._meet(f"{self._run}/end")
        self._is_over = True
        self._part(f"{self._run}/end")
        self._let_go()

    def _let_go(self) -> None:
        self._whereabouts = self._lease = None
        self._run, self.finalize = "", _nothing

    @property
    def failed_itself(self) -> bool:
        """Whether it was this process whose failure ends the job, or one that made the same mistake."""
        return self._is_first or self._is_own

    # -- failure ------------------------------------------------------------------------------------------------------

    def fail(self, exception: BaseException) -> Failure:
        """This process cannot go on: tell the others, unless one of them was first. After this all collectives fail.

        Returns:
            The first failure of the job.
        """
        self._main_ends = True
        if may_be_consequence(exception):
            self._failed.wait(_TIME_FOR_CAUSE)
        mine = Failure.of(self.rank, exception)
        if self.failure is None:
            self._post(mine)
        # what all do alike is told by each of them, as its program may expect it
        self._is_own = self.failure is not None and mine.is_like(self.failure)
        self._is_first = self.failure == mine
        if not self.is_attended:
            abort_process_groups(self._kept_ports)
        assert self.failure is not None
        return self.failure

    def leave(self) -> None:
        """The end of a process after a failure: the one that failed waits for the others, for a few seconds at most.

        Raises:
            SystemExit: it was another one that failed. What there is to say has been said.
            PeerFailure: the same, and somebody else is there to say it.
        """
        failure = self.failure
        assert failure is not None
        self._let_go()
        if self.is_attended:
            if not self.failed_itself:
                raise PeerFailure(failure)
            return
        if self._is_first:
            self._wait_for_others_to_leave(self.world_size - 1, _TIME_FOR_OTHERS)
            return
        if self.rank == 0:  # with it, the store may end
            self._wait_for_others_to_leave(self.world_size - 2, _TIME_FOR_OTHERS - 1)
        if self._is_own:
            self._tell_that_it_leaves()
            return
        self._say_why(failure)
        raise SystemExit(failure.code)

    def _wait_for_others_to_leave(self, count: int, seconds: float) -> None:
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline and not self._is_cut_off:
            try:
                if self._store.add(f"{self._prefix}/left", 0) >= count:
                    return
            except RuntimeError:  # the process of the store has left, and it is the last one to do so
                return
            time.sleep(0.02)

    def _say_why(self, failure: Failure) -> None:
        print(f"rank {self.rank} ends because {failure}", file=sys.stderr, flush=True)
        self._tell_that_it_leaves()

    def _tell_that_it_leaves(self) -> None:
        with contextlib.suppress(RuntimeError):
            if not self._is_cut_off:
                self._store.add(f"{self._prefix}/left", 1)

    def _post(self, failure: Failure) -> None:
        """Tell everybody of ``failure``; hear of an earlier one if there is one."""
        try:
            if not self._is_cut_off:
                first = self._store.compare_set(f"{self._prefix}/failure", "", failure.to_text()).decode()
                self._store.add(f"{self._prefix}/news", 1)
                failure = Failure.from_text(first)
        except RuntimeError:
            self._is_cut_off = True
        self._hear_of(failure)

    def _hear_of(self, failure: Failure) -> None:
        if self.failure is not None:
            return
        self.failure, self._failed_at = failure, time.monotonic()
        self._failed.set()
        if self._lease is not None:
            self._lease.stop_waiting()
        self._wake()

    def _check(self) -> None:
        if self.failure is not None:
            raise PeerFailure(self.failure)

    def _on_wake_up(self, number: int, frame: Any) -> None:
        if self.failure is not None and not self._main_ends:
            raise PeerFailure(self.failure)

    # -- the thread ---------------------------------------------------------------------------------------------------

    def _wake(self) -> None:
        with contextlib.suppress(OSError):  # it is full, which wakes as well
            os.write(self._bell, b"!")

    def _talk(self) -> None:
        connected = False
        while not self._closed:
            ready = wait([self._woken, *self._lines.sockets], self._tick)
            if self._woken in ready:
                with contextlib.suppress(OSError):
                    os.read(self._woken, 4096)
            self._lines.read(ready)
            while self._lines.told:
                self._hear_of(Failure.from_text(self._lines.told.pop()))
            self._listen_to_leaving()
            if self.failure is not None:
                if self.rank == 0 and not self._is_told:
                    self._is_told = True
                    self._lines.tell(self.failure.in_short().to_text())
                self._end_with_others(self.failure)
            if self._is_cut_off or self._closed:
                continue
            try:
                connected = connected or self._lines.connect()
                self._turn()
            except RuntimeError as error:
                self._lose_store(error)

    def _listen_to_leaving(self) -> None:
        left, gone = self._lines.left, self._lines.gone
        if self.rank != 0 and (left or gone):
            self._is_cut_off = True  # the store is there no longer, as a rule
        if not (left or gone) or not self._run or self.failure is not None or self._has_ended_everywhere():
            return
        if gone:
            self._post(Failure(min(gone), "is gone: its process has ended without a word (killed, or out of memory?)"))
        else:
            self._post(Failure(min(left), "has left: its process has ended, and others are still at work"))

    def _has_ended_everywhere(self) -> bool:
        return self._is_over or (self.rank == 0 and self._store.add(f"{self._run}/end/here", 0) >= self.world_size)

    def _lose_store(self, error: RuntimeError) -> None:
        self._lines.read(wait(self._lines.sockets, _TIME_TO_NOTICE))  # which may know more
        self._listen_to_leaving()
        self._is_cut_off = True
        if self._run and self.failure is None and not self._is_over:
            self._post(Failure(0, f"cannot be reached: {str(error).splitlines()[0]}"))

    def _turn(self) -> None:
        news = self._store.add(f"{self._prefix}/news", 0)
        if news != self._news:
            self._news = news
            if self.failure is None and self._store.check([f"{self._prefix}/failure"]):
                self._hear_of(Failure.from_text(self._store.get(f"{self._prefix}/failure").decode()))
            self._send_stacks()
        if self.failure is not None:
            return
        lease, whereabouts = self._lease, self._whereabouts
        if lease is not None:
            lease.turn()
        if whereabouts is not None and self._stall_timeout is not None and time.monotonic() >= self._next_beat:
            self._next_beat = time.monotonic() + min(_BEAT, self._stall_timeout / 4)
            self._store.set(f"{self._run}/place/{self.rank}", whereabouts.now().to_text())
            if self.rank == 0:
                self._look_for_stall(self._stall_timeout)

    def _end_with_others(self, failure: Failure) -> None:
        if self._is_first:
            return
        seconds = time.monotonic() - self._failed_at
        if self.is_attended:
            if seconds > _TIME_TO_BE_ENDED and self._run:
                self._end_at_once(failure)
            return
        if not self._main_ends:
            abort_process_groups(self._kept_ports)
            if seconds > _TIME_TO_NOTICE and not self._was_interrupted and self._listened_before is not None:
                self._was_interrupted = True
                assert _WAKE_UP is not None
                signal.pthread_kill(threading.main_thread().ident or 0, _WAKE_UP)
            if seconds > _TIME_TO_END:
                self._end_at_once(failure)
        elif seconds > _TIME_TO_CLOSE:
            self._end_at_once(failure)

    def _end_at_once(self, failure: Failure) -> NoReturn:
        """The main thread cannot be woken, or does not come to an end."""
        closing = threading.Thread(target=self.finalize, daemon=True)
        closing.start()
        closing.join(1.0)
        self._say_why(failure)
        sys.stdout.flush()
        os._exit(failure.code)

    # -- stalls -------------------------------------------------------------------------------------------------------

    def _look_for_stall(self, timeout: float) -> None:
        places, now = [], time.monotonic()
        for rank in range(self.world_size):
            key = f"{self._run}/place/{rank}"
            if self._store.check([key]):
                places.append(self._with_silence(rank, self._store.get(key), now))
            else:
                places.append(stall.Place(seconds=now - self._run_began))
        if not stall.is_stalled(places, timeout):
            self._reported_at = 0.0
            return
        if self._reported_at and now - self._reported_at < 5 * timeout:
            return
        self._reported_at = now
        least = min(place.seconds for place in places)
        text = [f"no process has advanced for {least:.0f} s:", stall.table(places), *self._stacks_of_all()]
        print("\n".join(text), file=sys.stderr, flush=True)
        if self._on_stall == "end":
            late = stall.behind(places)
            what = f"is behind: no process has advanced for {least:.0f} s, and it is at {places[late[0]]}"
            self._post(Failure(late[0], what))

    def _with_silence(self, rank: int, text: bytes, now: float) -> stall.Place:
        """Where a process was when it said so last; it may say nothing any more."""
        if self._heard.get(rank, (b"", 0.0))[0] != text:
            self._heard[rank] = text, now
        place = stall.Place.from_text(text)
        silence = now - self._heard[rank][1]
        place.seconds += silence
        if silence > 3 * _BEAT:
            place.work += f" when it was heard of last, {silence:.0f} s ago"
            place.waits_in = ""
        return place

    def _stacks_of_all(self) -> list[str]:
        self._reports += 1
        key = f"{self._prefix}/stacks{self._reports}"
        self._store.set(f"{self._prefix}/report", str(self._reports))
        self._news = self._store.add(f"{self._prefix}/news", 1)
        missing, texts, deadline = set(range(1, self.world_size)), {0: stall.stacks(0)}, time.monotonic() + 2.0
        while missing and time.monotonic() < deadline:
            for rank in list(missing):
                if self._store.check([f"{key}/{rank}"]):
                    texts[rank] = self._store.get(f"{key}/{rank}").decode()
                    missing.remove(rank)
            time.sleep(0.02)
        for rank in missing:
            texts[rank] = f"[rank {rank}] does not answer: it is stopped, or in a call that keeps Python's lock"
        return [texts[rank] for rank in sorted(texts)]

    def _send_stacks(self) -> None:
        if self.rank == 0 or not self._store.check([f"{self._prefix}/report"]):
            return
        report = int(self._store.get(f"{self._prefix}/report"))
        if report != self._reports:
            self._reports = report
            self._store.set(f"{self._prefix}/stacks{report}/{self.rank}", stall.stacks(self.rank))

    # -- the end ------------------------------------------------------------------------------------------------------

    def close(self) -> None:
        """Say goodbye to the others and end the thread."""
        if self._closed or os.getpid() != self._process:
            return
        self._closed = True
        self._wake()
        self._thread.join(2.0)
        if self._listened_before is not None and threading.current_thread() is threading.main_thread():
            assert _WAKE_UP is not None
            signal.signal(_WAKE_UP, self._listened_before)
        self._lines.close()
        os.close(self._bell)
        os.close(self._woken)


def _close(reference: weakref.ref[Control]) -> None:
    control = reference()
    if control is not None:
        control.close()


def _nothing(*args: Any) -> None:
    """What is done where nobody asked for more."""
