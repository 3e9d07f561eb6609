"""What a function accepts."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any


def is_param_in_hook_signature(
    hook_fx: Callable[..., Any], param: str, explicit: bool = False, min_args: int | None = None
) -> bool:
    """Whether ``hook_fx`` can be given ``param``.

    Args:
        hook_fx: a function or a bound method; decorators and ``functools.partial`` are looked through.
        param: the name of the parameter.
        explicit: if True, only a parameter of that name counts; otherwise ``*args`` counts too.
        min_args: if given, so many parameters count too, whatever their names (``self`` is not one of them).
    """
    parameters = inspect.signature(hook_fx).parameters
    if param in parameters:
        return True
    if not explicit and any(p.kind is inspect.Parameter.VAR_POSITIONAL for p in parameters.values()):
        return True
    named = [p for p in parameters.values() if p.kind not in (p.VAR_POSITIONAL, p.VAR_KEYWORD)]
    return min_args is not None and len(named) >= min_args
