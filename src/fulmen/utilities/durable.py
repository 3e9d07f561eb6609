"""What makes a renamed file last, and what a writer that was killed leaves behind."""

from __future__ import annotations

import ctypes
import os
import re
import shutil
import uuid
from contextlib import suppress
from pathlib import Path

_PART = re.compile(r"\..+\.[0-9a-f]{8}\.part")


def beside(name: str) -> str:
    """A name that nobody has, to write under beside the file ``name`` before it takes its place."""
    return f".{name[:60]}.{uuid.uuid4().hex[:8]}.part"


def is_part(name: str) -> bool:
    """Whether ``name`` is one of :func:`beside`."""
    return _PART.fullmatch(name) is not None


def unwritten(path: str | os.PathLike[str], error: OSError, not_done: str = "written") -> OSError:
    """The error to raise in place of the system's ``error``: of its class, naming the file as the user knows it."""
    return OSError(error.errno, f"The file could not be {not_done} ({error.strerror or error})", os.fspath(path))


def sync_folder(folder: str | os.PathLike[str]) -> None:
    """Make what was made, renamed or removed in a local folder last through a power failure, where the system can."""
    if os.name == "nt":
        return
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        with suppress(OSError):  # some network file systems cannot; the files themselves are safe
            os.fsync(descriptor)
    finally:
        os.close(descriptor)


def make_folder(folder: str | os.PathLike[str]) -> None:
    """Make a local folder and those above it, where they are missing, and make them last."""
    path = Path(folder)
    if path.is_dir():
        return
    make_folder(path.parent)
    path.mkdir(exist_ok=True)
    sync_folder(path.parent)


def remove_parts(folder: str | os.PathLike[str]) -> None:
    """Remove from a local folder what writers that were killed have left half written, files and folders."""
    if not os.path.isdir(folder):
        return
    for path in Path(folder).iterdir():
        if is_part(path.name):
            with suppress(OSError):  # it is of no use, and does no harm
                shutil.rmtree(path) if path.is_dir() and not path.is_symlink() else path.unlink()


def replace_folder(fresh: Path, path: Path) -> None:
    """Give the local folder ``fresh`` the name ``path``, and remove what had it, a file or a folder. There is something
    whole under that name at every moment, where the system can exchange two names.
    """
    if not os.path.lexists(path):
        os.rename(fresh, path)
        sync_folder(path.parent)
        return
    if not _exchange(fresh, path):
        aside = path.with_name(beside(path.name))
        os.rename(path, aside)
        os.rename(fresh, path)
        fresh = aside
    sync_folder(path.parent)
    shutil.rmtree(fresh) if fresh.is_dir() and not fresh.is_symlink() else fresh.unlink()


def _exchange(one: Path, other: Path) -> bool:
    """Let two names change places, in one go; False where the system cannot."""
    exchange = 2  # of Linux's `renameat2`
    here = -100
    try:
        rename = ctypes.CDLL(None, use_errno=True).renameat2
    except (AttributeError, OSError):
        return False
    return rename(here, os.fsencode(one), here, os.fsencode(other), exchange) == 0
