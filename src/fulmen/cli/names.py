"""Names of classes on the command line and in configurations: short ones, and those of Lightning.

A short name is looked up among the imported subclasses of what an argument takes. Fulmen imports its callbacks, loggers
and so on when they are used; so those that a configuration names are imported before it is parsed.
"""

from __future__ import annotations

import ast
import inspect
import os
import re
import sys
from collections.abc import Callable, Sequence
from contextlib import suppress
from functools import cache
from importlib import import_module
from typing import Any

import jsonargparse

from fulmen.cli.registries import registered

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
    import torch
    import yaml
    from jsonargparse.typing import register_type

    for kind, read in ((torch.dtype, _dtype), (torch.device, torch.device)):
        with suppress(ValueError):  # the program has registered it in its own way
            register_type(
                kind,
                deserializer=read,
                deserializer_exceptions=(RuntimeError, TypeError, ValueError),
                fail_already_registered=True,
            )
    load = jsonargparse.get_loader("yaml")
    jsonargparse.set_loader(_MODE, lambda text: in_values(load(text)), exceptions=(yaml.YAMLError,))
    return _MODE


def in_arguments(args: Sequence[str] | None, takes_class: Callable[[str], bool]) -> list[str]:
    """Command-line arguments (None: the program's) with full names; the classes in them are imported.

    Args:
        takes_class: whether an option such as ``--trainer.callbacks`` takes a class.
    """
    found, last = [], ""
    for word in sys.argv[1:] if args is None else args:
        if not isinstance(word, str):
            found.append(word)
            continue
        option, equals, value = word.partition("=") if word.startswith("-") else ("", "", word)
        value = in_values(value)
        if takes_class((option or last).rstrip("+")):
            value = registered(value) or value
        found.append(f"{option}{equals}{value}")
        last = option if not equals else ""
    return found


def in_values(value: Any) -> Any:
    """A value of a configuration with full names, within lists and mappings too; the classes in it are imported."""
    if isinstance(value, str):
        return _in_text(value)
    if isinstance(value, jsonargparse.Namespace):
        changed = value.clone()
        for key, element in vars(value).items():
            changed[key] = _entry(key, element)
        return changed
    if type(value) is dict:
        return {key: _entry(key, element) for key, element in value.items()}
    if type(value) in (list, tuple):
        return type(value)(in_values(element) for element in value)
    return value


def _entry(key: Any, value: Any) -> Any:
    path = registered(value) if key == "class_path" and isinstance(value, str) else None
    return in_values(value) if path is None else path


def options_below(group: str, args: Sequence[str]) -> list[str]:
    """The options of a group in command-line arguments, ``--model.width 3`` or ``--model.width=3``, but ``+=``."""
    found, words = [], list(args)
    for index, word in enumerate(words):
        option, equals, _ = word.partition("=")
        if option.startswith(f"{group}.") and not option.endswith("+"):
            found.append(word)
            if not equals and index + 1 < len(words) and not words[index + 1].startswith("--"):
                found.append(words[index + 1])
    return found


def class_at(path: str) -> type[Any]:
    """The class at a path that was parsed."""
    module, _, name = path.rpartition(".")
    return getattr(import_module(module), name)


def from_environment(cls: type[Any]) -> dict[str, Any]:
    """What variables such as ``PL_TRAINER_MAX_EPOCHS`` say of the arguments of a Trainer."""
    prefix = f"PL_{cls.__name__.upper()}_"
    found = {}
    for name in inspect.signature(cls.__init__).parameters if any(key.startswith(prefix) for key in os.environ) else ():
        text = os.environ.get(prefix + name.upper())
        if text:
            try:
                found[name] = ast.literal_eval(text)
            except (ValueError, SyntaxError):
                found[name] = jsonargparse.get_loader("yaml")(text)
    return found


def _in_text(text: str) -> str:
    if "://" in text:  # the only use of fsspec, which takes its time to be imported
        jsonargparse.set_parsing_settings(config_read_mode_fsspec_enabled=True)
        return text
    if _FOREIGN.fullmatch(text):
        return _ours(text)
    for word in _WORD.findall(text):
        if word in table():
            getattr(import_module(table()[word]), word)
    return text


def _dtype(text: str) -> Any:
    import torch

    found = getattr(torch, text.removeprefix("torch."), None)
    if not isinstance(found, torch.dtype):
        raise ValueError(f"torch has no type of numbers {text!r}")
    return found


def _ours(path: str) -> str:
    """The path of Fulmen's class for a path of Lightning's."""
    from fulmen.compat.class_paths import resolve

    try:
        return resolve(path)
    except ImportError as error:
        raise TypeError(f"{path}: {error}") from error  # which parsers tell as a wrong value
