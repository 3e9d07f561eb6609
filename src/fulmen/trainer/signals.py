"""Requests to end: a signal sets a flag, and the run ends where its state can be saved exactly."""

from __future__ import annotations

import os
import signal
import sys
import threading
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, NoReturn

from fulmen.trainer.unfinished import ValidationLeft
from fulmen.utilities.exceptions import SIGTERMException
from fulmen.utilities.rank_zero import rank_zero_info, rank_zero_warn

if TYPE_CHECKING:
    from types import FrameType

    from fulmen.plugins.environments.requeue import Requeue
    from fulmen.trainer.boundary import Boundary
    from fulmen.trainer.trainer import Trainer

_AFTER_FIRST_CTRL_C = "\nCtrl-C: ending after this step. Press Ctrl-C again to end at once.\n"
_AFTER_SECOND_CTRL_C = "\nCtrl-C again: ending at once, without saving.\n"


class Signals:
    """Listens while a run lasts: to SIGTERM, to the signals of the plugin that has jobs started again, and, while
    training, to Ctrl-C. In a thread other than the main one it cannot, and does not.

    What listened to SIGTERM before is called, too. A program's own way with Ctrl-C, or with a signal of the plugin, is
    left to it.

    Attributes:
        request: the signal that asked the process to end; None as long as none did.
        requeue: has the job started again; None if nobody does.
        may_leave_validation: the validation that runs can be left in the middle.
        ends_everywhere: all processes of the job end now, at the same place.
    """

    def __init__(self, boundary: Boundary, requeue: Requeue | None = None) -> None:
        self.boundary, self.requeue = boundary, requeue
        self.request: signal.Signals | None = None
        self.may_leave_validation = False
        self.ends_everywhere = False
        self._ctrl_c = False
        self._process = 0
        self._trains = False
        self._before: dict[signal.Signals, Any] = {}

    def __enter__(self) -> None:
        self.request, self._trains, self._process = None, False, os.getpid()
        self.ends_everywhere = self._ctrl_c = False
        self.boundary.forget()
        if threading.current_thread() is not threading.main_thread():
            return
        comes_back = self.requeue.signals if self.requeue is not None else ()
        for number in comes_back:
            if number != signal.SIGTERM:
                self._listen_unless_somebody_does(number)
        self._listen(signal.SIGTERM, self._on_request)
        if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
            self._listen(signal.SIGINT, self._on_ctrl_c)

    def _listen(self, number: signal.Signals, react: Callable[[int, FrameType | None], None]) -> None:
        self._before[number] = signal.signal(number, react)

    def _listen_unless_somebody_does(self, number: signal.Signals) -> None:
        before = signal.getsignal(number)
        is_outer = isinstance(getattr(before, "__self__", None), Signals)  # of a run that this one is a part of
        if is_outer or before in (signal.SIG_DFL, signal.SIG_IGN):
            self._listen(number, self._on_request)
        else:
            rank_zero_warn(
                f"the program has its own way with {number.name} ({before!r}), which therefore does not save the run "
                f"and have the job started again. Leave the signal to {type(self.requeue).__name__}, or tell it to use "
                "another one."
            )

    def __exit__(self, *exception: object) -> None:
        for number, before in self._before.items():
            signal.signal(number, before if before is not None else signal.SIG_DFL)  # None: not set from Python
        self._before = {}

    # -- what the signals do: set a flag ------------------------------------------------------------------------------

    def _on_request(self, number: int, frame: FrameType | None) -> None:
        before = self._before.get(signal.Signals(number))
        if os.getpid() == self._process:
            self._ask(signal.Signals(number))
        elif before is signal.SIG_DFL:  # in a process that the program has forked: as if nobody listened
            signal.signal(number, signal.SIG_DFL)
            os.kill(os.getpid(), number)
        if callable(before):
            before(number, frame)

    def _on_ctrl_c(self, number: int, frame: FrameType | None) -> None:
        if not self._trains or os.getpid() != self._process:
            raise KeyboardInterrupt
        again, self._ctrl_c = self._ctrl_c, True
        # `print` may have been interrupted in the middle of its work
        os.write(2, (_AFTER_SECOND_CTRL_C if again else _AFTER_FIRST_CTRL_C).encode())
        if again:
            raise KeyboardInterrupt
        self._ask(signal.SIGINT)

    def hear_of_ctrl_c(self) -> None:
        """It came to the process that waits for this one; called from another thread."""
        if self._ctrl_c:
            return  # here, too
        if self._trains:
            self._ctrl_c = True
            self._ask(signal.SIGINT)
        else:
            os.kill(os.getpid(), signal.SIGINT)

    def _ask(self, number: signal.Signals) -> None:
        control = self.boundary.control
        if control is not None:  # all processes will take it at the same boundary
            control.ask(number.name)
            return
        self._take(number)

    def _take(self, number: signal.Signals) -> None:
        if self.request is None or (self.requeue is not None and number in self.requeue.signals):
            self.request = number
        self.boundary.ask_to_end()

    # -- what follows, at a place where the run can end ---------------------------------------------------------------

    def begin_training(self) -> None:
        """From here on, Ctrl-C ends the run at the next step boundary."""
        self._trains = True

    def share_request(self) -> None:
        """Ask the other processes for what came when nobody listened to them yet."""
        request, self.request, self.boundary.ends = self.request, None, False
        if request is not None:
            self._ask(request)

    def take(self, bits: frozenset[str]) -> set[str]:
        """Take those of ``bits`` that are signals: all processes have got them now.

        Returns:
            The others.
        """
        numbers = {number.name for number in signal.Signals} & bits
        for name in sorted(numbers):
            self._take(signal.Signals[name])
        return set(bits - numbers)

    def end_evaluation_if_asked(self) -> None:
        """End before the next batch of an evaluation if that was asked for.

        Raises:
            ValidationLeft: it was, in the validation of a ``fit`` that can be left.
            SIGTERMException: it was.
        """
        if self._trains and self.may_leave_validation and self.request is not None:
            raise ValidationLeft
        if not self._trains:  # else at the step boundary
            self.end_if_asked()

    def end_if_asked(self) -> None:
        """End the run here if that was asked for, where there is nothing to save.

        Raises:
            SIGTERMException: it was; the job is started again by now if it should be.
            KeyboardInterrupt: it was, by Ctrl-C.
        """
        if self.request is not None:
            rank_zero_info("%s: ending; there is nothing to save.", self.request.name)
            self._end()

    def save_and_end(self, trainer: Trainer) -> NoReturn:
        """End the run at a step boundary; raises as :meth:`end_if_asked`."""
        assert self.request is not None
        progress = trainer.progress
        paths = self.boundary.save_before_end(trainer, self.request.name)
        if self.boundary.control is not None:
            self.boundary.control.meet("saved")
            self.ends_everywhere = True
        what = f"saved {' and '.join(paths)}. Go on by ckpt_path='auto'"
        if not paths:
            what = "nothing is saved, as no callback of this Trainer keeps checkpoints to go on from"
        rank_zero_info(
            "%s: ended in epoch %d after batch %d (step %d); %s.",
            "Ctrl-C" if self.request is signal.SIGINT else self.request.name,
            progress.epoch,
            progress.batches_done,
            progress.step,
            what,
        )
        self._end()

    def end_of_run(self) -> None:
        """The run is whole: end the process if that was asked for meanwhile.

        Raises:
            SystemExit: it was.
        """
        if self.request is signal.SIGINT:
            sys.exit(1)
        if self.request is not None:
            self._end()

    def _end(self) -> NoReturn:
        assert self.request is not None
        if self.request is signal.SIGINT:
            raise KeyboardInterrupt
        code = 128 + self.request
        if self.requeue is not None and self.request in self.requeue.signals:
            code = self.requeue.requeue(self.request)
        raise SIGTERMException(code)


def checkpoint_of_restart(requeue: Requeue | None, ckpt_path: Any) -> Any:
    """The ``ckpt_path`` of a ``fit``: what was written, or ``"auto"`` in a job that was started again."""
    if requeue is None or not requeue.is_restart:
        return ckpt_path
    if ckpt_path is None:
        rank_zero_info("the job was started again: going on from its newest checkpoint, as by `ckpt_path='auto'`")
        return "auto"
    if ckpt_path not in ("auto", "last"):
        rank_zero_warn(
            f"the job was started again, and `trainer.fit(ckpt_path={ckpt_path!r})` begins where its first start "
            "began. Write `ckpt_path='auto'` to go on from what it has saved since."
        )
    return ckpt_path
