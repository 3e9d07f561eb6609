"""The end of a step: the one place where a run may be saved exactly, or ended."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from fulmen.utilities.exceptions import SIGTERMException

if TYPE_CHECKING:
    from fulmen.trainer.trainer import Trainer


class Boundary:
    """What waits until a batch is over, with all that belongs to it: hooks, a validation, schedulers, the step of the
    loggers.

    A checkpoint that is written here holds the whole effect of the batches so far and nothing of the next one: a run
    goes on from it as if it had never stopped. The loop asks :attr:`waiting` after each batch, and nothing more as long
    as nobody waits.
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
        """Do ``action`` at the end of the current step; may be called from another thread."""
        self._due.append(action)
        self.waiting = True

    def ask_to_end(self) -> None:
        """End the process at the next step boundary; may be called from a signal handler."""
        self.ends = self.waiting = True

    def reach(self, trainer: Trainer) -> None:
        """A batch is over: do what waits.

        Raises:
            SIGTERMException: the process was asked to end, and no accumulation window is open.
        """
        self.waiting = self.ends  # first, as another thread may defer something meanwhile
        while self._due:
            self._due.pop(0)()
        if self.ends and not trainer.progress.accumulating:
            raise SIGTERMException
