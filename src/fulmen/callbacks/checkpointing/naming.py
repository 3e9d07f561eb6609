"""How to name: file names from a template of metrics, made unique by a version."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator, Mapping
from string import Formatter
from typing import Any

from fulmen.callbacks.checkpointing.writing import lies_in
from fulmen.utilities.cloud_io import exists, is_remote, join_path
from fulmen.utilities.exceptions import MisconfigurationException


def fields_of(template: str) -> list[str]:
    """The names in braces in ``template``, in order.

    Raises:
        MisconfigurationException: a brace is not closed, there is nothing in it, or the name has a ``..`` in it.
    """
    try:
        names = [name for _, name, _, _ in Formatter().parse(template) if name is not None]
    except ValueError as error:
        raise MisconfigurationException(
            f"The file name template {template!r} cannot be read: {error}. "
            f"Write metrics in braces, as in '{{epoch}}-{{val_loss:.2f}}'."
        ) from None
    if os.path.isabs(template) or ".." in template.split("/"):
        raise MisconfigurationException(
            f"The file name template {template!r} leads out of the checkpoint folder. Choose the folder by "
            f"`ModelCheckpoint(dirpath=...)`."
        )
    if "" in names:
        raise MisconfigurationException(
            f"The file name template {template!r} has empty braces. Name a metric, as in '{{epoch}}-{{val_loss:.2f}}'."
        )
    return names


def fill(template: str, metrics: Mapping[str, Any], equals: str | None) -> str:
    """Put metrics into a template.

    Args:
        template: text with names in braces, each with an optional format: ``"{epoch:02d}-{val/loss:.2f}"``.
        metrics: values by name (numbers or tensors with one element). A name that is missing becomes 0.
        equals: what to write between name and value (``"="`` gives ``epoch=02``); None writes the value alone.

    Raises:
        ValueError: a value cannot be written in its format.
        MisconfigurationException: the name leads out of its folder.
    """
    parts = []
    for text, name, spec, conversion in Formatter().parse(template):
        parts.append(text)
        if name is None:
            continue
        if equals is not None:
            parts.append(f"{name}{equals}")
        value = Formatter().convert_field(metrics.get(name, 0), conversion)
        try:
            parts.append(format(value, spec or ""))
        except (ValueError, TypeError) as error:
            raise ValueError(
                f"The file name template {template!r} asks for {name!r} in the format {spec!r}, but its value is "
                f"{value!r}: {error}."
            ) from None
    name = "".join(parts)
    if os.path.isabs(name) or ".." in name.split("/"):
        raise MisconfigurationException(
            f"The file name template {template!r} gives {name!r}, which leads out of the checkpoint folder. "
            f"Choose the folder by `ModelCheckpoint(dirpath=...)`."
        )
    return name


def missing_field(template: str, name: str, names: Iterable[str]) -> str:
    """A file name asks for what is not there."""
    return (
        f"The checkpoint name {template!r} asks for {name!r}, which was not logged: it is "
        f"written as 0. There are: {', '.join(map(repr, sorted(names)))}."
    )


def versioned(path: Callable[[int | None], str], taken: Callable[[str], bool], spare: str, first: int) -> str:
    """The first path that is free: ``path(None)``, else ``path(first)``, ``path(first + 1)`` and so on.

    Args:
        path: gives the path with a version number, or without one.
        taken: whether a file is there.
        spare: a path that may be written over though it is taken.
        first: the first version number.
    """
    return next(name for name in _versions(path, first) if name == spare or not taken(name))


def _versions(path: Callable[[int | None], str], first: int) -> Iterator[str]:
    yield path(None)
    while True:
        yield path(first)
        first += 1


def relocated(path: str, old_folder: str | None, new_folder: str | None) -> str:
    """Where a file that was at ``path`` in ``old_folder`` is, now that the folder is ``new_folder``.

    The new place if the file is there, else the old one if it still is there, else ``""``; that also if it is in none
    of the two folders, or on another machine than ``new_folder``, which is not asked because a file says so.

    Raises:
        TypeError: the path or the old folder is no text.
    """
    if not isinstance(path, str) or not isinstance(old_folder, (str, type(None))):
        raise TypeError(f"a file in a folder: {path!r}, {old_folder!r}")
    if not path or not new_folder or (old_folder == new_folder and lies_in(path, new_folder)):
        return path
    if not old_folder or not lies_in(path, old_folder) or _host(path) not in ("", _host(new_folder)):
        return path if lies_in(path, new_folder) else ""
    moved = join_path(new_folder, os.path.relpath(path, old_folder))
    if exists(moved):
        return moved
    return path if exists(path) else ""


def _host(path: str) -> str:
    """Protocol and machine (or bucket) of a remote path; ``""`` of a local one."""
    return "/".join(path.split("/")[:3]) if is_remote(path) else ""
