"""How a checkpoint gets into a file and back."""

from __future__ import annotations

import os
from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import Any

from fulmen.plugins.io.digest import Digest, digest_of


class CheckpointIO(ABC):
    """Write one of these to store checkpoints in a place or format of your own.

    Give it to the trainer: ``Trainer(plugins=[MyCheckpointIO()])``. Only the process of global rank 0
    calls it, unless a strategy writes a part of the checkpoint on each rank.
    """

    @abstractmethod
    def save_checkpoint(
        self, checkpoint: dict[str, Any], path: str | os.PathLike[str], storage_options: Any | None = None
    ) -> None:
        """Write ``checkpoint`` to ``path``. When this returns, or fails, what was at ``path`` is whole.

        Args:
            checkpoint: the whole state of a run: tensors and simple values.
            path: a local path or an fsspec URL; its folders are made.
            storage_options: what ``trainer.save_checkpoint(..., storage_options=...)`` was given. None: nothing.
        """

    @abstractmethod
    def load_checkpoint(
        self, path: str | os.PathLike[str], map_location: Any | None = None, weights_only: bool | None = None
    ) -> dict[str, Any]:
        """Read what :meth:`save_checkpoint` wrote.

        Args:
            path: a local path or an fsspec URL.
            map_location: where to put tensors, as in ``torch.load``.
            weights_only: whether to refuse files that hold more than tensors and simple values. None: yes.
        """

    @abstractmethod
    def remove_checkpoint(self, path: str | os.PathLike[str]) -> None:
        """Remove the checkpoint at ``path``, be it a file or a folder. Nothing happens if there is none."""

    def when_written(self, action: Callable[[], None]) -> None:
        """Call ``action`` once the file that was saved last is durable: at once, unless this writes in the background.

        Who wraps a CheckpointIO passes this on, and :meth:`then`, :meth:`settle`, :meth:`report_to` and :meth:`digest`
        likewise.
        """
        action()

    def then(self, action: Callable[[], None], otherwise: Callable[[], None] | None = None) -> None:
        """Do something to files after all that was asked for before: at once, unless this writes in the background,
        which does it there, in this order.

        Args:
            action: what to do; it may be called in another thread.
            otherwise: what to do instead, if something before it has failed so that ``action`` is left out. None:
                nothing.
        """
        self.when_written(action)

    def settle(self) -> None:
        """Wait until everything that was saved is durable.

        Raises:
            Exception: what a write in the background failed with.
        """

    def report_to(self, defer: Callable[[Callable[[], None]], None] | None) -> None:
        """A run begins (or, with None, ends): what is to be done when a file is written goes to ``defer``, which has it
        done at the end of a step. Only needed by those who write in the background.
        """

    def digest(self, path: str | os.PathLike[str]) -> Digest:
        """Size and checksum of what :meth:`save_checkpoint` has just written to ``path``, for the index of the folder.

        It is read again for this; who knows it from writing may say so.

        Raises:
            FileNotFoundError: there is nothing at ``path``, as it is kept elsewhere. The index then leaves it out.
        """
        return digest_of(path)

    def teardown(self) -> None:
        """Called when a run ends, for those who have something to finish."""
