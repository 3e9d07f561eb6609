"""The end of a step: the one place where a run may be saved exactly, or ended."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from fulmen.trainer.trainer import Trainer


class Boundary:
    """What waits until a batch is over, with all that belongs to it: hooks, a validation, schedulers, the step of the
    loggers.

    A checkpoint that is written here holds the whole effect of the batches so far and nothing of the next one: a run
    goes on from it as if it had never stopped, also within an accumulation window, whose gradients it holds. The loop
    asks :attr:`waiting` after each batch, and nothing more as long as nobody waits.
    """

    __slots__ = ("_due", "ends", "waiting")

    def __init__(self) -> None:
        self.waiting = False  #: there is something to do
        self.ends = False  #: the process was asked to end
        self._due: list[Callable[[], None]] = []

    def forget(self) -> None:
        """Nothing waits any more: a run begins, or has ended."""
        self.waiting = self.ends = False
        self._due = []

    def defer(self, action: Callable[[], None]) -> None:
        """Do ``action`` at the end of the current step."""
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
        while self._due:
            self._due.pop(0)()
        if self.ends:
            self.waiting = True
            if not trainer.progress.ends_here:  # else the run becomes whole in a moment, and ends the process then
                trainer.signals.save_and_end(trainer)
