"""Open a checkpoint to look at it: with the strict reader, and without reading the data of its tensors."""

from __future__ import annotations

import os
import pickle
import re
import shlex
import warnings
from collections.abc import Iterator
from contextlib import suppress
from itertools import chain
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from fulmen.checkpoints.command import CannotDo
from fulmen.plugins.io import index
from fulmen.plugins.io.torch_plugin import read_checkpoint
from fulmen.utilities.cloud_io import exists, is_remote, join_path, local_path, parent_path, path_if_local
from fulmen.utilities.text import a_kind
from fulmen.utilities.torch_files import Foreign, check_file


class NotPlain(CannotDo):
    """A file needs classes to be imported and called."""


class Unsafe(CannotDo):
    """A file would run code if it were read without care, or was made to deceive its reader."""


class NoCheckpoint(CannotDo):
    """A file is whole and plain, and holds something else than a checkpoint of a run: ``holds``."""

    def __init__(self, path: str, holds: str) -> None:
        super().__init__(f"{path} is not a checkpoint of a run: it holds {holds}")
        self.holds = holds


def load(path: str) -> dict[str, Any]:
    """The checkpoint at ``path``. The data of its tensors stay in the file until somebody looks at them.

    Raises:
        CannotDo: there is none, or it cannot be read; the message says what to do.
    """
    return checked(_read(path), path)


def checked(checkpoint: Any, path: str) -> dict[str, Any]:
    """``checkpoint`` if it is one.

    Raises:
        NoCheckpoint: it is something else.
    """
    if isinstance(checkpoint, dict) and isinstance(checkpoint.get("state_dict"), dict):
        return checkpoint
    raise NoCheckpoint(path, _what_it_holds(checkpoint))


def _what_it_holds(value: Any) -> str:
    if not isinstance(value, dict):
        return a_kind(value)
    if value and all(isinstance(element, Tensor) for element in value.values()):
        count = f"{len(value)} tensors" if len(value) > 1 else "one tensor"
        return (
            f"{count} by name, as `torch.save(model.state_dict(), ...)` writes (read by "
            "`model.load_state_dict(torch.load(...))`)"
        )
    return f"{a_kind(value)} without a `state_dict`"


def _read(path: str) -> Any:
    local = path_if_local(path)
    try:
        if local is not None and local.is_file():
            with local.open("rb") as file:
                check_file(file, path)
            with suppress(Exception), warnings.catch_warnings():  # torch's format of before 1.6 cannot be mapped
                warnings.simplefilter("ignore")  # of torch, about classes of tensors
                return torch.load(local, map_location="cpu", weights_only=True, mmap=True)
        return read_checkpoint(path, "cpu", weights_only=True)
    except FileNotFoundError as error:
        raise CannotDo(str(error)) from None
    except IsADirectoryError:
        raise CannotDo(f"{path} is a folder; give the file of a checkpoint") from None
    except pickle.UnpicklingError as error:
        cause = error.__cause__
        if not isinstance(cause, Foreign):
            raise Unsafe(str(error)) from None
        if cause.ways_to_run_code:
            raise Unsafe(f"{path} {warning_of(cause.ways_to_run_code)}") from None
        raise NotPlain(f"{path} {cause}. Make it plain data: `fulmen checkpoint convert {shlex.quote(path)}`") from None
    except OSError:
        raise
    except Exception as error:  # what a damaged file makes of the reader can be anything
        raise CannotDo(f"{error}" if str(path) in str(error) else f"{path} cannot be read: {error}") from None


def warning_of(ways_to_run_code: list[str]) -> str:
    """What to say of a file that would run code, to go on after its name."""
    return f"{Foreign([], ways_to_run_code)}. Nothing of it was run. Get the file again from somebody you trust"


def index_of(path: str) -> tuple[index.Index, index.Entry] | None:
    """The index beside the file at ``path`` or above it, and what it says of that file; None if no index names it."""
    path = os.fspath(path) if is_remote(path) else os.path.abspath(local_path(path))
    folder = parent_path(path)
    for _ in range(3):  # names of checkpoints may have folders in them
        try:
            found = index.look(folder)
        except ValueError:
            return None
        if found is not None:
            entry = found.find(path)
            return None if entry is None else (found, entry)
        parent = parent_path(folder)
        if parent == folder:
            return None
        folder = parent
    return None


def folders_with_index(path: str) -> list[str]:
    """``path`` itself if there is an index in it, else the folders with one in it, such as those of a run."""
    if exists(join_path(path, index.FILE_NAME)):
        return [path]
    if is_remote(path):
        inside = join_path(path, "checkpoints")
        return [inside] if exists(join_path(inside, index.FILE_NAME)) else []
    files = chain.from_iterable(Path(path).glob(f"{'*/' * depth}{index.FILE_NAME}") for depth in (1, 2, 3, 4))
    return sorted((str(file.parent) for file in files), key=_by_number)


def _by_number(path: str) -> list[tuple[bool, int, str]]:
    """Sorts ``version_2`` before ``version_10``."""
    return [(part.isdigit(), int(part) if part.isdigit() else 0, part) for part in re.split(r"(\d+)", path)]


def tensors_in(value: Any) -> Iterator[Tensor]:
    """All tensors within nested containers."""
    if isinstance(value, Tensor):
        yield value
    elif isinstance(value, dict):
        for element in value.values():
            yield from tensors_in(element)
    elif isinstance(value, (list, tuple)):
        for element in value:
            yield from tensors_in(element)


def refuse_to_overwrite(source: str, target: str, force: bool) -> None:
    """Raise if writing ``target`` would lose something.

    Raises:
        CannotDo: it is the source itself, a folder, or there already and ``force`` is not given.
    """
    out, local = Path(target), path_if_local(source)
    if local is not None and out.exists() and local.exists() and out.samefile(local):
        raise CannotDo(f"{target} is the file to read; give another name for the one to write")
    if out.is_dir():
        raise CannotDo(f"{target} is a folder; give the name of a file")
    if out.exists() and not force:
        raise CannotDo(f"{target} is there already; give another name, or `--force` to write over it")
