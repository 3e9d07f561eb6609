"""How to write: which files there are, which of them are announced, and the order of what is done to them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING, Any

from fulmen.callbacks.checkpointing import record, writing
from fulmen.callbacks.checkpointing.retention import Kept
from fulmen.plugins.io import index

if TYPE_CHECKING:
    from fulmen.callbacks.model_checkpoint import ModelCheckpoint
    from fulmen.trainer.trainer import Trainer


@dataclass(frozen=True, slots=True)
class Save:
    """A checkpoint that is to be written.

    Attributes:
        path: where to.
        kept: what is kept once it is there.
        kept_in_file: what the file itself says is kept: it counts itself, since whoever resumes from it has it.
        reason: why it is written, for the index.
        metric: what it is ranked by, as the index has it.
        replaces: the file that is removed for it, or ``""``.
    """

    path: str
    kept: Kept
    kept_in_file: Kept
    reason: str
    metric: dict[str, Any] | None
    replaces: str


class Files:
    """The files of one policy.

    Attributes:
        kept: what is kept once all that was saved is written.
        announced: of this, what is durable.
        in_file: while a file is written: what will be kept once it is there.
        own: while a file is written: what it says of itself.
    """

    def __init__(self, kept: Kept) -> None:
        self.kept = self.announced = kept
        self.in_file: Kept | None = None
        self.own: dict[str, Any] | None = None
        self._being_written: Counter[str] = Counter()  #: how many writes to each path are still to come
        self._removals = 0  #: how many files are still to be removed, once those in their place are written

    def begin(self) -> None:
        """A training begins: what is announced is all there is."""
        self.kept, self._being_written, self._removals = self.announced, Counter(), 0

    def change(self, name: str, value: Any) -> None:
        """Let somebody set a field of what is kept by hand."""
        self.kept, self.announced = replace(self.kept, **{name: value}), replace(self.announced, **{name: value})

    def is_being_written(self, path: str) -> bool:
        """Whether there will be a file at ``path``, though it may not be there yet."""
        return self._being_written[path] > 0

    def write(self, trainer: Trainer, policy: ModelCheckpoint, save: Save) -> None:
        """Write a checkpoint, name it in the index, and announce what is kept then once it is there.

        Raises:
            OSError: it could not be written; everything is as it was.
        """
        folder, path = policy.dirpath or "", save.path
        if any(other._removals for other in _files_of(trainer)):
            trainer.strategy.checkpoint_io.settle()  # who goes on from the file that follows finds those removed
        self._being_written[path] += 1  # from here on: what was written there before is named no more
        before = record.forget(trainer, folder, path)
        self.in_file = save.kept_in_file
        self.own = {"path": index.relative(folder, path), "reason": save.reason, "metric": save.metric}
        self.own["replaces"] = index.relative(folder, save.replaces) if save.replaces else ""
        try:
            trainer.save_checkpoint(path, policy.save_weights_only)
        except BaseException:
            self._being_written[path] -= 1
            record.put_back(trainer, folder, before)
            raise
        finally:
            self.in_file = self.own = None
        self.kept = save.kept
        place = record.place(trainer)

        def announce() -> None:
            self._being_written[path] -= 1
            if not self._being_written[path]:  # else it is being written over, and nothing there is certain
                record.name(trainer, folder, path, place, save.reason, save.metric, policy.save_weights_only)
            self.announced = save.kept
            if trainer.is_global_zero:
                for logger in trainer.loggers:
                    logger.after_save_checkpoint(policy)

        self.when_written(trainer, announce)

    def link(self, trainer: Trainer, folder: str, newest: str, path: str) -> None:
        """Make ``path`` a link to the file ``newest``, as the last state."""
        previous = self.kept.last_model_path
        record.forget(trainer, folder, path)  # a file, when a run has ended there before its time
        self.kept = kept = replace(self.kept, last_model_path=path)

        def link() -> None:
            if trainer.is_global_zero:
                writing.link(newest, path)
            self.announced = kept

        self.when_written(trainer, link)
        trainer.strategy.barrier("ModelCheckpoint.link")
        if previous and previous != path:
            self.remove(trainer, folder, previous)

    def remove(self, trainer: Trainer, folder: str, path: str) -> None:
        """Remove a file, once all that was saved so far is there."""
        if not writing.may_remove(path, folder, None if trainer.ckpt_was_chosen else trainer.ckpt_path):
            return
        self._removals += 1

        def remove() -> None:
            self._removals -= 1
            record.forget(trainer, folder, path)
            trainer.strategy.remove_checkpoint(path)

        self.when_written(trainer, remove)

    def drop_last(self, trainer: Trainer, folder: str) -> None:
        """Remove what holds the last state, which is none any more."""
        path = self.kept.last_model_path
        self.kept = kept = replace(self.kept, last_model_path="")
        self.remove(trainer, folder, path)
        self.when_written(trainer, partial(setattr, self, "announced", kept))
        self.when_written(trainer, partial(record.clear, trainer, folder))

    def when_written(self, trainer: Trainer, action: Callable[[], None]) -> None:
        """Do ``action`` once all that was saved so far is durable: at once, unless it is written in the background."""
        trainer.strategy.checkpoint_io.when_written(action)


def _files_of(trainer: Trainer) -> list[Files]:
    """Those of every policy of the run, which may all write to one folder."""
    found = (getattr(callback, "_files", None) for callback in trainer.checkpoint_callbacks)
    return [files for files in found if isinstance(files, Files)]
