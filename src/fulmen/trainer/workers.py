"""Loader workers that outlive a signal to the whole process group, so that the run can be saved first.

``scancel``, ``kill -TERM -- -GROUP`` and Ctrl-C in a terminal reach the workers as well as the process that trains. A
worker that dies of it takes the run along before its state is saved. Workers therefore take no notice of these signals.
They end when the training process tells them to, or is no more: torch has them look for it.
"""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable, Generator
from contextlib import contextmanager
from typing import Any

from torch.utils.data import DataLoader

_SIGNALS = tuple(getattr(signal, name) for name in ("SIGTERM", "SIGINT", "SIGUSR1", "SIGUSR2") if hasattr(signal, name))


def _nothing(number: int, frame: Any) -> None:
    """Instead of SIG_IGN, which programs that a worker starts would inherit."""


class _TakesNoNotice:
    """A ``worker_init_fn`` that switches the signals off, before the user's own, which may set them anew."""

    def __init__(self, own: Callable[[int], Any] | None) -> None:
        self.own = own

    def __call__(self, worker_id: int) -> None:
        if threading.current_thread() is threading.main_thread():  # else the worker is a thread of this process
            for number in _SIGNALS:
                signal.signal(number, _nothing)
            signal.pthread_sigmask(signal.SIG_UNBLOCK, _SIGNALS)
        if self.own is not None:
            self.own(worker_id)


def start(loader: Any) -> Any:
    """``iter(loader)``; the workers that it starts take no notice of signals that ask the run to end."""
    if not isinstance(loader, DataLoader) or not loader.num_workers or not hasattr(signal, "pthread_sigmask"):
        return iter(loader)
    if getattr(loader, "_iterator", None) is not None:
        return iter(loader)  # persistent workers, which run already
    with _without_signals(), _init_of(loader):
        batches = iter(loader)
    for worker in getattr(batches, "_workers", ()):
        # torch and the standard library end a worker that hangs by SIGTERM, of which it takes no notice now
        process: Any
        for process in (worker, getattr(worker, "_popen", None)):
            if hasattr(process, "kill"):
                process.terminate = process.kill
    return batches


@contextmanager
def _without_signals() -> Generator[None, None, None]:
    """Hold signals back in this thread, and thus in processes that it starts, until they have their own way."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, _SIGNALS)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


@contextmanager
def _init_of(loader: DataLoader[Any]) -> Generator[None, None, None]:
    """The loader gives its ``worker_init_fn`` to the workers when it starts them; it gets its own back."""
    attributes = loader.__dict__
    own = attributes["worker_init_fn"]
    attributes["worker_init_fn"] = _TakesNoNotice(own)
    try:
        yield
    finally:
        attributes["worker_init_fn"] = own
