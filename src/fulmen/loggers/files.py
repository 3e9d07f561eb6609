"""Directories and text files of a run, local or at a URL that fsspec can open (``s3://...``, ``memory://...``)."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from typing import IO, Any


def local(path: str | os.PathLike[str]) -> bool:
    """Whether ``path`` lies on this machine rather than at a URL."""
    return "://" not in os.fspath(path)


def expand(path: str | os.PathLike[str]) -> str:
    """``path`` with ``~`` and environment variables put in; a URL stays as it is."""
    text = os.fspath(path)
    return os.path.expandvars(os.path.expanduser(text)) if local(text) else text


def run_dir(root_dir: str, version: int | str) -> str:
    """The directory of a run: ``<root_dir>/version_<n>`` for a number, ``<root_dir>/<version>`` for a text."""
    return os.path.join(root_dir, version if isinstance(version, str) else f"version_{version}")


def next_version(root_dir: str) -> int:
    """One more than the highest ``version_<n>`` among the directories in ``root_dir``; 0 if there is none."""
    if local(root_dir):
        names = [entry.name for entry in os.scandir(root_dir) if entry.is_dir()] if os.path.isdir(root_dir) else []
    else:
        system, inner = _remote(root_dir)
        entries = system.ls(inner, detail=True) if system.isdir(inner) else []
        names = [os.path.basename(entry["name"].rstrip("/")) for entry in entries if entry["type"] == "directory"]
    matches = (re.fullmatch(r"version_(\d+)", name) for name in names)
    return max((int(match[1]) for match in matches if match), default=-1) + 1


def make_directory(path: str) -> None:
    """Make ``path`` and all above it."""
    if local(path):
        os.makedirs(path, exist_ok=True)
    else:
        system, inner = _remote(path)
        system.makedirs(inner, exist_ok=True)


def exists(path: str) -> bool:
    """Whether there is a file or directory at ``path``."""
    if local(path):
        return os.path.exists(path)
    system, inner = _remote(path)
    return system.exists(inner)


def read_text(path: str) -> str:
    """The whole text of the file, line ends as they are."""
    if local(path):
        with open(path, encoding="utf-8", newline="") as file:
            return file.read()
    system, inner = _remote(path)
    return system.cat_file(inner).decode()


def append_text(path: str, text: str) -> None:
    """Write ``text`` at the end of the file, which is made if it is not there."""
    if local(path):
        with open(path, "a", encoding="utf-8", newline="") as file:
            file.write(text)
        return
    system, inner = _remote(path)
    try:
        with system.open(inner, "ab") as file:
            file.write(text.encode())
    except (NotImplementedError, ValueError):  # an object store that only knows whole objects
        old = system.cat_file(inner) if system.exists(inner) else b""
        system.pipe_file(inner, old + text.encode())


@contextmanager
def replacing(path: str) -> Iterator[IO[str]]:
    """A file to write that takes the place of ``path`` when the block ends well, and leaves it untouched otherwise."""
    if not local(path):
        system, inner = _remote(path)
        with system.transaction, system.open(inner, "w", encoding="utf-8", newline="") as file:
            yield file
        return
    target = os.path.realpath(path)
    beside = f"{target}.{os.getpid()}.tmp"
    try:
        with open(beside, "w", encoding="utf-8", newline="") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        os.replace(beside, target)
    except BaseException:
        if os.path.exists(beside):
            os.remove(beside)
        raise


def _remote(path: str) -> tuple[Any, str]:
    from fsspec.core import url_to_fs

    return url_to_fs(path)
