"""Reading files of ``torch.save``: nothing that a file names is imported or called, unless the user asks for it."""

from __future__ import annotations

import io
import os
import pickle
import shlex
import struct
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from typing import IO, Any

import torch

from fulmen.utilities.pickle_check import Contents, check, foreign_names
from fulmen.utilities.pickle_names import are_harmless, ways_to_run_code
from fulmen.utilities.pickle_scan import Damaged, Refused, Scanned, scan
from fulmen.utilities.rank_zero import rank_zero_warn
from fulmen.utilities.warnings import UnsafeLoadWarning

#: what a zip archive begins with, and the last record of one without a comment
_ZIP_START, _ZIP_END = b"PK\x03\x04", b"PK\x05\x06"
_ZIP_END_SIZE = 22
#: the first number in files of torch before 1.6
_MAGIC_NUMBER = 0x1950A86A20F9469CFC6C
#: where the files of before 1.0 have the mark of a tar archive
_TAR_MARK = slice(257, 262)

#: files that were read without the strict reader
_warned: set[str] = set()


def load(file: IO[bytes], name: str, map_location: Any = None, weights_only: bool | None = None) -> Any:
    """What ``torch.save`` wrote to an open file.

    Args:
        name: the file in messages.
        map_location: where to put tensors, as in ``torch.load``.
        weights_only: True: tensors and plain data only; nothing that the file names is imported or called. False: any
            Python object, which may run any code. None: False if ``TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD`` is set in the
            environment, else True. ``TORCH_FORCE_WEIGHTS_ONLY_LOAD`` there makes everything True.

    Raises:
        RuntimeError: the file is damaged, or is none of ``torch.save``.
        pickle.UnpicklingError: the file holds objects of classes beyond tensors and simple values, or asks for what no
            checkpoint needs.
    """
    if not file.seekable() or file.tell() != 0:
        file = io.BytesIO(file.read())
    if not _reads_strictly(weights_only):
        return _load_anything(file, name, map_location, by_argument=weights_only is False)
    with _explained(name):
        contents = _look_at(file)
        file.seek(0)
        # torch looks at the indices of sparse tensors only on request
        with torch.sparse.check_sparse_tensor_invariants(contents.has_sparse or _sparse_is_checked()):
            return torch.load(file, map_location=map_location, weights_only=True)


def _reads_strictly(weights_only: bool | None) -> bool:
    """Whether to read only plain data, by the rules of ``torch.load``."""
    only, anything = (
        os.environ.get(f"TORCH_FORCE_{name}_LOAD", "0").lower() in ("1", "y", "yes", "true")
        for name in ("WEIGHTS_ONLY", "NO_WEIGHTS_ONLY")
    )
    if only and anything:
        raise RuntimeError(
            "`TORCH_FORCE_WEIGHTS_ONLY_LOAD` and `TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD` are both set in the environment, "
            "and contradict each other. Unset one of them."
        )
    return only or (not anything if weights_only is None else weights_only)


def _sparse_is_checked() -> bool:
    return torch.sparse.check_sparse_tensor_invariants.is_enabled()


def _load_anything(file: IO[bytes], name: str, map_location: Any, by_argument: bool) -> Any:
    if name not in _warned:
        why = "`weights_only=False`" if by_argument else "`TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD` in the environment"
        rank_zero_warn(
            f"{name} is read with {why}: whatever it names is imported and called, so it can run any code. Read only "
            "files whose author you trust.",
            category=UnsafeLoadWarning,
        )
        _warned.add(name)
    damage = _damage(file)
    if damage is not None:
        raise RuntimeError(f"{name} cannot be read: {damage}.")
    file.seek(0)
    try:
        return torch.load(file, map_location=map_location, weights_only=False)
    except RuntimeError as error:
        if "PytorchStreamReader" not in str(error):
            raise
        raise RuntimeError(f"{name} cannot be read, it is damaged: {error}") from error


# -- before torch reads it --------------------------------------------------------------------------------------------


