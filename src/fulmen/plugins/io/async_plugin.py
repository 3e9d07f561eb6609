"""Checkpoints that are written while training goes on."""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any

from fulmen.plugins.io.checkpoint_plugin import CheckpointIO
from fulmen.plugins.io.digest import Digest
from fulmen.plugins.io.snapshot import Snapshot, Snapshots
from fulmen.plugins.io.torch_plugin import TorchCheckpointIO

#: files that may wait to be written; a step that saves the best and the last state writes two
_MOST_PENDING = 2


@dataclass(slots=True)
class _Job:
    """A file that is being written, or waits for it."""

    path: str
    snapshot: Snapshot
    written: Future[Digest | None]
    actions: list[Callable[[], None]] = field(default_factory=list)


class AsyncCheckpointIO(CheckpointIO):
    """Writes checkpoints in the background: ``Trainer(plugins=AsyncCheckpointIO())``.

    A step waits only until the state is copied to the memory of the host; the file is the one that would have been
    written at that moment, byte for byte. A file is announced (as the best one, say) at the first step boundary after
    it is durable, and an error of the writer is raised there. When files come faster than they can be written, saving
    waits for the writer: at most two copies of the state are held. ``fit`` returns when everything is written.

    Args:
        checkpoint_io: what writes the files. None: :class:`TorchCheckpointIO`.
    """

    def __init__(self, checkpoint_io: CheckpointIO | None = None) -> None:
        self.checkpoint_io = checkpoint_io if checkpoint_io is not None else TorchCheckpointIO()
        self._jobs: deque[_Job] = deque()
        self._snapshots = Snapshots()
        self._writer: ThreadPoolExecutor | None = None
        self._defer: Callable[[Callable[[], None]], None] | None = None
        self._digest: tuple[str, Digest | None] = "", None  #: of the file that was taken up last

    def save_checkpoint(
        self, checkpoint: dict[str, Any], path: str | os.PathLike[str], storage_options: Any | None = None
    ) -> None:
        """Copy ``checkpoint``, and write it to ``path`` in the background.

        Raises:
            Exception: what an earlier write failed with.
        """
        self._take_up_written(wait_for=len(self._jobs) - _MOST_PENDING + 1)
        snapshot = self._snapshots.take(checkpoint)
        if self._writer is None:
            self._writer = ThreadPoolExecutor(max_workers=1, thread_name_prefix="checkpoint-writer")
        written = self._writer.submit(self._write, snapshot, path, storage_options)
        self._jobs.append(_Job(os.fspath(path), snapshot, written))
        if self._defer is not None:
            written.add_done_callback(lambda _, defer=self._defer: defer(self._take_up_written))

    def _write(self, snapshot: Snapshot, path: str | os.PathLike[str], storage_options: Any) -> Digest | None:
        """What the thread does for a file."""
        self.checkpoint_io.save_checkpoint(snapshot.checkpoint, path, storage_options)
        try:
            return self.checkpoint_io.digest(path)  # here, as it may have to be read again for this
        except FileNotFoundError:  # it is kept elsewhere
            return None

    def digest(self, path: str | os.PathLike[str]) -> Digest:
        last, digest = self._digest
        if last == os.fspath(path) and digest is not None:
            return digest
        return self.checkpoint_io.digest(path)

    def load_checkpoint(
        self, path: str | os.PathLike[str], map_location: Any | None = None, weights_only: bool | None = None
    ) -> dict[str, Any]:
        self.settle()
        location = {} if map_location is None else {"map_location": map_location}
        return self.checkpoint_io.load_checkpoint(path, weights_only=weights_only, **location)

    def remove_checkpoint(self, path: str | os.PathLike[str]) -> None:
        if any(job.path == os.fspath(path) for job in self._jobs):
            self.settle()
        self.checkpoint_io.remove_checkpoint(path)

    def when_written(self, action: Callable[[], None]) -> None:
        if self._jobs:
            self._jobs[-1].actions.append(action)
        else:
            action()

    def settle(self) -> None:
        self._take_up_written(wait_for=len(self._jobs))

    def report_to(self, defer: Callable[[Callable[[], None]], None] | None) -> None:
        self._defer = defer

    def teardown(self) -> None:
        """Wait until everything is written, and let go of the thread and the memory; they come again when needed."""
        try:
            self.settle()
        finally:
            if self._writer is not None:
                self._writer.shutdown()
                self._writer = None
            self._snapshots.forget()
            self.checkpoint_io.teardown()

    def _take_up_written(self, wait_for: int = 0) -> None:
        """Do what waits for files that are written by now, and for the ``wait_for`` oldest ones, which are awaited."""
        while self._jobs and (wait_for > 0 or self._jobs[0].written.done()):
            wait_for -= 1
            error = self._jobs[0].written.exception()  # waits; Ctrl-C while waiting loses nothing
            job = self._jobs.popleft()
            self._snapshots.give_back(job.snapshot)
            if error is not None:
                for later in self._jobs:  # they count on this one; their files are there, and found by who looks
                    later.actions.clear()
                raise error
            self._digest = job.path, job.written.result()
            for action in job.actions:
                action()
