"""Checkpoints that are written while training goes on."""

from __future__ import annotations

import os
import threading
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from fulmen.plugins.io.checkpoint_plugin import CheckpointIO
from fulmen.plugins.io.digest import Digest
from fulmen.plugins.io.snapshot import Snapshot, Snapshots
from fulmen.plugins.io.torch_plugin import TorchCheckpointIO

#: files that may wait to be written; a step that saves the best and the last state writes two
_MOST_PENDING = 2


@dataclass(slots=True)
class _Job:
    """Something that the writer does, in its order."""

    done: Future[None]
    path: str = ""  #: the file that it writes; ``""`` if it does something else
    snapshot: Snapshot | None = None
    actions: list[Callable[[], None]] = field(default_factory=list)


class AsyncCheckpointIO(CheckpointIO):
    """Writes checkpoints in the background: ``Trainer(plugins=AsyncCheckpointIO())``.

    A step waits only until the state is copied to the memory of the host; the file is the one that would have been
    written at that moment, byte for byte. What belongs to a file, such as its entry in the index and the removal of the
    one that it replaces, is done in the background, too, in the order in which a run that waits would do it. A file is
    announced (as the best one, say) at the first step boundary after it is durable, and an error of the writer is
    raised there; what was to be done after it is left out. When files come faster than they can be written, saving
    waits for the writer: at most two copies of the state are held. ``fit`` returns when everything is written.

    Args:
        checkpoint_io: what writes the files. None: :class:`TorchCheckpointIO`.
    """

    def __init__(self, checkpoint_io: CheckpointIO | None = None) -> None:
        self.checkpoint_io = checkpoint_io if checkpoint_io is not None else TorchCheckpointIO()
        self._jobs: deque[_Job] = deque()
        self._snapshots = Snapshots()
        self._writer: ThreadPoolExecutor | None = None
        self._thread: int | None = None  #: of the writer
        self._failed = False  #: a job has, and nobody was told yet
        self._defer: Callable[[Callable[[], None]], None] | None = None

    def save_checkpoint(
        self, checkpoint: dict[str, Any], path: str | os.PathLike[str], storage_options: Any | None = None
    ) -> None:
        """Copy ``checkpoint``, and write it to ``path`` in the background.

        Raises:
            Exception: what an earlier write failed with.
        """
        self._take_up_done(most_left=_MOST_PENDING - 1)
        snapshot = self._snapshots.take(checkpoint)
        write = partial(self.checkpoint_io.save_checkpoint, snapshot.checkpoint, path, storage_options)
        self._submit(write, None, os.fspath(path), snapshot)

    def then(self, action: Callable[[], None], otherwise: Callable[[], None] | None = None) -> None:
        if self._writer is None or self._is_writer:  # there is nothing to wait for
            action()
        else:
            self._submit(action, otherwise)

    def _submit(
        self,
        work: Callable[[], None],
        otherwise: Callable[[], None] | None,
        path: str = "",
        snapshot: Snapshot | None = None,
    ) -> None:
        if self._writer is None:
            self._writer = ThreadPoolExecutor(max_workers=1, thread_name_prefix="checkpoint-writer")
        done = self._writer.submit(self._do, work, otherwise)
        self._jobs.append(_Job(done, path, snapshot))
        if self._defer is not None:
            done.add_done_callback(lambda _, defer=self._defer: defer(self._take_up_done))

    def _do(self, work: Callable[[], None], otherwise: Callable[[], None] | None) -> None:
        """What the thread does for a job."""
        self._thread = threading.get_ident()
        if not self._failed:
            try:
                work()
            except BaseException:
                self._failed = True  # what is behind counts on this one
                raise
        elif otherwise is not None:
            otherwise()

    @property
    def _is_writer(self) -> bool:
        return threading.get_ident() == self._thread

    def digest(self, path: str | os.PathLike[str]) -> Digest:
        return self.checkpoint_io.digest(path)

    def load_checkpoint(
        self, path: str | os.PathLike[str], map_location: Any | None = None, weights_only: bool | None = None
    ) -> dict[str, Any]:
        self.settle()
        location = {} if map_location is None else {"map_location": map_location}
        return self.checkpoint_io.load_checkpoint(path, weights_only=weights_only, **location)

    def remove_checkpoint(self, path: str | os.PathLike[str]) -> None:
        if not self._is_writer and any(job.path == os.fspath(path) for job in self._jobs):
            self.settle()
        self.checkpoint_io.remove_checkpoint(path)

    def when_written(self, action: Callable[[], None]) -> None:
        if self._jobs:
            self._jobs[-1].actions.append(action)
        else:
            action()

    def settle(self) -> None:
        if not self._is_writer:  # what it does comes after all before
            self._take_up_done(most_left=-1)

    def report_to(self, defer: Callable[[Callable[[], None]], None] | None) -> None:
        self._defer = defer

    def teardown(self) -> None:
        """Wait until everything is written, and let go of the thread and the memory; they come again when needed."""
        try:
            self.settle()
        finally:
            if self._writer is not None:
                self._writer.shutdown()
                self._writer = self._thread = None
            self._snapshots.forget()
            self.checkpoint_io.teardown()

    def _take_up_done(self, most_left: int | None = None) -> None:
        """Do what waits for jobs that are done by now.

        Args:
            most_left: wait until only so many files are still to be written; -1: for every job. None: do not wait.
        """
        while self._jobs and (self._jobs[0].done.done() or (most_left is not None and self._files_left > most_left)):
            error = self._jobs[0].done.exception()  # waits; Ctrl-C while waiting loses nothing
            job = self._pop()
            if error is not None:
                while self._jobs:  # they are left out
                    self._jobs[0].done.exception()
                    self._pop()
                self._failed = False
                raise error
            for action in job.actions:
                action()

    @property
    def _files_left(self) -> int:
        return sum(job.snapshot is not None for job in self._jobs)

    def _pop(self) -> _Job:
        job = self._jobs.popleft()
        if job.snapshot is not None:
            self._snapshots.give_back(job.snapshot)
        return job
