"""``fulmen checkpoint verify``."""

from __future__ import annotations

import os
import zipfile
from pathlib import Path

from fulmen.checkpoints.command import CannotDo
from fulmen.checkpoints.output import printable, size_in_words
from fulmen.checkpoints.reading import NoCheckpoint, NotPlain, Unsafe, folders_with_index, index_of, load
from fulmen.plugins.io import index
from fulmen.plugins.io.digest import digest_of
from fulmen.utilities.cloud_io import path_if_local
from fulmen.utilities.durable import is_part


def verify(paths: list[str]) -> int:
    """Say of each file, in one line, whether it is sound.

    Returns:
        The exit code: 0 if all are, 1 if not.

    Raises:
        CannotDo: a path is not on this machine, or a folder holds no checkpoint.
    """
    sound = True
    for path in paths:
        local = path_if_local(path)
        if local is None:
            raise CannotDo(f"{path} is not on this machine; copy it here first, with its `{index.FILE_NAME}`")
        if not local.is_dir():
            sound &= _verify_file(local)
            continue
        for folder in folders_with_index(str(local)) or [local]:
            sound &= _verify_folder(Path(folder))
    return 0 if sound else 1


def _verify_folder(folder: Path) -> bool:
    """All that the index names, and the files that it does not name."""
    sound = True
    try:
        found = index.look(str(folder))
    except ValueError as error:
        found, sound = None, False
        print(f"damaged    {folder / index.FILE_NAME}: {error}")
    named = [] if found is None else [folder / entry.path for entry in found.entries]
    unnamed = [path for path in _files_in(folder) if path not in named]
    if found is None and sound and not unnamed:
        raise CannotDo(f"{folder} holds no checkpoint")
    for path in named:
        sound &= _verify_file(path)
    for path in unnamed:
        sound &= _verify_file(path, note=None if found is None else f"not named in {index.FILE_NAME}")
    return sound


def _files_in(folder: Path) -> list[Path]:
    return sorted(
        path for path in folder.rglob("*.ckpt") if path.is_file() and not path.is_symlink() and not is_part(path.name)
    )


def _verify_file(path: Path, note: str | None = None) -> bool:
    """Print the line of one file. Returns whether it is sound."""
    known = index_of(str(path))
    if not path.is_file():
        there = "there is no such file" if known is None else f"it is gone, though {index.FILE_NAME} names it"
        print(f"missing    {path}: {there}")
        return False
    word, why = "damaged", _not_as_written(path, known) or _damaged(path)
    if why is None:
        word, why = _read(path)
    told = [size_in_words(path.stat().st_size), f"as in {index.FILE_NAME}" if known is not None else note]
    details = ", ".join(detail for detail in told if detail)
    print(f"{word:<10} {printable(str(path))}: {printable(why or details)}")
    return word in ("sound", "plain")


def _read(path: Path) -> tuple[str, str | None]:
    """The word for a file that is not damaged as an archive, and what to say of it."""
    word = "sound"
    try:
        load(str(path))
        return word, None
    except NoCheckpoint as error:
        word, why = "plain", f"whole, but no checkpoint of a run: it holds {error.holds}"
    except NotPlain as error:
        word, why = "not plain", str(error)
    except Unsafe as error:
        word, why = "unsafe", str(error)
    except CannotDo as error:
        word, why = "damaged", str(error)
    return word, why.removeprefix(f"{path} ")


def _not_as_written(path: Path, known: tuple[index.Index, index.Entry] | None) -> str | None:
    """Whether size or checksum are not those in the index."""
    if known is None:
        return None
    entry, size = known[1], os.path.getsize(path)
    if size != entry.size:
        return f"it has {size:,} bytes, and {entry.size:,} were written"
    return None if digest_of(path).checksum == entry.checksum else "its checksum is not that of what was written"


def _damaged(path: Path) -> str | None:
    """What is wrong with the archive, by its own checksums; None also for what is no archive."""
    with path.open("rb") as file:
        if file.read(4) != b"PK\x03\x04":
            return None
        try:
            with zipfile.ZipFile(file) as archive:
                record = archive.testzip()
        except (zipfile.BadZipFile, EOFError, ValueError, OSError, NotImplementedError) as error:
            if not zipfile.is_zipfile(path):
                return f"it is truncated: its first {path.stat().st_size:,} bytes are there, and its end is missing"
            return f"it is damaged ({error})"
    return None if record is None else f"its record {record!r} is damaged"
