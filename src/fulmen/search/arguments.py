"""The arguments of ``fulmen fit`` with a search space in them."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from difflib import get_close_matches
from pathlib import Path
from typing import Any

import yaml

from fulmen.search.space import Dimension, SpaceError, dimensions_in, filled
from fulmen.utilities.text import shown

_CONFIG = ("--config", "-c")
_FILES = (".yaml", ".yml", ".json")


@dataclass(slots=True)
class _Part:
    """An option whose value has dimensions in it."""

    option: str
    path: str
    tree: Any
    dimensions: list[Dimension]


@dataclass(slots=True)
class Template:
    """Arguments of ``fulmen fit`` in which some values are to be chosen.

    Attributes:
        parts: words, and options with dimensions in them, in order.
        dimensions: what is searched, by name.
        constants: what stands for dimensions that a later argument replaces.
        names: what the study calls a dimension that is written in another way.
    """

    parts: list[str | _Part]
    dimensions: dict[str, Dimension]
    constants: dict[str, Any] = field(default_factory=dict)
    names: dict[str, str] = field(default_factory=dict)

    @classmethod
    def of(cls, words: Sequence[str]) -> Template:
        """Find the dimensions in ``words`` and in the configuration files that they name.

        Raises:
            SpaceError: there is none, or one cannot be searched.
        """
        parts: list[str | _Part] = []
        dimensions: dict[str, Dimension] = {}
        template = cls(parts, dimensions)
        for option, value, written in _options(words):
            part = None if option is None or value is None else _part(option, value)
            if part is None:
                parts.extend(written)
                continue
            parts.append(part)
            for dimension in part.dimensions:
                for earlier in [name for name in dimensions if plain_path(name) == plain_path(dimension.name)]:
                    template.constants[earlier] = dimensions.pop(earlier).first_and_last()[0]
                dimensions[dimension.name] = dimension
        if not dimensions:
            raise SpaceError(
                "there is nothing to search: no value in the configuration is written as a dimension. Write one in the "
                "place of a value, such as `lr: {log_uniform: [1e-5, 1e-1]}`; the kinds are "
                "uniform, log_uniform, int, log_int and choice."
            )
        return template

    def words(self, labels: dict[str, Any]) -> list[str]:
        """The arguments with ``labels``, what a trial has chosen by the dimensions' names."""
        values = dict(self.constants)
        for written, dimension in self.dimensions.items():
            values[written] = dimension.value_of(labels[dimension.name])
        words: list[str] = []
        for part in self.parts:
            if isinstance(part, str):
                words.append(part)
                continue
            tree = filled(part.tree, values, part.path)
            words += [part.option, tree if isinstance(tree, str) else json.dumps(tree)]
        return words

    def two_ways(self) -> tuple[dict[str, Any], dict[str, Any]]:
        """Two choices that differ in each dimension that has more than one value."""
        ends = {one.name: _labels_at_ends(one) for one in self.dimensions.values()}
        return {name: low for name, (low, _) in ends.items()}, {name: high for name, (_, high) in ends.items()}

    def take_names(self, one: Any, other: Any) -> None:
        """Name the dimensions by the paths that differ between ``one`` and ``other``, the whole configurations of
        :meth:`two_ways`.

        Raises:
            SpaceError: a dimension makes no difference.
        """
        differing = {path: plain_path(path) for path in _differences(one, other)}
        for written, dimension in self.dimensions.items():
            if dimension.first_and_last()[0] == dimension.first_and_last()[1]:
                continue
            plain = plain_path(written)
            if not any(path == plain or path.startswith(f"{plain}.") for path in differing.values()):
                raise SpaceError(
                    f"{written}: the dimension {dimension.described()} has no effect, since a later argument or "
                    "configuration file gives that value. Take one of the two out."
                )
            exact = [path for path, short in differing.items() if short == plain]
            if len(exact) == 1:
                self.dimensions[written] = replace(dimension, name=exact[0])


def plain_path(path: str) -> str:
    """A path as one may write it in short: without ``init_args`` and the places in lists."""
    return ".".join(word for word in path.split(".") if word != "init_args" and not word.isdigit())


def _labels_at_ends(dimension: Dimension) -> tuple[Any, Any]:
    if dimension.kind == "choice":
        return dimension.labels[0], dimension.labels[-1]
    return dimension.first_and_last()


def _options(words: Sequence[str]) -> Iterator[tuple[str | None, str | None, list[str]]]:
    """Each option with its value, and the words that they are written in."""
    place = 0
    while place < len(words):
        word = words[place]
        place += 1
        option, equals, value = word.partition("=")
        if not word.startswith("-"):
            yield None, None, [word]
        elif equals:
            yield option, value, [word]
        elif place < len(words) and not words[place].startswith("--"):
            yield word, words[place], [word, words[place]]
            place += 1
        else:
            yield word, None, [word]


