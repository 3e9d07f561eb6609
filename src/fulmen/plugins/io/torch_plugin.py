"""Checkpoints as files of ``torch.save``, written so that a file is either whole or not there."""

from __future__ import annotations

import io
import os
import pickle
import shutil
import sys
import urllib.error
import urllib.request
from collections import OrderedDict
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import IO, Any

import torch

from fulmen.plugins.io.checkpoint_plugin import CheckpointIO
from fulmen.plugins.io.digest import Digest, Hashing
from fulmen.utilities.apply_func import move_data_to_device
from fulmen.utilities.cloud_io import path_if_local
from fulmen.utilities.durable import beside, make_folder, sync_folder, unwritten
from fulmen.utilities.torch_files import load


class TorchCheckpointIO(CheckpointIO):
    """Stores a checkpoint in one file with ``torch.save``, on a local disk or behind any fsspec URL.

    A local file is written beside its target, flushed to the disk and then renamed, so that neither a crash nor a full
    disk can damage the checkpoint that was there before.
    """

    _written: tuple[str, Digest | None] = ("", None)  #: the file written last

    def save_checkpoint(
        self, checkpoint: dict[str, Any], path: str | os.PathLike[str], storage_options: Any | None = None
    ) -> None:
        """Write ``checkpoint`` to ``path``.

        Raises:
            TypeError: ``storage_options`` were given; there are none here.
            OSError: the file could not be written; what was at ``path`` is as it was.
        """
        if storage_options is not None:
            raise TypeError(
                f"`save_checkpoint(..., storage_options={storage_options!r})`: TorchCheckpointIO has no options. Leave"
                " them out, or write a CheckpointIO that knows them: `Trainer(plugins=[MyCheckpointIO()])`."
            )
        self._written = str(path), write_whole(path, lambda file: _save(checkpoint, file))

    def digest(self, path: str | os.PathLike[str]) -> Digest:
        (written, digest), self._written = self._written, ("", None)  # of use once: others may write there, too
        return digest if digest is not None and written == str(path) else super().digest(path)

    def load_checkpoint(
        self, path: str | os.PathLike[str], map_location: Any | None = "cpu", weights_only: bool | None = None
    ) -> dict[str, Any]:
        """Read the checkpoint at ``path``; its tensors are on the CPU unless ``map_location`` says otherwise.

        Raises:
            FileNotFoundError: there is no such file.
            RuntimeError: the file is damaged, or is no checkpoint.
            pickle.UnpicklingError: the file holds objects of classes beyond tensors and simple values.
        """
        return read_checkpoint(path, map_location, weights_only)

    def remove_checkpoint(self, path: str | os.PathLike[str]) -> None:
        local = path_if_local(path)
        if local is None:
            filesystem, remote = _filesystem(path)
            if filesystem.exists(remote):
                filesystem.rm(remote, recursive=True)
            return
        try:
            if local.is_dir() and not local.is_symlink():
                shutil.rmtree(local)
            else:
                local.unlink(missing_ok=True)
        except OSError as error:
            raise unwritten(local, error, "removed") from None


def write_whole(path: str | os.PathLike[str], write: Callable[[IO[bytes]], None]) -> Digest:
    """Make the file at ``path`` hold what ``write(file)`` writes, all of it or, after an error, what it held before.

    Folders are made. When this returns, a local file is on the disk, not only in memory. ``write`` must only ever write
    at the end.

    Raises:
        OSError: of the class that the system gave (``PermissionError``, say), naming ``path`` and the reason.
    """
    local = path_if_local(path)
    if local is None:
        return _write_remote(path, write)
    try:
        return _write_local(local, write)
    except (OSError, RuntimeError) as error:
        cause = (
            error.__context__ if isinstance(error, RuntimeError) else error
        )  # torch's writer hides the system's error
        if not isinstance(cause, OSError):
            raise
        raise unwritten(local, cause) from None


def read_checkpoint(
    source: str | os.PathLike[str] | IO[bytes], map_location: Any | None = None, weights_only: bool | None = None
) -> dict[str, Any]:
    """Read a file of ``torch.save``.

    Args:
        source: a local path, an fsspec or ``http(s)`` URL, or an open file.
        map_location: where to put tensors, as in ``torch.load``; None: where they were.
        weights_only: True: nothing that the file names is imported or called. False: any Python object is unpickled,
            which may run any code; only for files that you trust. None: True, unless torch's own variable in the
            environment, ``TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD``, says otherwise.

    Raises:
        FileNotFoundError: there is no such file.
        RuntimeError: the file is damaged, or is no checkpoint.
        pickle.UnpicklingError: the file holds objects of classes beyond tensors and simple values, or asks for what no
            checkpoint needs, such as memory beyond its size.
    """
    if not isinstance(source, (str, os.PathLike)):
        return load(source, "The open file", map_location, weights_only)
    local = path_if_local(source)
    if local is None:
        with open_remote(source) as file:
            return load(file, str(source), map_location, weights_only)
    if local.is_dir():
        return _read_folder(local, map_location, weights_only)
    try:
        file = local.open("rb")
    except FileNotFoundError as error:
        raise FileNotFoundError(_missing(local)) from error
    with file:
        return load(file, str(local), map_location, weights_only)


