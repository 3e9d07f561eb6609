"""How to write: which files there are, which of them are announced, and the order of what is done to them."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from itertools import count
from typing import TYPE_CHECKING, Any

from fulmen.callbacks.checkpointing import record, writing
from fulmen.callbacks.checkpointing.retention import Kept, Retention
from fulmen.loggers.logger import tell_all
from fulmen.plugins.io import index
from fulmen.utilities.cloud_io import is_remote

if TYPE_CHECKING:
    from fulmen.callbacks.model_checkpoint import ModelCheckpoint
    from fulmen.trainer.trainer import Trainer

_decisions = count()  #: about files: the later one counts


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
        self._to_come: dict[str, tuple[int, bool]] = {}  #: whether a file will be there, and when that was decided
        self._seen: set[str] = set()  #: local files that were there; an older checkpoint may list some that are not

    def begin(self) -> None:
        """A training begins: what is announced is all there is."""
        self.kept, self._to_come = self.announced, {}
        self._seen = {path for path in _paths(self.kept) if not is_remote(path) and os.path.lexists(path)}

    def change(self, name: str, value: Any) -> None:
        """Let somebody set a field of what is kept by hand."""
        self.kept, self.announced = replace(self.kept, **{name: value}), replace(self.announced, **{name: value})

    def forget_removed(self, trainer: Trainer, retention: Retention, folder: str) -> list[str]:
        """Find out which files somebody has removed meanwhile: they are kept no more. Returns their paths."""
        if not self._removed(trainer):
            return []
        trainer.strategy.checkpoint_io.settle()  # what is announced later must not name them
        gone = self._removed(trainer)
        self.kept, self.announced = retention.without(self.kept, gone), retention.without(self.announced, gone)
        for path in gone:
            self.in_order(trainer, partial(record.forget, trainer, folder, path))
        return gone

    def _removed(self, trainer: Trainer) -> list[str]:
        paths = (_paths(self.kept) & self._seen) - self._to_come.keys()
        return trainer.strategy.broadcast([path for path in sorted(paths) if not os.path.lexists(path)])

    def look_again(self) -> None:
        """Leave to the program what it has taken away itself just now: it is not missed."""
        self._seen = {path for path in self._seen if os.path.lexists(path)}

    def will_be_there(self, trainer: Trainer, path: str) -> bool | None:
        """Whether there is a file at ``path`` once all that was asked for is done; None if nothing was asked for."""
        told = [files._to_come[path] for files in _files_of(trainer) if path in files._to_come]
        return trainer.strategy.broadcast(max(told)[1] if told else None)

    def _expect(self, path: str, there: bool) -> Callable[[], None]:
        """Know what will become of ``path``. Returns what is to be called when it has become so."""
        number = next(_decisions)
        self._to_come[path] = number, there

        def over() -> None:
            if self._to_come.get(path, (None,))[0] == number:  # nothing else was decided since
                self._to_come.pop(path, None)

        return over

    def write(self, trainer: Trainer, policy: ModelCheckpoint, save: Save) -> None:
        """Write a checkpoint, name it in the index, and announce what is kept then once it is there.

        Raises:
            OSError: it could not be written; everything is as it was.
        """
        folder, path = policy.dirpath or "", save.path
        before: list[index.Entry | None] = [None]
        over = self._expect(path, there=True)

        def make_way() -> None:
            before[0] = record.forget(trainer, folder, path)  # what was written there before is named no more
            if trainer.is_global_zero and not is_remote(path) and os.path.islink(path):
                writing.clear(path)  # or the file that it points to would be written over

        def put_back() -> None:
            over()
            record.put_back(trainer, folder, before[0])

        self.in_order(trainer, make_way)
        self.in_file = save.kept_in_file
        self.own = {"path": index.relative(folder, path), "reason": save.reason, "metric": save.metric}
        self.own["replaces"] = index.relative(folder, save.replaces) if save.replaces else ""
        try:
            policy._save_checkpoint(trainer, path)
        except BaseException:
            self.in_order(trainer, put_back)
            raise
        finally:
            self.in_file = self.own = None
        self.kept, place = save.kept, record.place(trainer)

        def name() -> None:
            record.name(trainer, folder, path, place, save.reason, save.metric, policy.save_weights_only)

        def announce() -> None:
            over()
            if not is_remote(path) and os.path.lexists(path):  # it may be kept elsewhere
                self._seen.add(path)
            self.announced = save.kept
            if trainer.is_global_zero:
                tell_all(trainer.loggers, lambda logger: logger.after_save_checkpoint(policy))

        self.in_order(trainer, name, otherwise=put_back)
        self.when_written(trainer, announce)

    def link(self, trainer: Trainer, folder: str, newest: str, path: str) -> None:
        """Make ``path`` a link to the file ``newest``, as the last state."""
        self.kept = kept = replace(self.kept, last_model_path=path)

        def link() -> None:
            record.forget(trainer, folder, path)  # a file, when a run has ended there before its time
            if trainer.is_global_zero:
                writing.link(newest, path)

        def announce() -> None:
            self._seen.add(path)
            self.announced = kept

        self.in_order(trainer, link)
        self.when_written(trainer, announce)
        trainer.strategy.barrier("ModelCheckpoint.link")

    def remove(self, trainer: Trainer, folder: str, path: str) -> None:
        """Remove a file, once all that was saved so far is there."""
        if not writing.may_remove(path, folder, None if trainer.ckpt_was_chosen else trainer.ckpt_path):
            return
        over = self._expect(path, there=False)

        def remove() -> None:
            record.forget(trainer, folder, path)
            trainer.strategy.remove_checkpoint(path)

        self._seen.discard(path)
        self.in_order(trainer, remove, otherwise=over)
        self.when_written(trainer, over)

    def drop_last(self, trainer: Trainer, folder: str) -> None:
        """Remove what holds the last state, which is none any more."""
        path = self.kept.last_model_path
        self.kept = kept = replace(self.kept, last_model_path="")
        self.remove(trainer, folder, path)
        self.in_order(trainer, partial(record.clear, trainer, folder))
        self.when_written(trainer, partial(setattr, self, "announced", kept))

    def in_order(self, trainer: Trainer, action: Callable[[], Any], otherwise: Callable[[], Any] | None = None) -> None:
        """Do something to files after all that was asked for before: here, or where they are written in the
        background.
        """
        trainer.strategy.checkpoint_io.then(action, otherwise)

    def when_written(self, trainer: Trainer, action: Callable[[], None]) -> None:
        """Do ``action`` once all that was saved so far is durable: at once, unless it is written in the background."""
        trainer.strategy.checkpoint_io.when_written(action)


def _paths(kept: Kept) -> set[str]:
    return {kept.best_model_path, kept.last_model_path, *kept.best_k_models} - {""}


def _files_of(trainer: Trainer) -> list[Files]:
    """Those of every policy of the run, which may all write to one folder."""
    found = (getattr(callback, "_files", None) for callback in trainer.checkpoint_callbacks)
    return [files for files in found if isinstance(files, Files)]