def _part(option: str, value: str) -> _Part | None:
    """The option if its value has dimensions in it."""
    is_config = option in _CONFIG
    path = "" if is_config else option.lstrip("-").rstrip("+")
    file = Path(value).expanduser() if is_config or value.endswith(_FILES) else None
    try:
        is_file = file is not None and file.is_file()
    except OSError:  # a text that is too long for a name
        is_file = False
    if is_file:
        assert file is not None
        tree = _with_inner_files(_load(file.read_text(), str(file)), file.parent)
    elif is_config and not any(mark in value for mark in "{:\n"):
        raise SpaceError(f"{option} {value}: there is no such file.")
    elif value.lstrip()[:1] in ("{", "[") or is_config:
        try:
            tree = yaml.safe_load(value)
        except yaml.YAMLError:  # a text of the user's own, or a mistake that the parser tells of
            return None
    else:
        return None
    found = list(dimensions_in(tree, path, str(file) if is_file else ""))
    return _Part(option, path, tree, found) if found else None


def _load(text: str, name: str) -> Any:
    try:
        return yaml.safe_load(text)
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        place = f", line {mark.line + 1}" if mark is not None else ""
        reason = getattr(error, "problem", None) or "it is no YAML"
        raise SpaceError(f"{name}{place}: this file cannot be read ({reason}). Correct it there.") from error


def _with_inner_files(tree: Any, folder: Path) -> Any:
    """A configuration whose files are named so that it can be read from anywhere; those with dimensions are in it."""
    if isinstance(tree, dict):
        return {key: _with_inner_files(value, folder) for key, value in tree.items()}
    if isinstance(tree, list):
        return [_with_inner_files(value, folder) for value in tree]
    if not isinstance(tree, str) or not tree.endswith(_FILES) or "\n" in tree:
        return tree
    file = folder / Path(tree).expanduser()
    if not file.is_file():
        return tree
    inner = _with_inner_files(_load(file.read_text(), str(file)), file.parent)
    return inner if any(True for _ in dimensions_in(inner, "", str(file))) else str(file.resolve())


def _differences(one: Any, other: Any, path: str = "") -> Iterator[str]:
    """The paths of the leaves in which two configurations differ."""
    if isinstance(one, dict) and isinstance(other, dict):
        for key in [*one, *(key for key in other if key not in one)]:
            if key not in one or key not in other:
                yield f"{path}.{key}" if path else str(key)
            else:
                yield from _differences(one[key], other[key], f"{path}.{key}" if path else str(key))
    elif isinstance(one, list) and isinstance(other, list) and len(one) == len(other):
        for place, (left, right) in enumerate(zip(one, other)):
            yield from _differences(left, right, f"{path}.{place}" if path else str(place))
    elif one != other:
        yield path


def monitor_in(config: Any) -> tuple[str | None, str | None, list[str]]:
    """The metric and the direction that the callbacks of a whole configuration look at.

    Returns:
        The metric and ``"minimize"`` or ``"maximize"``, both None if it is not clear; and all that they look at.
    """
    callbacks = ((config.get("trainer") or {}).get("callbacks") or []) if isinstance(config, dict) else []
    found: list[tuple[str, str]] = []
    for callback in callbacks if isinstance(callbacks, list) else [callbacks]:
        arguments = (callback.get("init_args") if isinstance(callback, dict) else None) or {}
        monitor = arguments.get("monitor")
        if monitor and "mode" in arguments:  # a LearningRateMonitor or the like has none
            found.append((monitor, "maximize" if arguments["mode"] == "max" else "minimize"))
    distinct = list(dict.fromkeys(found))
    names = list(dict.fromkeys(name for name, _ in distinct))
    return (*distinct[0], names) if len(distinct) == 1 else (None, None, names)


def nearest(name: str, names: Sequence[str]) -> str:
    """``Did you mean 'tpe'? There are: ...``"""
    close = get_close_matches(name.lower(), names, n=1, cutoff=0.5)
    return f"{f'Did you mean {close[0]!r}? ' if close else ''}There are: {', '.join(names)}."


def plain_differences(one: Any, other: Any) -> list[str]:
    """What differs between two configurations, each as ``trainer.max_epochs: 5 -> 10``."""

    def at(tree: Any, path: str) -> Any:
        for word in path.split("."):
            if isinstance(tree, list):
                tree = tree[int(word)]
            else:
                tree = tree.get(word) if isinstance(tree, dict) else None
        return tree

    return [f"{path}: {shown(at(one, path))} -> {shown(at(other, path))}" for path in _differences(one, other)]