def _read_folder(folder: Path, map_location: Any, weights_only: bool | None) -> dict[str, Any]:
    from fulmen.plugins.io.distributed_plugin import is_sharded, read_whole

    if not is_sharded(folder):
        raise IsADirectoryError(
            f"{folder} is a folder without the files of a sharded checkpoint (`.metadata` and `meta.pt`). Give the "
            "path of a file, or of a folder that a sharding strategy wrote."
        )
    checkpoint = read_whole(folder, weights_only)
    if isinstance(map_location, (str, torch.device)) and torch.device(map_location).type != "cpu":
        return move_data_to_device(checkpoint, map_location)
    return checkpoint


# -- writing ----------------------------------------------------------------------------------------------------------


def _write_local(path: Path, write: Callable[[IO[bytes]], None]) -> Digest:
    make_folder(path.parent)
    part = path.with_name(beside(path.name))
    try:
        with part.open("xb") as file:
            hashing = Hashing(file)
            write(hashing)  # type: ignore[arg-type]
            file.flush()
            os.fsync(file.fileno())
        os.replace(part, path)
    except BaseException:
        with suppress(OSError):
            part.unlink(missing_ok=True)
        raise
    sync_folder(path.parent)
    return hashing.digest


def _write_remote(path: str | os.PathLike[str], write: Callable[[IO[bytes]], None]) -> Digest:
    filesystem, remote = _filesystem(path)
    folder, _, name = remote.rpartition("/")
    filesystem.makedirs(folder, exist_ok=True)
    # closing a remote file publishes it even after an error, so what may be half is written under another name
    part = f"{folder}/{beside(name)}"
    try:
        with filesystem.open(part, "wb") as file:
            hashing = Hashing(file)
            write(hashing)  # type: ignore[arg-type]
        try:
            filesystem.mv(part, remote)
        except NotImplementedError:
            with filesystem.open(remote, "wb") as file:
                hashing = Hashing(file)
                write(hashing)  # type: ignore[arg-type]
    finally:
        with suppress(Exception):  # it is gone already if all went well
            filesystem.rm(part)
    return hashing.digest


def _save(checkpoint: dict[str, Any], file: IO[bytes]) -> None:
    try:
        torch.save(_with_shared_text(checkpoint, {}), file)
    except (pickle.PicklingError, AttributeError, TypeError) as error:
        culprits = [key for key, value in checkpoint.items() if not _can_be_saved(value)]
        if culprits:
            error.add_note(
                f"The checkpoint's entries {', '.join(map(repr, culprits))} cannot be pickled. Store tensors and simple"
                " values in `on_save_checkpoint` and `state_dict`."
            )
        raise


def _with_shared_text(value: Any, seen: dict[int, Any]) -> Any:
    """``value`` with one object for all equal texts, so that the bytes of the file follow from what it holds.

    Pickle writes a text once for each object, and a run that was resumed has other objects than one that was not.
    """
    kind = type(value)
    if kind is str:
        return sys.intern(value)
    if kind not in (dict, OrderedDict, list, tuple):
        return value
    if id(value) in seen:
        return seen[id(value)]
    shared: Any
    if kind is tuple:
        seen[id(value)] = texts = tuple(_with_shared_text(each, seen) for each in value)
        return texts
    shared: Any = kind()
    seen[id(value)] = shared
    if kind is list:
        shared.extend(_with_shared_text(each, seen) for each in value)
        return shared
    for key, each in value.items():
        shared[_with_shared_text(key, seen)] = _with_shared_text(each, seen)
    if kind is OrderedDict:  # that of a module has its version as an attribute
        for name, each in vars(value).items():
            setattr(shared, name, _with_shared_text(each, seen))
    return shared


def _can_be_saved(value: Any) -> bool:
    try:
        torch.save(value, io.BytesIO())
    except Exception:
        return False
    return True


# -- reading ----------------------------------------------------------------------------------------------------------


def open_remote(path: str | os.PathLike[str]) -> IO[bytes]:
    url = os.fspath(path)
    try:
        if url.startswith(("http://", "https://")):
            with urllib.request.urlopen(url) as response:
                return io.BytesIO(response.read())
        filesystem, remote = _filesystem(url)
        with filesystem.open(remote, "rb") as file:
            return io.BytesIO(file.read())
    except (FileNotFoundError, urllib.error.HTTPError) as error:
        if isinstance(error, urllib.error.HTTPError) and error.code != 404:
            raise
        raise FileNotFoundError(f"There is no checkpoint {url}.") from error


def _filesystem(path: str | os.PathLike[str]) -> tuple[Any, str]:
    from fsspec.core import url_to_fs

    return url_to_fs(os.fspath(path))


def _missing(path: Path) -> str:
    if not path.parent.is_dir():
        return f"There is no checkpoint {path}: the folder {path.parent} does not exist."
    others = sorted(other.name for other in path.parent.glob("*.ckpt"))
    there = f" In its folder there are {', '.join(others[:5])}{' ...' if len(others) > 5 else ''}." if others else ""
    return f"There is no checkpoint {path}.{there}"
