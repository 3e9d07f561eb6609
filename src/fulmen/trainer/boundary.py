"""The end of a step: the one place where a run may be saved exactly, or ended."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import TYPE_CHECKING

from fulmen.utilities.rank_zero import rank_zero_info

if TYPE_CHECKING:
    from fulmen.loops.progress import Progress
    from fulmen.strategies.control.control import Control
    from fulmen.trainer.signals import Signals
    from fulmen.trainer.trainer import Trainer

_STOP = "stop"  #: what a process asks for that wants training to stop


class Boundary:
    """What waits until a batch is over, with all that belongs to it: hooks, a validation, schedulers, the step of the
    loggers.

    A checkpoint that is written here holds the whole effect of the batches so far and nothing of the next one: a run
    goes on from it as if it had never stopped, also within an accumulation window, whose gradients it holds. The loop
    asks :attr:`waiting` after each batch, and nothing more as long as nobody waits. With several processes it also
    looks at :attr:`limit`: what one of them asks for, all do at the same boundary.
    """

    __slots__ = ("_asked", "_due", "_granted", "control", "ends", "evaluated", "limit", "saved", "waiting")

    def __init__(self) -> None:
        self.waiting = False  #: there is something to do
        self.ends = False  #: the process was asked to end
        self.saved: list[str] | None = None  #: where the run was saved, before its last steps that do not count
        self._due: list[Callable[[], None]] = []
        self.control: Control | None = None  #: while several processes train
        self.limit: float = math.inf  #: the number of batches from which on to ask what the processes agreed on
        self.evaluated = 0  #: batches of validations, which count there while several processes train
        self._asked: set[str] = set()
        self._granted: set[str] = set()

    def forget(self) -> None:
        """Nothing waits any more: a run begins, or has ended."""
        self.waiting = self.ends = False
        self.saved = None
        self._due = []
        self.control, self.limit, self.evaluated = None, math.inf, 0
        self._asked, self._granted = set(), set()

    def begin_training(self, control: Control, position: Callable[[], int]) -> None:
        """Agree with the other processes from here on; ``position`` counts the batches of the run."""
        self.control = control
        control.begin_training(position, self._set_limit)

    def _set_limit(self, limit: int) -> None:
        self.limit = limit

    def end_training(self) -> frozenset[str]:
        """The last boundary is passed, on all processes.

        Returns:
            What was asked for too late for one.
        """
        control, self.control = self.control, None
        bits = control.end_training() if control is not None else frozenset()
        self.limit = math.inf
        return bits

    def agree(self, name: str, wanted: bool) -> bool:
        """Whether all do now what rank 0 wants by its clock; to be asked on all processes after the same batches.

        One process does at once what it wants. Several do it a moment later, when all of them know.
        """
        if self.control is None:
            return wanted
        if wanted and name not in self._asked and self.control.rank == 0:
            self._asked.add(name)
            self.control.ask(name)
        if name not in self._granted:
            return False
        self._granted.remove(name)
        self._asked.discard(name)
        return True

    def ask_to_stop(self, progress: Progress) -> None:
        """Somebody in this process wants training to stop after the current batch.

        It does so if all processes want it now. If only some do, all stop at the same boundary a moment later.
        """
        if self.control is None:
            progress.should_stop = True
        elif not (progress.should_stop or _STOP in self._asked):
            moment = progress.epoch, progress.total_batches, progress.batch_is_open, progress.epoch_is_closed
            if self.control.wanted_by_all(f"{_STOP}/{moment}"):
                progress.should_stop = True
            else:
                self._asked.add(_STOP)
                self.control.ask(_STOP)

    def defer(self, action: Callable[[], None]) -> None:
        """Do ``action`` at the end of the current step; may be called from another thread."""
        self._due.append(action)
        self.waiting = True

    def ask_to_end(self) -> None:
        """End the process at the next step boundary; may be called while a signal is handled."""
        self.ends = self.waiting = True

    def reach(self, trainer: Trainer) -> None:
        """A batch or an epoch is over: do what waits.

        Raises:
            SIGTERMException: the process was asked to end, and the state is saved.
            KeyboardInterrupt: the same, by Ctrl-C.
        """
        self.waiting = False  # first of all: a signal may come at any moment
        progress = trainer.progress
        if _cannot_save(trainer):
            self.waiting = True  # on all processes alike
            return
        if self.control is not None:
            self._granted |= trainer.signals.take(self.control.at(progress.total_batches + self.evaluated))
        if _STOP in self._granted:
            self._granted.remove(_STOP)
            progress.should_stop = True
            if progress.in_epoch and not progress.interval_is_over and progress.time_to_validate:
                trainer.validate_within_fit()  # as after any last batch
        self._do_what_is_due()
        epoch_follows = progress.in_epoch and progress.is_last_batch  # its end is the same with more time, and counts
        if progress.out_of_time and progress.ends_here and not epoch_follows:
            self.save_before_end(trainer, "max_time")
        if self.ends or progress.out_of_time:
            self.waiting = True
        if self.ends and not progress.ends_here:  # else the run becomes whole in a moment, and ends the process then
            trainer.signals.save_and_end(trainer)

    def pass_evaluation_batch(self, signals: Signals, total_batches: int) -> None:
        """A batch of a validation within ``fit`` begins, on all processes: hear what they agreed on."""
        if self.control is None:
            return
        self.evaluated += 1
        if total_batches + self.evaluated >= self.limit:
            self._granted |= signals.take(self.control.at(total_batches + self.evaluated))
            self.waiting = self.waiting or _STOP in self._granted

    def reach_validation(self, trainer: Trainer) -> None:
        """A validation is about to begin: end before it if the process was asked to end, and save before it if the run
        would not have it but for the end of its time. Raises as :meth:`reach`.
        """
        progress = trainer.progress
        if _cannot_save(trainer):
            return
        if progress.out_of_time and progress.done and not progress.interval_is_over:
            self.save_before_end(trainer, "max_time")
        if self.ends:
            self._do_what_is_due()
            trainer.signals.save_and_end(trainer)

    def _do_what_is_due(self) -> None:
        while self._due:
            self._due.pop(0)()

    def save_before_end(self, trainer: Trainer, reason: str) -> list[str]:
        """Have all checkpoint callbacks save the run as it is here, once: it ends before its time, and what its last
        hooks do belongs to no run that goes on.

        Returns:
            The paths of the files that hold the state.
        """
        if self.saved is None:
            self.saved = save(trainer, reason)
            if self.saved and reason == "max_time":
                rank_zero_info("%s: saved %s, from where a run with more time goes on.", reason, self.saved[0])
        return self.saved


def _cannot_save(trainer: Trainer) -> bool:
    """Whether this is the middle of an accumulation window, whose gradients the strategy cannot save as they are."""
    return trainer.progress.window_is_open and not trainer.strategy.saves_open_windows


def save(trainer: Trainer, reason: str) -> list[str]:
    """Have all checkpoint callbacks save the state of this step boundary, as the run ends here before its time.

    Returns:
        The paths of the files that hold it.
    """
    paths, errors = [], []
    for callback in trainer.checkpoint_callbacks:
        try:
            paths.append(callback.save_now(trainer, reason))
        except Exception as error:  # another one may have more luck
            errors.append(error)
    found = list(dict.fromkeys(path for path in paths if path))
    if errors:
        for error in errors[1:]:
            errors[0].add_note(f"and another checkpoint callback failed: {type(error).__name__}: {error}")
        if found:
            errors[0].add_note(f"The state is in {' and '.join(found)} nevertheless.")
        raise errors[0]
    return found
