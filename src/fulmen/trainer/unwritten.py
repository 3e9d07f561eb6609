"""What a user reads when a file of the run could not be written: what is safe, and how to go on."""

from __future__ import annotations

import errno
import os
import sysconfig
from typing import TYPE_CHECKING, Any

from fulmen.plugins.io import index
from fulmen.utilities.cloud_io import is_remote, local_path

if TYPE_CHECKING:
    from types import TracebackType

    from fulmen.trainer.trainer import Trainer

_PACKAGE = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
_STANDARD_LIBRARY = sysconfig.get_paths()["stdlib"]
_OTHER_PACKAGES = tuple({sysconfig.get_paths()[name] for name in ("purelib", "platlib")})

#: what to do about each error of the system that is none of the program
_REMEDIES = {
    errno.ENOSPC: "Free space",
    errno.EDQUOT: "Free space within the quota",
    errno.EFBIG: "Lift the limit on the size of files (`ulimit -f`)",
    errno.EACCES: "See that this user may write there",
    errno.EPERM: "See that this user may write there",
    errno.EROFS: "Make the file system writable again",
    errno.EIO: "Look after the disk",
}


def explain(trainer: Trainer, error: BaseException, ckpt_path: Any) -> None:
    """Let an error about a file of the run say in its last line which file it is, why, what is safe, and what to do.
    Its traceback is cut where the user's own code ends: the rest says how the file came to be written.

    Other errors stay as they are.

    Args:
        ckpt_path: what ``fit`` was given, or None.
    """
    if not isinstance(error, OSError) or error.errno not in _REMEDIES or trainer.state.fn != "fit":
        return
    folders = _folders(trainer)
    if not isinstance(error.filename, str) or not any(_lies_in(error.filename, folder) for folder in folders):
        return
    said = error.strerror or ""
    what = next((f"Not {done}" for done in ("written", "removed") if f"not be {done}" in said), "It is about")
    newest = _newest(folders)
    safe, again = "No checkpoint was written before.", "run the same command again"
    if newest is not None:
        safe = f"What was written before is whole; the newest checkpoint is {newest}."
        if ckpt_path != "auto":
            again += ' with ckpt_path="auto", to go on from it'
    error.strerror = f"{os.strerror(error.errno)}. {safe} {_REMEDIES[error.errno]}, then {again}. {what}"
    _shorten(error)


def _folders(trainer: Trainer) -> list[str]:
    """Where files of the run are, on disks of this machine."""
    found = [getattr(callback, "dirpath", None) for callback in trainer.checkpoint_callbacks]
    found += [logger.log_dir or logger.save_dir for logger in trainer.loggers]
    return [local_path(each) for each in found if each is not None and not is_remote(each)]


def _lies_in(path: str, folder: str) -> bool:
    path, folder = os.path.realpath(path), os.path.realpath(folder)
    return path == folder or path.startswith(folder + os.sep)


def _newest(folders: list[str]) -> str | None:
    """The checkpoint that is the furthest; its size is looked at, since reading it all may take long. One that was
    written last of all, and could not be named in the index any more, is looked at more closely.
    """
    found: list[tuple[tuple[int, ...], str, str]] = []
    unnamed: list[tuple[float, str]] = []
    for folder in folders:
        try:
            known = index.look(folder)
        except (OSError, ValueError):
            continue
        if known is None:
            known = index.Index(folder)
        paths = {known.path_of(entry): entry for entry in known.entries}
        for path, entry in paths.items():
            whole = os.path.isdir(path) or (os.path.exists(path) and os.path.getsize(path) == entry.size)
            if whole and not entry.weights_only:
                found.append((entry.position, entry.written, path))
        since = max((os.path.getmtime(path) for path in paths if os.path.exists(path)), default=0.0)
        others = [each for each in index.files_of(folder) if each not in paths and os.path.getmtime(each) >= since]
        unnamed += [(os.path.getmtime(each), each) for each in others if index.is_whole(each)]
    if unnamed:
        return max(unnamed)[1]
    return max(found)[2] if found else None


def _shorten(error: BaseException) -> None:
    """Leave of the traceback what leads to the last line of the user's, and one more."""
    chain: list[TracebackType] = []
    trace = error.__traceback__
    while trace is not None:
        chain.append(trace)
        trace = trace.tb_next
    last = max((place for place, each in enumerate(chain) if _is_of_user(each)), default=0)
    if last + 1 < len(chain):
        chain[last + 1].tb_next = None


def _is_of_user(trace: TracebackType) -> bool:
    file = os.path.abspath(trace.tb_frame.f_code.co_filename)
    if file.startswith(_PACKAGE + os.sep):
        return False
    return not file.startswith(_STANDARD_LIBRARY) or file.startswith(_OTHER_PACKAGES)
