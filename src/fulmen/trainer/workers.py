"""Loader workers that outlive a signal to the whole process group, so that the run can be saved first.

``scancel``, ``kill -TERM -- -GROUP`` and Ctrl-C in a terminal reach the workers as well as the process that trains. A
worker that dies of it takes the run along before its state is saved. Workers therefore take no notice of these signals.
They end when the training process tells them to, or is no more: torch has them look for it.
"""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable, Generator, Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import replace
from typing import Any

from torch.utils.data import DataLoader
from torch.utils.data._utils import worker as torch_worker

_SIGNALS = tuple(getattr(signal, name) for name in ("SIGTERM", "SIGINT", "SIGUSR1", "SIGUSR2") if hasattr(signal, name))


def _nothing(number: int, frame: Any) -> None:
    """Instead of SIG_IGN, which programs that a worker starts would inherit."""


class _TakesNoNotice:
    """A ``worker_init_fn`` that switches the signals off, before the user's own, which may set them anew.

    Args:
        own: the user's.
        share: the number of processes, and which of them this one is, if a worker is to be told that it is one of all
            workers of all processes.
    """

    def __init__(self, own: Callable[[int], Any] | None, share: tuple[int, int] | None) -> None:
        self.own, self.share = own, share

    def __call__(self, worker_id: int) -> None:
        in_main_thread = threading.current_thread() is threading.main_thread()
        if in_main_thread and hasattr(signal, "pthread_sigmask"):  # else the worker is a thread of this process
            for number in _SIGNALS:
                signal.signal(number, _nothing)
            signal.pthread_sigmask(signal.SIG_UNBLOCK, _SIGNALS)
        info = torch_worker._worker_info
        if self.share is not None and info is not None:
            size, rank = self.share
            torch_worker._worker_info = replace(
                info, id=rank * info.num_workers + info.id, num_workers=size * info.num_workers
            )
        if self.own is not None:
            self.own(worker_id)


def start(loader: Any, share: tuple[int, int] | None = None) -> Any:
    """``iter(loader)``; the workers that it starts take no notice of signals that ask the run to end.

    Args:
        share: ``(number of processes, which of them this one is)``, if a data set that divides itself among workers, by
            ``torch.utils.data.get_worker_info()``, is to divide itself among those of all processes.
    """
    if share is not None and not loader.num_workers:
        return _as_one_worker(loader, share)
    has_signals = hasattr(signal, "pthread_sigmask")
    if not isinstance(loader, DataLoader) or not loader.num_workers or not (has_signals or share):
        return iter(loader)
    if getattr(loader, "_iterator", None) is not None:
        return iter(loader)  # persistent workers, which run already
    with _without_signals() if has_signals else nullcontext(), _init_of(loader, share):
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
def _init_of(loader: DataLoader[Any], share: tuple[int, int] | None) -> Generator[None, None, None]:
    """The loader gives its ``worker_init_fn`` to the workers when it starts them; it gets its own back."""
    attributes = loader.__dict__
    own = attributes["worker_init_fn"]
    attributes["worker_init_fn"] = _TakesNoNotice(own, share)
    try:
        yield
    finally:
        attributes["worker_init_fn"] = own


# -- a loader without workers, whose process is one of several ---------------------------------------------------------


def _as_one_worker(loader: DataLoader[Any], share: tuple[int, int]) -> Any:
    """``iter(loader)`` of a loader that reads in this process; its data set sees a worker for each process."""
    size, rank = share
    info = torch_worker.WorkerInfo(id=rank, num_workers=size, seed=0, dataset=loader.dataset)
    with _seen(info):
        batches = iter(loader)
    fetcher: Any = batches._dataset_fetcher  # type: ignore[attr-defined]  # which has begun with the data set
    fetcher.dataset_iter = _read_as(info, fetcher.dataset_iter)
    return batches


def _read_as(info: Any, samples: Iterator[Any]) -> Iterator[Any]:
    while True:
        with _seen(info):
            try:
                sample = next(samples)
            except StopIteration:
                return
        yield sample


@contextmanager
def _seen(info: Any) -> Generator[None, None, None]:
    """``get_worker_info()`` gives ``info``; what puts samples together must not see it, or it takes shared memory."""
    before = torch_worker._worker_info
    torch_worker._worker_info = info
    try:
        yield
    finally:
        torch_worker._worker_info = before
