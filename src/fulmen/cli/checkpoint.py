"""Hyperparameters of a checkpoint as arguments of the command line."""

from __future__ import annotations

import collections
import dataclasses
import inspect
import json
import os
import re
import types
import typing
from argparse import Namespace
from collections.abc import Iterable, Mapping, Set
from enum import Enum
from typing import Any

import jsonargparse
import torch

from fulmen.cli.names import parser_mode
from fulmen.core.described import (
    asked_as_class,
    class_and_arguments,
    imported_class,
    is_callable,
    is_description,
)
from fulmen.core.plain import element_options, from_plain, options_of, parameter_hints
from fulmen.plugins.io.torch_plugin import read_checkpoint
from fulmen.utilities.text import shown

#: stands for an annotation that is not known here, and may be known to the parser
_UNKNOWN = type("unknown", (), {})
#: classes of which the parser makes a value without importing or calling what a text names
_PLAIN = (str, int, float, bool, complex, bytes, bytearray, type(None), object, Any, torch.dtype, torch.device)
#: modules with such classes only
_PLAIN_MODULES = ("datetime", "decimal", "fractions", "ipaddress", "jsonargparse", "pathlib", "uuid")
#: a text that is neither a path, an import, nor YAML of anything but itself
_WORDS = re.compile(r"[\w +-]*")


def hyperparameters_of(
    path: str, cls: type[Any], known: Mapping[str, Any], given: Set[str]
) -> tuple[dict[str, Any], dict[str, Any]]:
    """The hyperparameters in a checkpoint, as far as they are arguments of ``cls``.

    Only tensors and plain data are read, and what they describe is imported already and asked for by the annotations.

    Args:
        path: a local file.
        cls: the class of the module that is to be made.
        known: arguments that the program has by now. A text that is among them may be anything.
        given: the names of those that stay as they are.

    Returns:
        Those that the constructors name, and others that they take as ``**kwargs``.

    Raises:
        ValueError: the file is of another class.
        TypeError: it describes what ``cls`` does not ask for, or the parser would import what a text in it names.
    """
    checkpoint: Any = read_checkpoint(path, "cpu", True)
    saved = checkpoint.get(cls.CHECKPOINT_HYPER_PARAMS_KEY) if isinstance(checkpoint, Mapping) else None
    if not isinstance(saved, Mapping) or not all(type(name) is str for name in saved):
        return {}, {}
    kinds = checkpoint.get(cls.CHECKPOINT_HYPER_PARAMS_KINDS)
    values = from_plain(saved, kinds, cls) if isinstance(kinds, Mapping) else dict(saved)
    values.pop("_instantiator", None)
    class_path = values.pop("_class_path", None)
    # the same class has another path where its file is the program
    if class_path is not None and str(class_path).rpartition(".")[2] != cls.__qualname__.rpartition(".")[2]:
        raise ValueError(
            f"{path} is of the class {shown(class_path)}, and the command line asks for"
            f" {cls.__module__}.{cls.__qualname__}. Write `--model={class_path}`, or give another `--ckpt_path`."
        )
    named, takes_others = _parameters(cls)
    values = {
        name: value
        for name, value in values.items()
        if (name in named or takes_others)
        and name not in given
        and not (type(value) is str and value == known.get(name))
    }
    _check_arguments(values, cls, path, "")
    others = {name: value for name, value in values.items() if name not in named}
    return {name: value for name, value in values.items() if name in named}, others


def _parameters(cls: type[Any]) -> tuple[set[str], bool]:
    """The arguments of ``cls`` that the parser knows, those of bases too, and whether it takes any others."""
    takes_others = any(one.kind is one.VAR_KEYWORD for one in inspect.signature(cls.__init__).parameters.values())
    written = getattr(cls.__init__, "__module__", "").partition(".")[0] not in ("fulmen", "torch")
    return _known_to_parser(cls), takes_others and written


def _known_to_parser(cls: type[Any]) -> set[str]:
    return set(jsonargparse.ArgumentParser(parser_mode=parser_mode()).add_class_arguments(cls, fail_untyped=False))


# -- what the parser may get ------------------------------------------------------------------------------------------
#
# The parser follows descriptions and texts alike: `torch.nn.ReLU`, JSON and YAML with `class_path`, and names of files
# with such. That is what a user wants who writes them, and what a file must not do.


