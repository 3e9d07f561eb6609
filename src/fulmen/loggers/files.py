"""Directories and text files of a run, local or at a URL that fsspec can open (``s3://...``, ``memory://...``)."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from typing import IO, Any

from fulmen.utilities.cloud_io import get_filesystem, is_dir, is_remote, join_path, local_path
from fulmen.utilities.durable import beside, sync_folder


def experiment_dir(save_dir: str, name: str) -> str:
    """``<save_dir>/<name>``, or ``save_dir`` without a name; ``~`` and variables are put in."""
    return join_path(save_dir, *filter(None, [name]))


def run_dir(root_dir: str, version: int | str) -> str:
    """The directory of a run: ``<root_dir>/version_<n>`` for a number, ``<root_dir>/<version>`` for a text."""
    return join_path(root_dir, version if isinstance(version, str) else f"version_{version}")


def next_version(root_dir: str) -> int:
    """One more than the highest ``version_<n>`` among the directories in ``root_dir``; 0 if there is none."""
    if not is_dir(root_dir):
        return 0
    if is_remote(root_dir):
        entries = get_filesystem(root_dir).ls(root_dir, detail=True)
        names = [os.path.basename(entry["name"].rstrip("/")) for entry in entries if entry["type"] == "directory"]
    else:
        names = [entry.name for entry in os.scandir(root_dir) if entry.is_dir()]
    matches = (re.fullmatch(r"version_(\d+)", name) for name in names)
    return max((int(match[1]) for match in matches if match), default=-1) + 1


def read_text(path: str) -> str:
    """The whole text of the file, line ends as they are."""
    if is_remote(path):
        return bytes(get_filesystem(path).cat_file(path)).decode()  # type: ignore[arg-type]
    with open(local_path(path), encoding="utf-8", newline="") as file:
        return file.read()


def append_text(path: str, text: str) -> None:
    """Write ``text`` at the end of the file, which is made if it is not there."""
    if not is_remote(path):
        with open(local_path(path), "a", encoding="utf-8", newline="") as file:
            file.write(text)
        return
    system: Any = get_filesystem(path)
    try:
        with system.open(path, "ab") as file:
            file.write(text.encode())
    except (NotImplementedError, ValueError):  # an object store that only knows whole objects
        old = system.cat_file(path) if system.exists(path) else b""
        system.pipe_file(path, old + text.encode())


@contextmanager
def replacing(path: str) -> Iterator[IO[str]]:
    """A file to write that takes the place of ``path`` when the block ends well, and leaves it untouched otherwise."""
    if is_remote(path):
        system = get_filesystem(path)
        with system.transaction, system.open(path, "w", encoding="utf-8", newline="") as file:
            yield file  # type: ignore[misc]
        return
    target = os.path.realpath(local_path(path))
    folder = os.path.dirname(target)
    part = os.path.join(folder, beside(os.path.basename(target)))
    try:
        with open(part, "w", encoding="utf-8", newline="") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        os.replace(part, target)
    except BaseException:
        if os.path.exists(part):
            os.remove(part)
        raise
    sync_folder(folder)
