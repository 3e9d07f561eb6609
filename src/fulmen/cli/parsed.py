"""Objects that are made from a parsed configuration remember it, so that a checkpoint can make them again."""

from __future__ import annotations

import copy
import inspect
from collections.abc import Callable, Mapping
from typing import Any, TypeVar

from jsonargparse import ArgumentParser, Namespace

from fulmen.core.hparams import given_hyperparameters
from fulmen.core.plain import reasons_without_plain_form

Made = TypeVar("Made")

#: marks hyperparameters that the command line has parsed; the text that Lightning, too, knows in a file
MADE_BY = "lightning.pytorch.cli.instantiate_module"


def remembering(part: Callable[[], Mapping[str, Any]], path: str | None) -> Callable[..., Any]:
    """A function that makes a module or datamodule as jsonargparse would, and lets it save what was parsed.

    Args:
        part: gives the parsed part, with links, as plain data: ``class_path`` and ``init_args``, or arguments alone.
        path: the class that is to be made; None: the only one there is.
    """

    def make(class_type: type[Made], *args: Any, **kwargs: Any) -> Made:
        if path is not None and class_type.__qualname__.rpartition(".")[2] != path.rpartition(".")[2]:
            return class_type(*args, **kwargs)  # an argument of the object that is to remember
        hparams = dict(kwargs)
        without_plain_form = reasons_without_plain_form(hparams)
        if without_plain_form:
            described = arguments_of(part())
            hparams |= {key: described[key] for key in without_plain_form if key in described}
        hparams["_instantiator"] = MADE_BY
        if path is not None:
            hparams["_class_path"] = path
        with given_hyperparameters(made_by(class_type), hparams):
            return class_type(*args, **kwargs)

    return make


def construct(class_type: type[Made], *args: Any, **kwargs: Any) -> Made:
    """Make an object."""
    return class_type(*args, **kwargs)


def watched(make: Callable[..., Made], raised: list[Exception]) -> Callable[..., Made]:
    """``make``, which adds what it raises to ``raised``: jsonargparse would tell of a value of a wrong type."""

    def made(class_type: type[Any], *args: Any, **kwargs: Any) -> Made:
        try:
            return make(class_type, *args, **kwargs)
        except Exception as error:
            raised.append(error)
            raise

    return made


def arguments_of(part: Mapping[str, Any]) -> dict[str, Any]:
    """The arguments of a class in a configuration, whether it names the class or not."""
    if "class_path" not in part:
        return dict(part)
    return {**(part.get("init_args") or {}), **(part.get("dict_kwargs") or {})}


def made_by(maker: Callable[..., Any]) -> type[Any]:
    """The class of what ``maker`` makes: itself, or what a function's annotation says."""
    function = getattr(maker, "wrapped_function", maker)
    if isinstance(function, type):
        return function
    annotation = inspect.signature(function, eval_str=True).return_annotation
    return annotation if isinstance(annotation, type) else object


def instantiate_module(class_type: type[Made], config: Mapping[str, Any]) -> Made:
    """Make an object of hyperparameters that the command line has parsed, importing the classes that they name.

    Only for what you trust: ``load_from_checkpoint`` makes objects again without importing anything.

    Args:
        class_type: the class, or one that it derives from.
        config: its arguments; ``_class_path`` is the class's path if it is another than ``class_type``.
    """
    parser = ArgumentParser(exit_on_error=False)
    arguments = {key: value for key, value in config.items() if key not in ("_class_path", "_instantiator")}
    if "_class_path" in config:
        parser.add_subclass_arguments(class_type, "module", fail_untyped=False)
        part: dict[str, Any] = {"class_path": config["_class_path"], "dict_kwargs": arguments}
    else:
        parser.add_class_arguments(class_type, "module", fail_untyped=False)
        part = arguments
    make = remembering(lambda: arguments, config.get("_class_path"))
    parsed = parser.parse_object({"module": copy.deepcopy(part)})
    made: Namespace = parser.instantiate(parsed, instantiators=[(make, class_type, True)])
    return made.module