@contextmanager
def _explained(name: str) -> Iterator[None]:
    """Errors of within name the file, and say what to do."""
    try:
        yield
    except Foreign as error:
        raise pickle.UnpicklingError(error.explain(name)) from error
    except Refused as error:
        raise pickle.UnpicklingError(
            f"{name} is not read, since it {error}. `torch.save` writes no such file of tensors and simple values: get"
            " it again from where it was made."
        ) from error
    except Damaged as error:
        raise RuntimeError(f"{name} cannot be read: {error}.") from error
    except pickle.UnpicklingError as error:  # of torch
        reason = str(error).rpartition("WeightsUnpickler error: ")[2].strip().partition("\n\nCheck the doc")[0]
        raise pickle.UnpicklingError(f"{name} is not read: {reason}") from error
    except MemoryError as error:
        raise RuntimeError(f"{name} cannot be read: it is larger than the memory that is free.") from error
    except Exception as error:  # what a damaged file makes of the reader can be anything
        raise RuntimeError(
            f"{name} cannot be read: {type(error).__name__}: {str(error).partition(' Please file')[0]}"
        ) from error


class Foreign(Exception):
    """A file names classes or functions beyond those of plain data.

    Attributes:
        names: all of them.
        ways_to_run_code: those that would run code, as Python would write it.
    """

    def __init__(self, names: list[str], ways_to_run_code: list[str]) -> None:
        super().__init__(names)
        self.names = names
        self.ways_to_run_code = ways_to_run_code

    def __str__(self) -> str:
        """To go on after the name of the file."""
        if self.ways_to_run_code:
            return f"holds what would run code: {_some(self.ways_to_run_code)}"
        return f"holds more than tensors and simple values ({_some(self.names)})"

    def explain(self, name: str) -> str:
        """What to do about the file ``name``; never to allow what is not known to be harmless."""
        if self.ways_to_run_code:
            return (
                f"{name} is not read, since it {self}. Nothing of it was run. No checkpoint needs such a thing: get "
                "the file again from somebody you trust."
            )
        file = shlex.quote(name) if os.path.isfile(name) else "FILE"
        ways = [f"`fulmen checkpoint convert {file}` keeps what has a plain form, and runs nothing of it"]
        if are_harmless(self.names) and len(self.names) <= _MOST_NAMES:
            allowed = ", ".join(name.removeprefix("builtins.") for name in self.names)
            ways.append(f"`torch.serialization.add_safe_globals([{allowed}])` allows these alone, which are harmless")
        ways.append("`weights_only=False` imports and calls what it names, only for files whose author you trust")
        return f"{name} {self}, so it is not read. {'; '.join(ways)}."


#: how many names a message shows
_MOST_NAMES = 8


def _some(names: list[str]) -> str:
    shown = [name if len(name) <= 120 else f"{name[:120]}..." for name in names[:3]]
    text = ", ".join(shown) + (f" and {len(names) - 3} more" if len(names) > 3 else "")
    return "".join(character if character.isprintable() else "?" for character in text)


def check_file(file: IO[bytes], name: str) -> None:
    """Look whether the strict reader may read an open file, which it does not do itself.

    Args:
        name: the file in messages.

    Raises:
        RuntimeError, pickle.UnpicklingError: as :func:`load`.
    """
    with _explained(name):
        _look_at(file)


def _damage(file: IO[bytes]) -> str | None:
    """What can be seen at once to be wrong with a file; None if it looks like a whole file of ``torch.save``."""
    size = file.seek(0, io.SEEK_END)
    file.seek(0)
    start = file.read(_TAR_MARK.stop)
    if size == 0:
        return "it is empty"
    if start.startswith(_ZIP_START):
        return None if zipfile.is_zipfile(file) else f"it is truncated, only its first {size:,} bytes are there"
    if start[_TAR_MARK] == b"ustar":
        return None
    # files of torch before 1.6, and of `pickle.dump`
    return None if start.startswith(b"\x80") else f"it is no file of `torch.save`, it begins with {start[:4]!r}"


def _look_at(file: IO[bytes]) -> Contents:
    damage = _damage(file)
    if damage is not None:
        raise Damaged(damage)
    file.seek(0)
    start = file.read(_TAR_MARK.stop)
    if start[_TAR_MARK] == b"ustar" and not start.startswith((_ZIP_START, b"\x80")):
        raise Damaged(
            "it is a tar archive of torch before 1.0, which torch reads only with `weights_only=False`. If you trust "
            "who wrote it, load it so and save it anew"
        )
    return _look_at_archive(file) if start.startswith(_ZIP_START) else _look_at_stream(file)


