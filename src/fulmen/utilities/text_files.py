"""Text files that are read and written as a whole, local or at a URL that fsspec can open."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import IO

from fulmen.utilities.cloud_io import get_filesystem, is_remote, local_path
from fulmen.utilities.durable import beside, sync_folder, unwritten


def read_text(path: str) -> str:
    """The whole text of the file, line ends as they are."""
    if is_remote(path):
        return bytes(get_filesystem(path).cat_file(path)).decode()  # type: ignore[arg-type]
    with open(local_path(path), encoding="utf-8", newline="") as file:
        return file.read()


@contextmanager
def replacing(path: str) -> Iterator[IO[str]]:
    """A file to write that takes the place of ``path`` when the block ends well, and leaves it untouched otherwise.

    Raises:
        OSError: naming ``path``.
    """
    if is_remote(path):
        system = get_filesystem(path)
        with system.transaction, system.open(path, "w", encoding="utf-8", newline="") as file:
            yield file  # type: ignore[misc]
        return
    target = os.path.realpath(local_path(path))
    folder = os.path.dirname(target)
    part = os.path.join(folder, beside(os.path.basename(target)))
    try:
        with naming_file(path), open(part, "w", encoding="utf-8", newline="") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        os.replace(part, target)
    except BaseException:
        with suppress(OSError):
            os.remove(part)
        raise
    sync_folder(folder)


@contextmanager
def naming_file(path: str) -> Iterator[None]:
    """Let an error of the system say which file could not be written, under the name that the user knows."""
    try:
        yield
    except OSError as error:
        if error.errno is None:
            raise
        raise unwritten(path, error) from None
