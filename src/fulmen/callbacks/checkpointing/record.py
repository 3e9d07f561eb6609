"""What the index of a checkpoint folder is told; see :mod:`fulmen.plugins.io.index`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from fulmen.plugins.io import index
from fulmen.utilities.cloud_io import join_path

#: reasons of files that a policy asks for
ASKED_FOR = ("epoch", "step", "time", "last", "final")
#: reasons of files that a run leaves when it is asked to end before its time
SIGNALS = ("SIGTERM", "SIGUSR1", "SIGUSR2", "SIGINT")

if TYPE_CHECKING:
    from fulmen.trainer.trainer import Trainer


def read(trainer: Trainer, folder: str) -> index.Index:
    """The index of ``folder``."""
    return index.read(folder, trainer.strategy.load_checkpoint)


def place(trainer: Trainer) -> dict[str, int]:
    """How far the run is now, as an entry has it."""
    progress = trainer.progress
    return {"step": progress.step, "epoch": progress.epoch, "batch": progress.total_batches}


def name(
    trainer: Trainer,
    folder: str,
    path: str,
    place: dict[str, int],
    reason: str,
    metric: dict[str, Any] | None,
    weights_only: bool = False,
) -> None:
    """Name the file at ``path``, which was written last. Nothing happens if it is not in ``folder``.

    Args:
        place: how far the run was when it was saved.
    """
    if not trainer.is_global_zero or not index.holds(folder, path):
        return
    try:
        size, checksum = trainer.strategy.checkpoint_io.digest(path)
    except FileNotFoundError:  # a CheckpointIO that keeps it elsewhere
        return
    entry = index.Entry(
        path=index.relative(folder, path),
        **place,
        metric=metric,
        reason=reason,
        size=size,
        checksum=checksum,
        written=index.now(),
        weights_only=weights_only,
    )
    read(trainer, folder).add(entry)


def forget(trainer: Trainer, folder: str, path: str) -> index.Entry | None:
    """Take the file at ``path`` out, as it is about to be removed or written over. Returns what stood there."""
    if not trainer.is_global_zero or not index.holds(folder, path):
        return None
    known = read(trainer, folder)
    entry = known.find(path)
    if entry is not None:
        known.remove([path])
    return entry


def replaced_by(trainer: Trainer, folder: str, file: dict[str, Any], stale_last: bool) -> list[str]:
    """What a process that was killed had still to remove when it had written a checkpoint.

    Args:
        file: what the checkpoint says of itself.
        stale_last: also what the run had left when it ended before its time, which was of use until then.
    """
    known = read(trainer, folder)
    paths = [file["replaces"]] if file["replaces"] else []
    names = [entry.path for entry in known.entries]
    if stale_last and file["path"] in names[1:]:
        before = known.entries[names.index(file["path"]) - 1]
        if before.reason not in (*ASKED_FOR, "exception", "found"):
            paths.append(before.path)
    return [join_path(folder, *path.split("/")) for path in paths]


def clear(trainer: Trainer, folder: str) -> None:
    """Remove the index if it names nothing any more."""
    if trainer.is_global_zero:
        known = read(trainer, folder)
        if not known.entries:
            known.delete()


def put_back(trainer: Trainer, folder: str, entry: index.Entry | None) -> None:
    """Name a file again that could not be written over, if it is as it was."""
    if entry is None:
        return
    try:
        known = read(trainer, folder)
        if known.damage(entry) is None:
            known.add(entry)
    except OSError:  # of the same cause; the file is found by those who look for it
        pass
