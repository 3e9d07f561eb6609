"""The mark of callbacks that write checkpoints."""

from __future__ import annotations

from contextvars import ContextVar
from typing import TYPE_CHECKING

from fulmen.callbacks.callback import Callback

if TYPE_CHECKING:
    from fulmen.trainer.trainer import Trainer

#: whether the states of callbacks are gathered for a file
gathers_states: ContextVar[bool] = ContextVar("gathers_states", default=False)


class Checkpoint(Callback):
    """Derive from this to write checkpoints your own way: such callbacks are called after all others."""

    _calling_place = 1

    def save_now(self, trainer: Trainer, reason: str) -> str | None:
        """Write the whole state of this moment, as the run ends here before its time.

        Called at a step boundary. What is written must be what ``trainer.fit(ckpt_path="last")`` finds.

        Args:
            reason: why, in a word or two: ``"SIGTERM"``, ``"max_time"``.

        Returns:
            The path of the file that holds this state, which may have been there already; None if this callback keeps
            no such file.
        """
        return None

    def save_again(self) -> None:
        """What this moment was saved as holds no more, as a callback has given the module other weights at the end of
        training: write it again.
        """

    def catch_up(self, trainer: Trainer) -> None:
        """Write the files that were due at the moment from which the run goes on, if the process before was killed
        between two of them. Called when everything is as it was at that moment.
        """
