"""Files that may lie here or somewhere else: every path may be a URL that fsspec knows (``s3://bucket/run``)."""

from __future__ import annotations

import os
from io import BytesIO
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, BinaryIO, cast
from urllib.request import urlopen

import torch

from fulmen.utilities import torch_files

if TYPE_CHECKING:
    from fsspec import AbstractFileSystem

    from fulmen.utilities.types import _MAP_LOCATION_TYPE, _PATH


def is_remote(path: _PATH) -> bool:
    """Whether ``path`` is a URL of somewhere else: has a protocol that is not that of local files."""
    protocol, separator, _ = str(path).partition("://")
    return bool(separator) and protocol not in ("file", "local")


def local_path(path: _PATH) -> str:
    """A local ``path`` without its protocol, and with ``~`` and variables of the environment filled in."""
    text = os.fspath(path)
    for protocol in ("file://", "local://"):
        text = text.removeprefix(protocol)
    return os.path.expandvars(os.path.expanduser(text))


def path_if_local(path: str | os.PathLike[str]) -> Path | None:
    """``path`` on this machine's disks, as :func:`local_path` has it; None if it is a URL of somewhere else."""
    text = os.fspath(path)
    return None if is_remote(text) else Path(local_path(text))


def join_path(path: _PATH, *parts: str) -> str:
    """``path`` with ``parts`` below it, for local paths as for URLs."""
    if is_remote(path):
        return "/".join([str(path).rstrip("/"), *(part.strip("/") for part in parts if part)])
    return os.path.join(local_path(path), *parts)


def parent_path(path: _PATH) -> str:
    """The folder that holds ``path``, for local paths as for URLs."""
    return str(path).rstrip("/").rpartition("/")[0] if is_remote(path) else os.path.dirname(local_path(path))


def get_filesystem(path: _PATH, **kwargs: Any) -> AbstractFileSystem:
    """The file system of fsspec that ``path`` lies on; ``kwargs`` are its own arguments, such as credentials.

    Raises:
        ImportError: the package that speaks the protocol is not installed.
        ValueError: there is no such protocol.
    """
    from fsspec.core import url_to_fs

    filesystem, _ = url_to_fs(os.fspath(path), **kwargs)
    return filesystem


def exists(path: _PATH) -> bool:
    """Whether there is a file or folder at ``path``."""
    return get_filesystem(path).exists(str(path)) if is_remote(path) else os.path.exists(local_path(path))


def is_dir(path: _PATH) -> bool:
    """Whether there is a folder at ``path``.

    Object stores have no folders, only names with slashes: there a path is one once there is something below it, and
    :func:`make_dirs` may do nothing.
    """
    return get_filesystem(path).isdir(str(path)) if is_remote(path) else os.path.isdir(local_path(path))


def make_dirs(path: _PATH) -> None:
    """Make the folder ``path`` and those above it, where they are missing."""
    if is_remote(path):
        get_filesystem(path).makedirs(str(path), exist_ok=True)
    else:
        Path(local_path(path)).mkdir(parents=True, exist_ok=True)


def load(
    path_or_url: _PATH | BinaryIO, map_location: _MAP_LOCATION_TYPE = None, weights_only: bool | None = None
) -> Any:
    """What ``torch.save`` wrote to a path, a URL or an open file.

    Args:
        path_or_url: where it lies; what ``http://`` and ``https://`` give is read into memory.
        map_location: to which device tensors go, as in ``torch.load``; a number is the index of a device.
        weights_only: True: only plain data and tensors are accepted. False: whatever the file names is imported and
            called; only for files whose author you trust. None: True, unless torch's own variable in the environment,
            ``TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD``, says otherwise.

    Raises:
        RuntimeError: the file is damaged, or is none of ``torch.save``.
        pickle.UnpicklingError: the file holds more than plain data and tensors, or asks for what no checkpoint needs.
    """
    # torch annotates the argument more narrowly than it behaves, and takes no index
    location: Any = torch.device(map_location) if isinstance(map_location, int) else map_location
    if not isinstance(path_or_url, (str, os.PathLike)):
        return torch_files.load(path_or_url, "The open file", location, weights_only)
    path = os.fspath(path_or_url)
    if path.startswith(("http://", "https://")):
        with urlopen(path) as response:
            return torch_files.load(BytesIO(response.read()), path, location, weights_only)
    if is_remote(path):
        with get_filesystem(path).open(path, "rb") as file:
            return torch_files.load(cast("IO[bytes]", file), path, location, weights_only)
    with open(local_path(path), "rb") as file:
        return torch_files.load(file, path, location, weights_only)
