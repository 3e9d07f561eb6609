"""Names of classes on the command line and in configurations: short ones, and those of Lightning.

A short name is looked up among the imported subclasses of what an argument takes. Fulmen imports its callbacks, loggers
and so on when they are used; so those that a configuration names are imported before it is parsed.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Sequence
from functools import cache
from importlib import import_module
from typing import Any

import jsonargparse

#: the packages whose public classes have short names
ROOMS = (
    "fulmen.accelerators",
    "fulmen.callbacks",
    "fulmen.loggers",
    "fulmen.plugins",
    "fulmen.plugins.environments",
    "fulmen.plugins.io",
    "fulmen.plugins.precision",
    "fulmen.profilers",
    "fulmen.strategies",
)

#: of two classes with one name, the one that can be used
_PREFERRED = {"ReduceLROnPlateau": "fulmen.cli.ReduceLROnPlateau"}

_FOREIGN = re.compile(r"(lightning|pytorch_lightning|lightning_fabric)(\.\w+)+")
_WORD = re.compile(r"\b[A-Z]\w+")
_MODE = "fulmen"


@cache
def table() -> dict[str, str]:
    """The short names, each with the package that its class is in."""
    return {name: room for room in ROOMS for name in getattr(import_module(room), "__all__", ()) if name[0].isupper()}


@cache
def parser_mode() -> str:
    """The mode of parsers: YAML, with the names of classes as this module knows them."""
    import yaml

    load = jsonargparse.get_loader("yaml")
    jsonargparse.set_loader(_MODE, lambda text: in_values(load(text)), exceptions=(yaml.YAMLError,))
    return _MODE


def in_arguments(args: Sequence[str] | None) -> list[str]:
    """Command-line arguments (None: the program's) with full names; the classes in them are imported."""
    found = []
    for word in sys.argv[1:] if args is None else args:
        option, equals, value = word.partition("=") if str(word).startswith("-") else ("", "", word)
        found.append(f"{option}{equals}{in_values(value)}" if isinstance(word, str) else word)
    return found


def in_values(value: Any) -> Any:
    """A value of a configuration with full names, within lists and mappings too; the classes in it are imported."""
    if isinstance(value, str):
        return _in_text(value)
    if isinstance(value, jsonargparse.Namespace):
        changed = value.clone()
        for key, element in vars(value).items():
            changed[key] = in_values(element)
        return changed
    if type(value) is dict:
        return {key: in_values(element) for key, element in value.items()}
    if type(value) in (list, tuple):
        return type(value)(in_values(element) for element in value)
    return value


def _in_text(text: str) -> str:
    if text in _PREFERRED:
        return _PREFERRED[text]
    if _FOREIGN.fullmatch(text):
        return _ours(text)
    for word in _WORD.findall(text):
        if word in table():
            getattr(import_module(table()[word]), word)
    return text


def _ours(path: str) -> str:
    """The path of Fulmen's class for a path of Lightning's; what is unknown stays."""
    from fulmen.compat import resolve

    return resolve(path)
