"""An exception in one process ends all of them, within seconds, and its traceback is the last on the screen."""

from __future__ import annotations

import sys
from collections.abc import Callable, Generator
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Any

from fulmen.strategies.control.failure import PeerFailure
from fulmen.strategies.control.stall import Counters

if TYPE_CHECKING:
    from fulmen.strategies.control.control import Control


@contextmanager
def shared(control: Control, finalize: Callable[[], None]) -> Generator[None, None, None]:
    """Around a function that all processes run: none is left behind, however one of them ends.

    Args:
        finalize: what must be done at least before a process ends.

    Raises:
        SystemExit: another process failed, which is said in a line.
    """
    control.begin_run(lambda: Counters((), "a function of its user"), finalize)
    try:
        yield
        control.end_run()
    except BaseException as exception:
        control.fail(exception)
        control.leave()
        raise


def watch_program(control: Control) -> None:
    """From here on an exception that nobody catches is told to the other processes."""
    before = sys.excepthook

    def tell(kind: Any, exception: BaseException, trace: Any) -> None:
        control.fail(exception)
        with suppress(SystemExit, PeerFailure):
            control.leave()
        if control.failed_itself:
            before(kind, exception, trace)

    sys.excepthook = tell
