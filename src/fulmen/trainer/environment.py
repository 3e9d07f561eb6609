"""The Trainer's arguments from the environment: ``PL_TRAINER_MAX_EPOCHS=3`` is ``max_epochs=3``."""

from __future__ import annotations

import functools
import inspect
import os
from collections.abc import Callable, Mapping
from typing import Any

from fulmen.utilities.argparse import value_of_variable

#: values that known arguments once had, or what tells them: that of ``accelerator`` was the strategy
FORMER_VALUES: dict[str, tuple[str | None, ...] | Callable[[Any], bool]] = {
    "accelerator": (None, "ddp", "ddp2", "ddp_cpu", "ddp_sharded", "ddp_spawn", "dp", "horovod"),
    "devices": (None,),
    "max_steps": (None,),
    "strategy": (None, "bagua", "ddp2", "ddp_sharded", "ddp_sharded_spawn", "dp", "fsdp_native", "horovod"),
}


def arguments_from_environment(init: Callable[..., None]) -> Callable[..., None]:
    """Let ``__init__`` take each argument that was not written from the variable ``PL_<CLASS>_<ARGUMENT>``.

    A value is read as Python where it is Python, else as text; an empty one counts as not set. Positional arguments are
    accepted in the order of the signature, and the arguments of Lightning 1 where they can be written in today's way.
    """
    parameters = {name: p for name, p in inspect.signature(init).parameters.items() if name != "self"}
    names = list(parameters)
    truths = {name for name, p in parameters.items() if "bool" in str(p.annotation) and "int" not in str(p.annotation)}

    @functools.wraps(init)
    def with_environment(self: Any, *args: Any, **kwargs: Any) -> None:
        owner = type(self).__name__
        if len(args) > len(names):
            raise TypeError(f"{owner} takes {len(names)} arguments, but {len(args)} were given.")
        for name, value in zip(names, args):
            if name in kwargs:
                raise TypeError(f"{owner} got two values for `{name}`.")
            kwargs[name] = value
        for name in names:
            text = os.environ.get(f"PL_{owner.upper()}_{name.upper()}")
            if text and name not in kwargs:
                kwargs[name] = value_of_variable(text, name in truths)
        if not kwargs.keys() <= parameters.keys() or any(has_former_value(kwargs, name) for name in FORMER_VALUES):
            from fulmen.trainer.removed_arguments import modern_arguments

            kwargs, self._former = modern_arguments(owner, kwargs, {n: p.default for n, p in parameters.items()})
        init(self, **kwargs)

    return with_environment


def has_former_value(given: Mapping[str, Any], name: str) -> bool:
    """Whether the argument ``name`` was given with a value that it had in Lightning 1 only."""
    value, known = given.get(name, ""), FORMER_VALUES.get(name, ())
    return known(value) if callable(known) else isinstance(value, (str, type(None))) and value in known
