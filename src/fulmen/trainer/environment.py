"""The Trainer's arguments from the environment: ``PL_TRAINER_MAX_EPOCHS=3`` is ``max_epochs=3``."""

from __future__ import annotations

import ast
import functools
import inspect
import os
from collections.abc import Callable
from typing import Any


def arguments_from_environment(init: Callable[..., None]) -> Callable[..., None]:
    """Let ``__init__`` take each argument that was not written from the variable ``PL_<CLASS>_<ARGUMENT>``.

    A value is read as Python where it is Python, else as text; an empty one counts as not set. Positional arguments are
    accepted in the order of the signature.
    """
    names = [name for name in inspect.signature(init).parameters if name != "self"]

    @functools.wraps(init)
    def with_environment(self: Any, *args: Any, **kwargs: Any) -> None:
        if len(args) > len(names):
            raise TypeError(f"{type(self).__name__} takes {len(names)} arguments, but {len(args)} were given.")
        for name, value in zip(names, args):
            if name in kwargs:
                raise TypeError(f"{type(self).__name__} got two values for `{name}`.")
            kwargs[name] = value
        prefix = f"PL_{type(self).__name__.upper()}_"
        for name in names:
            text = os.environ.get(prefix + name.upper())
            if text and name not in kwargs:
                kwargs[name] = _value(text)
        init(self, **kwargs)

    return with_environment


def _value(text: str) -> Any:
    try:
        return ast.literal_eval(text)
    except (ValueError, SyntaxError):
        return text
