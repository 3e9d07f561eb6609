"""Objects that are made from a parsed configuration remember it, so that a checkpoint can make them again."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from typing import Any, TypeVar

from jsonargparse import ArgumentParser, Namespace

from fulmen.core.hparams import given_hyperparameters
from fulmen.core.plain import reasons_without_plain_form

Made = TypeVar("Made")

#: marks hyperparameters that the command line has parsed; the text that Lightning, too, knows in a file
MADE_BY = "lightning.pytorch.cli.instantiate_module"


class Remembering:
    """Makes a module or datamodule as jsonargparse would, and lets it save its part of the configuration.

    Args:
        part: gives the parsed part, with links, as plain data: ``class_path`` and ``init_args``, or arguments alone.
        path: the class that is to be made; None: the only one there is.
    """

    def __init__(self, part: Callable[[], Mapping[str, Any]], path: str | None) -> None:
        self.part = part
        self.path = path

    def __call__(self, class_type: type[Made], *args: Any, **kwargs: Any) -> Made:
        if self.path is not None and class_type.__qualname__.rpartition(".")[2] != self.path.rpartition(".")[2]:
            return class_type(*args, **kwargs)  # an argument of the object that is to remember
        hparams = dict(kwargs)
        without_plain_form = reasons_without_plain_form(hparams)
        if without_plain_form:
            described = arguments_of(self.part())
            hparams |= {key: described[key] for key in without_plain_form if key in described}
        hparams["_instantiator"] = MADE_BY
        if self.path is not None:
            hparams["_class_path"] = self.path
        with given_hyperparameters(made_by(class_type), hparams):
            return class_type(*args, **kwargs)


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
    made: Namespace = parser.instantiate(parser.parse_object({"module": part}))
    return made.module