def _look_at_archive(file: IO[bytes]) -> Contents:
    size = file.seek(0, io.SEEK_END)
    try:
        with zipfile.ZipFile(file) as archive:
            entries = archive.infolist()
            _check_ends(file, size, archive.start_dir, bool(archive.comment))
            top = _check_entries(entries, size)
            if f"{top}/constants.pkl" in archive.NameToInfo:
                raise Damaged(
                    "it is a program of TorchScript, no checkpoint. If you trust it, load it by `torch.jit.load(path)`"
                )
            if f"{top}/data.pkl" not in archive.NameToInfo:
                raise Damaged("it is a zip archive, but none of `torch.save`: it has no data.pkl")
            contents = _look_at_pickle(io.BytesIO(archive.read(f"{top}/data.pkl")))
    except (zipfile.BadZipFile, EOFError, NotImplementedError, struct.error, UnicodeDecodeError) as error:
        raise Damaged(f"it is damaged: {error}") from error
    sizes = {entry.filename: entry.file_size for entry in entries}
    for key, storage in contents.storages.items():
        there = sizes.get(f"{top}/data/{key}")
        if there is None:
            raise Damaged(f"the memory {key!r} of a tensor is missing")
        if there != storage.num_bytes:
            raise Refused(f"asks for {storage.num_bytes:,} bytes for a tensor of which it has {there:,}")
    return contents


def _check_ends(file: IO[bytes], size: int, directory_start: int, has_comment: bool) -> None:
    """The directory of the archive must be where every reader looks for it, or two readers may see two archives."""
    file.seek(size - _ZIP_END_SIZE)
    end = file.read(_ZIP_END_SIZE)
    if has_comment or not end.startswith(_ZIP_END):
        raise Refused("has something behind the end of its archive")
    declared = struct.unpack("<I", end[16:20])[0]
    if declared not in (directory_start, 0xFFFFFFFF):
        raise Refused("has something before the start of its archive")


def _check_entries(entries: list[zipfile.ZipInfo], size: int) -> str:
    """Refuse an archive that no ``torch.save`` wrote. Returns the name of its folder."""
    top = entries[0].filename.partition("/")[0] if entries else ""
    seen: set[str] = set()
    total = 0
    for entry in entries:
        folder, *parts = entry.orig_filename.split("/")
        total += entry.file_size
        if folder != top or not parts or any(part in ("", ".", "..") for part in parts) or "\\" in entry.orig_filename:
            raise Refused(f"has the entry {entry.orig_filename[:80]!r} in its archive")
        if entry.filename.lower() in seen:
            raise Refused(f"has the entry {entry.filename[:80]!r} twice in its archive")
        if entry.compress_type != zipfile.ZIP_STORED or entry.file_size != entry.compress_size:
            raise Refused(f"has the entry {entry.filename[:80]!r} compressed in its archive")
        if total > size:
            raise Refused(f"claims to unfold to {total:,} bytes, and has {size:,}")
        seen.add(entry.filename.lower())
    return top


def _look_at_stream(file: IO[bytes]) -> Contents:
    """A file of torch before 1.6: five pickles, and then the memory of the tensors."""
    size = file.seek(0, io.SEEK_END)
    file.seek(0)
    found = _scan(file)
    if found.value != _MAGIC_NUMBER:
        raise Damaged("it is a pickle, but none of `torch.save`")
    for _ in range(2):  # the version of the format, the sizes of numbers
        _look_at_pickle(file)
    contents = _look_at_pickle(file)
    _look_at_pickle(file)  # the keys, in their order
    asked, there = sum(storage.num_bytes for storage in contents.storages.values()), size - file.tell()
    if asked > there:
        raise Refused(f"asks for {asked:,} bytes for its tensors, of which it has {there:,}")
    return contents


def _look_at_pickle(file: IO[bytes]) -> Contents:
    return check(_scan(file).value)


def _scan(file: IO[bytes]) -> Scanned:
    """What is in a pickle, if it has no foreign names."""
    try:
        found = scan(file)
    except Refused as error:
        if error.scanned is not None:
            _refuse_foreign(error.scanned, only_code=True)
        raise
    _refuse_foreign(found)
    return found


def _refuse_foreign(found: Scanned, only_code: bool = False) -> None:
    names = foreign_names(found.names)
    code = ways_to_run_code(names, found.calls)
    if code or (names and not only_code):
        raise Foreign(names, code)
