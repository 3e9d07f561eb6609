"""How a job that has to end before its time is started again."""

from __future__ import annotations

import signal
from abc import ABC, abstractmethod
from collections.abc import Iterable

from fulmen.utilities.exceptions import MisconfigurationException
from fulmen.utilities.text import shown


class Requeue(ABC):
    """Derive from this to have jobs started again your own way, and pass it as ``Trainer(plugins=...)``.

    Attributes:
        signals: the signals that mean: end, and come back. Each ends the run at the next step boundary, where the state
            is saved; then :meth:`requeue` is called.
    """

    signals: tuple[signal.Signals, ...] = ()

    @property
    def is_restart(self) -> bool:
        """Whether this process is a job that came back. ``fit`` then goes on from the newest checkpoint of the run
        although no ``ckpt_path`` is written; or from the newest ``hpc_ckpt_<n>.ckpt`` in ``default_root_dir``, if that
        was written later: so a job of Lightning goes on.
        """
        return False

    @abstractmethod
    def requeue(self, number: signal.Signals) -> int:
        """Have the job started again. Everything is saved by now.

        Args:
            number: the signal that asked the run to end.

        Returns:
            The exit code of this process.

        Raises:
            RuntimeError: it cannot be started again; the message says what to do by hand.
        """


class ExitCodeRequeue(Requeue):
    """Ends the process with an exit code by which the scheduler knows to start the job again, as those of HTCondor and
    Kubernetes can be told to.

    Write ``trainer.fit(model, ckpt_path="auto")`` in the program: a process that is started again is like any other.

    Args:
        code: the exit code, from 1 to 255; 75 is ``EX_TEMPFAIL`` of ``sysexits.h``.
        signals: the signals that ask for it. None: SIGTERM.

    Raises:
        MisconfigurationException: ``code`` is none, or a signal cannot be caught.
    """

    def __init__(self, code: int = 75, signals: Iterable[signal.Signals] | None = None) -> None:
        if not isinstance(code, int) or isinstance(code, bool) or not 1 <= code <= 255:
            raise MisconfigurationException(
                f"ExitCodeRequeue(code={shown(code)}): the exit code of a process that is to be started again must be "
                "a whole number from 1 to 255. Write the one that your scheduler looks for, such as 75."
            )
        self.code = code
        self.signals = (signal.SIGTERM,) if signals is None else tuple(map(checked_signal, signals))

    def requeue(self, number: signal.Signals) -> int:
        return self.code


def checked_signal(number: int) -> signal.Signals:
    """``number`` as a signal that a process can be asked to end by."""
    try:
        found = signal.Signals(number)
    except ValueError:
        found = None
    if found is None or found.name in ("SIGKILL", "SIGSTOP", "SIGINT"):
        raise MisconfigurationException(
            f"{shown(number)} cannot ask a job to end and come back: it must be a signal that a program can catch, "
            "other than that of Ctrl-C. Write `signal.SIGUSR1` or `signal.SIGTERM`, say."
        )
    return found