def _check_arguments(values: Mapping[str, Any], cls: type[Any], source: str, where: str) -> None:
    """Raise a TypeError if the parser would import or call for one of ``values`` what ``cls`` does not ask for."""
    hints, without = parameter_hints(cls), _without_annotation(cls)
    if not values.keys() <= hints.keys() | without:  # the parser also knows what `**kwargs` are handed to
        without |= values.keys() - _known_to_parser(cls)
    for name, value in values.items():
        options = options_of(hints[name]) if name in hints else () if name in without else (_UNKNOWN,)
        _check(value, options, source, f"{where}{name}")


def _without_annotation(cls: type[Any]) -> set[str]:
    constructors = [vars(kind)["__init__"] for kind in cls.__mro__ if inspect.isfunction(vars(kind).get("__init__"))]
    parameters = [one for function in constructors for one in inspect.signature(function).parameters.values()]
    annotated = {one.name for one in parameters if one.annotation is not one.empty}
    return {one.name for one in parameters if one.kind is not one.VAR_KEYWORD} - annotated


def _check(value: Any, options: tuple[Any, ...], source: str, where: str) -> None:
    if is_description(value):
        cls, arguments, _ = class_and_arguments(value, options, source, where, _write_it(where))
        _check_arguments(arguments, cls, source, f"{where}.")
    elif isinstance(value, (str, os.PathLike)):
        _check_text(os.fspath(value), options, source, where)
    elif isinstance(value, Mapping):
        _check_elements(value, value.items(), options, source, where)
    elif isinstance(value, (list, tuple, Set, collections.deque)):
        _check_elements(list(value), enumerate(value), options, source, where)
    elif isinstance(value, (Namespace, types.SimpleNamespace)) or dataclasses.is_dataclass(value):
        _check_elements(vars(value), vars(value).items(), options, source, where)


def _check_elements(
    container: Any, elements: Iterable[tuple[Any, Any]], options: tuple[Any, ...], source: str, where: str
) -> None:
    makes = any(map(_makes, options))
    # where a class is asked for as well, a mapping may be its arguments
    only_containers = all(_is_container(option) or not _makes(option) for option in options)
    for key, element in elements:
        inner = element_options(options, container, key) if only_containers else ()
        _check(element, inner or ((_UNKNOWN,) if makes else ()), source, f"{where}.{key}")


def _check_text(text: str, options: tuple[Any, ...], source: str, where: str) -> None:
    if any(map(_makes, options)):
        takes_text = _UNKNOWN in options or not all(_makes(option) or _is_container(option) for option in options)
        if takes_text and _WORDS.fullmatch(text) and not os.path.exists(text):
            return
        kinds = [kind for option in options for kind in asked_as_class(option)]
        if len(kinds) == len(options) and imported_class(text, kinds) is not None:
            return
        raise TypeError(
            f"{source} has the text {shown(text)} for `{where}`, by which a class, a function or a file may be meant. A"
            f" checkpoint makes nothing be imported or called. If you trust it, {_write_it(where)}."
        )
    if ":" not in text:  # without it there is no mapping
        return
    for read in (json.loads, jsonargparse.get_loader(parser_mode())):
        try:
            parsed = read(text)
        except Exception:  # then it is a text
            continue
        if isinstance(parsed, (dict, list)):
            _check(parsed, options, source, where)


def _write_it(where: str) -> str:
    return f"write it yourself: `--model.{where.partition('.')[0]}=...`"


def _makes(option: Any) -> bool:
    """Whether the parser may import or call something to make a value for ``option``."""
    while isinstance(option, typing.NewType):
        option = option.__supertype__
    if option in _PLAIN or typing.get_origin(option) is typing.Literal:
        return False
    if _is_container(option):
        return any(_makes(inner) for argument in typing.get_args(option) for inner in options_of(argument))
    if is_callable(option) or not isinstance(option, type):
        return option is not Ellipsis
    return not issubclass(option, Enum) and option.__module__.partition(".")[0] not in _PLAIN_MODULES


def _is_container(option: Any) -> bool:
    origin = typing.get_origin(option) or option
    if is_callable(option) or not isinstance(origin, type):
        return False
    return origin.__module__ in ("collections", "collections.abc") or origin in (list, tuple, set, frozenset, dict)
