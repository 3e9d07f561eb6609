"""Hyperparameters of a checkpoint as arguments of the command line."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from typing import Any

from fulmen.core.described import check_descriptions
from fulmen.core.plain import from_plain, options_of, parameter_hints
from fulmen.plugins.io.torch_plugin import read_checkpoint
from fulmen.utilities.text import shown


def hyperparameters_of(path: str, cls: type[Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    """The hyperparameters in a checkpoint, as far as they are arguments of ``cls``.

    Only tensors and plain data are read, and what they describe is imported already and asked for by the annotations.

    Args:
        path: a local file.
        cls: the class of the module that is to be made.

    Returns:
        Those that the constructors name, and others that they take as ``**kwargs``.

    Raises:
        ValueError: the file is of another class.
        TypeError: it describes what ``cls`` does not ask for.
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
    hints = parameter_hints(cls)
    for name in [name for name in values if name not in named and not takes_others]:
        del values[name]
    for name, value in values.items():
        check_descriptions(value, options_of(hints.get(name)), path, name)
    others = {name: value for name, value in values.items() if name not in named}
    return {name: value for name, value in values.items() if name in named}, others


def _parameters(cls: type[Any]) -> tuple[set[str], bool]:
    """The names that the constructors of ``cls`` and its bases take, and whether the outermost takes any others."""
    constructors = [vars(base)["__init__"] for base in cls.__mro__ if "__init__" in vars(base) and base is not object]
    names: set[str] = set()
    takes_others = False
    for constructor in constructors:
        parameters = list(inspect.signature(constructor).parameters.values())[1:]
        names |= {p.name for p in parameters if p.kind in (p.POSITIONAL_OR_KEYWORD, p.KEYWORD_ONLY)}
        takes_others = any(p.kind is p.VAR_KEYWORD for p in parameters)
        if not takes_others:  # what it does not take goes to no base
            break
    written = takes_others and getattr(cls.__init__, "__module__", "").partition(".")[0] not in ("fulmen", "torch")
    return names, written
