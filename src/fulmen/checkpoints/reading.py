"""Open a checkpoint to look at it: with the strict reader, and without reading the data of its tensors."""

from __future__ import annotations

import os
import pickle
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from fulmen.checkpoints.command import CannotDo
from fulmen.plugins.io import index
from fulmen.plugins.io.torch_plugin import read_checkpoint
from fulmen.utilities.cloud_io import is_remote, local_path, parent_path, path_if_local


class NotPlain(CannotDo):
    """A file needs classes to be imported and called."""


def load(path: str) -> dict[str, Any]:
    """The checkpoint at ``path``. The data of its tensors stay in the file until somebody looks at them.

    Raises:
        CannotDo: there is none, or it cannot be read; the message says what to do.
    """
    return checked(_read(path), path)


def checked(checkpoint: Any, path: str) -> dict[str, Any]:
    """``checkpoint`` if it is one.

    Raises:
        CannotDo: it is something else.
    """
    if not isinstance(checkpoint, dict) or not isinstance(checkpoint.get("state_dict"), dict):
        raise CannotDo(
            f"{path} is not a checkpoint of a trainer: it holds {_kind(checkpoint)}"
            f"{' without a `state_dict`' if isinstance(checkpoint, dict) else ''}"
        )
    return checkpoint


def _read(path: str) -> Any:
    local = path_if_local(path)
    if local is not None and local.is_file():
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # of torch, about classes of tensors
                return torch.load(local, map_location="cpu", weights_only=True, mmap=True)
        except Exception:
            pass  # torch's format of before 1.6 cannot be mapped; else the reader below says what is wrong
    try:
        return read_checkpoint(path, "cpu")
    except FileNotFoundError as error:
        raise CannotDo(str(error)) from None
    except IsADirectoryError:
        raise CannotDo(f"{path} is a folder; give the file of a checkpoint") from None
    except pickle.UnpicklingError as error:
        raise NotPlain(
            f"{path} {_what_it_names(error)}. Make it plain data: `fulmen checkpoint convert {path}`"
        ) from None
    except OSError:
        raise
    except Exception as error:  # what a damaged file makes of the reader can be anything
        raise CannotDo(f"{error}" if str(path) in str(error) else f"{path} cannot be read: {error}") from None


def _what_it_names(error: Exception) -> str:
    """``holds more than tensors and simple values (a.B, c.D and 5 others)``, from the error of the strict reader."""
    _, _, names = str(error).partition(" (")
    found = names.partition(")")[0].split(", ") if names else []
    more = f" and {len(found) - 3} others" if len(found) > 4 else ""
    shown = found if not more else found[:3]
    named = f" ({', '.join(shown)}{more})" if found else ""
    return f"holds more than tensors and simple values{named}"


def _kind(value: Any) -> str:
    return f"a {type(value).__name__}"


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
