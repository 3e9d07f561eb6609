"""Size and checksum of what was written, to find out later whether it is still whole."""

from __future__ import annotations

import hashlib
import os
from typing import IO, Any, NamedTuple

from fulmen.utilities.cloud_io import get_filesystem, is_dir, is_remote, local_path

_BLOCK = 1 << 20


class Digest(NamedTuple):
    """What a file, or a folder of files, weighs.

    Attributes:
        size: bytes.
        checksum: ``"sha256:<hex>"``; of a folder: of the names and checksums of its files, in the order of the names.
    """

    size: int
    checksum: str


class Hashing:
    """An open file that can be written to, and knows the digest of all that was written."""

    def __init__(self, file: IO[bytes]) -> None:
        self._file = file
        self._hash = hashlib.sha256()
        self._size = 0

    def write(self, data: Any) -> int:
        """Write at the end."""
        self._hash.update(data)
        size = memoryview(data).nbytes
        self._file.write(data)
        self._size += size
        return size

    def flush(self) -> None:
        """Bring to the system what is in memory."""
        self._file.flush()

    @property
    def digest(self) -> Digest:
        """Of what was written so far."""
        return Digest(self._size, f"sha256:{self._hash.hexdigest()}")


def digest_of(path: str | os.PathLike[str]) -> Digest:
    """Read the file or folder at ``path`` and weigh it.

    Raises:
        FileNotFoundError: there is nothing.
    """
    text = os.fspath(path).rstrip("/")
    if not is_dir(text):
        return _of_file(text)
    files = get_filesystem(text).find(text)
    root = len(get_filesystem(text)._strip_protocol(text)) + 1
    total, lines = 0, hashlib.sha256()
    for name, file in sorted((file[root:].replace(os.sep, "/"), file) for file in files):
        size, checksum = _of_file(get_filesystem(text).unstrip_protocol(file) if is_remote(text) else file)
        total += size
        lines.update(f"{name}\0{checksum}\n".encode())
    return Digest(total, f"sha256:{lines.hexdigest()}")


def _of_file(path: str) -> Digest:
    total, hashed = 0, hashlib.sha256()
    with get_filesystem(path).open(path, "rb") if is_remote(path) else open(local_path(path), "rb") as file:
        while block := file.read(_BLOCK):
            total += len(block)
            hashed.update(block)  # type: ignore[arg-type]
    return Digest(total, f"sha256:{hashed.hexdigest()}")
