"""Directories and text files of a run, local or at a URL that fsspec can open (``s3://...``, ``memory://...``)."""

from __future__ import annotations

import os
import re
from contextlib import suppress
from typing import Any

from fulmen.utilities.cloud_io import exists, get_filesystem, is_dir, is_remote, join_path, local_path
from fulmen.utilities.text_files import naming_file
from fulmen.utilities.text_files import read_text as read_text
from fulmen.utilities.text_files import replacing as replacing


def experiment_dir(save_dir: str, name: str) -> str:
    """``<save_dir>/<name>``, or ``save_dir`` without a name; ``~`` and variables are put in."""
    return join_path(save_dir, *filter(None, [name]))


def run_dir(root_dir: str, version: int | str) -> str:
    """The directory of a run: ``<root_dir>/version_<n>`` for a number, ``<root_dir>/<version>`` for a text."""
    return join_path(root_dir, version if isinstance(version, str) else f"version_{version}")


def next_version(root_dir: str) -> int:
    """One more than the highest ``version_<n>`` among the directories in ``root_dir``; 0 if there is none."""
    return max(_versions(root_dir), default=-1) + 1


def newest_run(root_dir: str) -> int | None:
    """The highest version in ``root_dir`` with checkpoints; without one, the highest with a folder for them, then the
    highest that somebody has written to, and then the highest at all. None: there is none.

    A higher one without checkpoints may be that of an evaluation, or of a start that failed, which is no run to go on.
    """
    versions = sorted(_versions(root_dir), reverse=True)
    for holds in (_has_checkpoints, _has_begun, _has_logs):
        for version in versions:
            if holds(run_dir(root_dir, version)):
                return version
    return versions[0] if versions else None


def newest_named_run(root_dir: str) -> str | None:
    """The name of the folder in ``root_dir`` whose checkpoints are the newest; None if none of them has any."""
    newest, name = -1.0, None
    for run, is_folder in _entries(root_dir):
        directory = join_path(root_dir, run)
        if is_folder and not is_remote(directory) and _has_checkpoints(directory):
            written = os.path.getmtime(local_path(join_path(directory, "checkpoints")))
            if written > newest:
                newest, name = written, run
    return name


def _has_checkpoints(directory: str) -> bool:
    """Its index may still be missing, if a process was killed before it could write it."""
    return any(not name.startswith(".") for name, _ in _entries(join_path(directory, "checkpoints")))


def _has_begun(directory: str) -> bool:
    return is_dir(join_path(directory, "checkpoints"))


def _has_logs(directory: str) -> bool:
    return any(
        name.startswith(("metrics.csv", "hparams.yaml", "events.out.tfevents")) for name, _ in _entries(directory)
    )


def _versions(root_dir: str) -> list[int]:
    matches = (re.fullmatch(r"version_(\d+)", name) for name, is_folder in _entries(root_dir) if is_folder)
    return [int(match[1]) for match in matches if match]


def _entries(directory: str) -> list[tuple[str, bool]]:
    """The names in a directory, which may be missing, and whether they are directories."""
    if not is_dir(directory):
        return []
    if is_remote(directory):
        entries = get_filesystem(directory).ls(directory, detail=True)
        return [(os.path.basename(entry["name"].rstrip("/")), entry["type"] == "directory") for entry in entries]
    return [(entry.name, entry.is_dir()) for entry in os.scandir(directory)]


def append_text(path: str, text: str) -> None:
    """Write ``text`` at the end of the file, which is made if it is not there.

    Raises:
        OSError: naming ``path``; what was in the file is as it was.
    """
    if not is_remote(path):
        size = os.path.getsize(local_path(path)) if exists(path) else 0
        with naming_file(path):
            try:
                with open(local_path(path), "a", encoding="utf-8", newline="") as file:
                    file.write(text)
            except OSError:  # a full disk takes a part of it
                with suppress(OSError):
                    os.truncate(local_path(path), size)
                raise
        return
    system: Any = get_filesystem(path)
    try:
        with system.open(path, "ab") as file:
            file.write(text.encode())
    except (NotImplementedError, ValueError):  # an object store that only knows whole objects
        old = system.cat_file(path) if system.exists(path) else b""
        system.pipe_file(path, old + text.encode())


def files_below(folder: str, start: str) -> dict[str, int]:
    """The sizes of all files in ``folder`` whose names begin with ``start``, by name; not of those in folders in it."""
    if not is_dir(folder):
        return {}
    if is_remote(folder):
        entries = get_filesystem(folder).ls(folder, detail=True)
        found = {os.path.basename(entry["name"]): int(entry["size"]) for entry in entries if entry["type"] == "file"}
    else:
        found = {entry.name: entry.stat().st_size for entry in os.scandir(local_path(folder)) if entry.is_file()}
    return {name: found[name] for name in sorted(found) if name.startswith(start)}


def cut(path: str, size: int) -> None:
    """Leave the first ``size`` bytes of the file."""
    if not is_remote(path):
        os.truncate(local_path(path), size)
        return
    system: Any = get_filesystem(path)
    system.pipe_file(path, system.cat_file(path)[:size])


def remove(path: str) -> None:
    """Remove the file, if it is there."""
    if is_remote(path):
        if get_filesystem(path).exists(path):
            get_filesystem(path).rm(path)
    elif os.path.lexists(local_path(path)):
        os.remove(local_path(path))


def absolute(directory: str) -> str:
    """``directory`` without links; a remote one stays as it is."""
    return directory if is_remote(directory) else os.path.realpath(local_path(directory))


def same_place(one: str, other: str) -> bool:
    """Whether two paths lead to the same folder."""
    return absolute(one).rstrip("/") == absolute(other).rstrip("/")


def bring_to_disk(path: str) -> None:
    """Make what was written to a local file outlive a power failure."""
    if is_remote(path):
        return
    places = [os.path.realpath(local_path(path))]
    if os.name != "nt":  # where folders cannot be opened
        places.append(os.path.dirname(places[0]))
    for place in places:
        descriptor = os.open(place, os.O_RDONLY if os.path.isdir(place) else os.O_RDWR)
        try:
            with suppress(OSError):  # some network file systems cannot
                os.fsync(descriptor)
        finally:
            os.close(descriptor)
