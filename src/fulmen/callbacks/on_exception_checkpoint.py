"""Save a checkpoint when training breaks off."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from fulmen.callbacks.checkpoint import Checkpoint
from fulmen.callbacks.checkpointing import record
from fulmen.utilities.cloud_io import exists

if TYPE_CHECKING:
    from fulmen.core.module import LightningModule
    from fulmen.trainer.trainer import Trainer


class OnExceptionCheckpoint(Checkpoint):
    """Saves ``<dirpath>/<filename>.ckpt`` when an exception (or Ctrl-C) ends ``fit``.

    The next ``fit`` resumes from that file by itself, and removes it when it ends well.

    Args:
        dirpath: the folder to write to.
        filename: the name of the file, without ``.ckpt``.

    Raises:
        ValueError: ``filename`` is empty.
    """

    FILE_EXTENSION = ".ckpt"

    def __init__(self, dirpath: str | os.PathLike[str], filename: str = "on_exception") -> None:
        super().__init__()  # of another class that a user may have put behind this one
        if not filename:
            raise ValueError(
                f"OnExceptionCheckpoint(filename={filename!r}) has no name to save under. "
                f"Leave the argument out to save as 'on_exception'."
            )
        self.dirpath = os.fspath(dirpath)
        self.filename = filename

    @property
    def ckpt_path(self) -> str:
        """The path of the file."""
        return os.path.join(self.dirpath, self.filename + self.FILE_EXTENSION)

    def last_checkpoint_candidates(self, trainer: Trainer) -> list[str]:
        """The file, for ``trainer.fit(ckpt_path="last")``."""
        return [self.ckpt_path]

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        if trainer.state.fn == "fit":
            trainer.strategy.checkpoint_io.settle()  # the index is written to
            before = record.forget(trainer, self.dirpath, self.ckpt_path)
            try:
                trainer.save_checkpoint(self.ckpt_path)
            except BaseException:
                record.put_back(trainer, self.dirpath, before)
                raise
            place = record.place(trainer)
            trainer.strategy.checkpoint_io.then(
                lambda: record.name(trainer, self.dirpath, self.ckpt_path, place, "exception", metric=None)
            )

    def teardown(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        if stage == "fit" and exists(self.ckpt_path):  # not after another verb, which did not resume from it
            record.forget(trainer, self.dirpath, self.ckpt_path)
            trainer.strategy.remove_checkpoint(self.ckpt_path)
            record.clear(trainer, self.dirpath)
