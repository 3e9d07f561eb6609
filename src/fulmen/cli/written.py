"""What somebody wrote, and where: keys of configuration files with their lines, options, environment variables."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import yaml

from fulmen.utilities.cloud_io import get_filesystem

_CONFIG_OPTIONS = ("--config", "-c")
FILE_ENDINGS = (".yaml", ".yml", ".json")


@dataclass(slots=True, frozen=True)
class Entry:
    """One key. ``path`` is where it stands (places in lists are numbers), ``value`` its text, None if it holds more."""

    path: tuple[str, ...]
    value: str | None
    where: str
    file: str | None = None


@dataclass(slots=True, frozen=True)
class Twice:
    """A key that stands twice in one mapping of a file, so that the first value is lost without a word."""

    path: tuple[str, ...]
    file: str
    lines: tuple[int, int]


def written(args: Sequence[str], prefix: str = "") -> list[Entry]:
    """Every key that the arguments ``args`` name, those in files included; what counts most comes last.

    ``prefix`` is what the names of environment variables begin with; without it none is read. A file that cannot be
    read or is no YAML is left out: the parser says so itself.
    """
    entries = list(_from_environment(prefix)) if prefix else []
    for option, value in options(args):
        keys = () if option in _CONFIG_OPTIONS else tuple(option.removesuffix("+").lstrip("-").split("."))
        if value is not None and (not keys or value.endswith(FILE_ENDINGS)):
            entries += [Entry(keys + entry.path, entry.value, entry.where, entry.file) for entry in in_file(value)]
        if keys:
            shown = f"{option} {value}" if f"{option}={value}" not in args else f"{option}={value}"
            entries.append(Entry(keys, value, option if value is None else shown))
    return entries


def options(args: Sequence[str]) -> Iterator[tuple[str, str | None]]:
    """Options with their values, whether written as ``--a=1`` or as ``--a 1``; what is no option is left out."""
    for place, word in enumerate(args):
        if not word.startswith("-") or word in ("-", "--"):
            continue
        option, equals, value = word.partition("=")
        following = args[place + 1] if place + 1 < len(args) else None
        is_value = following is not None and not following.startswith("--")
        yield option, value if equals else following if is_value else None


def config_files(args: Sequence[str]) -> list[str]:
    """The files that ``--config`` and options for a part (``--trainer part.yaml``) name, in their order."""
    return [
        value
        for option, value in options(args)
        if value is not None and (option in _CONFIG_OPTIONS or value.endswith(FILE_ENDINGS))
    ]


def text_of(file: str) -> str | None:
    """The text of a file, here or at a URL; None if it cannot be read."""
    try:
        with get_filesystem(file).open(file, "r") as stream:
            return str(stream.read())
    except (OSError, ValueError, ImportError):
        return None


def in_file(file: str) -> list[Entry]:
    """The keys of one file with the lines that they stand in."""
    root = _tree(file)
    return [] if root is None else list(_entries(root, (), file))


def twice_in_file(file: str) -> list[Twice]:
    """The keys that one mapping of the file has two times."""
    root = _tree(file)
    return [] if root is None else list(_repeated(root, (), file))


def _tree(file: str) -> yaml.Node | None:
    text = text_of(file)
    try:
        return None if text is None else yaml.compose(text, yaml.SafeLoader)
    except yaml.YAMLError:
        return None


def _entries(node: yaml.Node, path: tuple[str, ...], file: str) -> Iterator[Entry]:
    if isinstance(node, yaml.MappingNode):
        for key, value in node.value:
            here = (*path, *str(key.value).split("."))
            text = value.value if isinstance(value, yaml.ScalarNode) else None
            yield Entry(here, text, f"{file}, line {key.start_mark.line + 1}", file)
            yield from _entries(value, here, file)
    elif isinstance(node, yaml.SequenceNode):
        for place, value in enumerate(node.value):
            here = (*path, str(place))
            text = value.value if isinstance(value, yaml.ScalarNode) else None
            yield Entry(here, text, f"{file}, line {value.start_mark.line + 1}", file)
            yield from _entries(value, here, file)


def _repeated(node: yaml.Node, path: tuple[str, ...], file: str) -> Iterator[Twice]:
    if isinstance(node, yaml.MappingNode):
        seen: dict[str, int] = {}
        for key, value in node.value:
            name, line = str(key.value), key.start_mark.line + 1
            if name in seen and name != "<<":
                yield Twice((*path, name), file, (seen[name], line))
            seen[name] = line
            yield from _repeated(value, (*path, name), file)
    elif isinstance(node, yaml.SequenceNode):
        for place, value in enumerate(node.value):
            yield from _repeated(value, (*path, str(place)), file)


def _from_environment(prefix: str) -> Iterator[Entry]:
    for name, value in os.environ.items():
        if name.startswith(f"{prefix}_"):
            keys = tuple(name.removeprefix(f"{prefix}_").lower().split("__"))
            yield Entry(keys, value, f"the environment variable {name}={value}")
