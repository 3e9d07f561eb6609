"""Switching the translation of Lightning 1 on and off."""

from __future__ import annotations

from typing import Any

_ABSENT: Any = object()
#: what was there before, in the order in which it was replaced
_before: list[tuple[Any, str, Any]] = []


def enable() -> None:
    """Let code run that was written for Lightning 1: hooks, arguments and attributes that went. What is met says once
    per program how it is written today. To call it again does nothing.
    """
    if _before:
        return
    from fulmen.compat.old import arguments, methods, runs  # which need torch
    from fulmen.trainer.translation import translators

    for owner, name, value in [*methods.replacements(), *arguments.replacements()]:
        _before.append((owner, name, vars(owner).get(name, _ABSENT)))
        setattr(owner, name, value)
    arguments.extend()
    translators.append(runs.translate)


def disable() -> None:
    """Take it back: what went is an error again, which says what to write."""
    if not _before:
        return
    from fulmen.compat.old import arguments, messages, runs
    from fulmen.trainer.translation import translators

    while _before:
        owner, name, value = _before.pop()
        if value is _ABSENT:
            delattr(owner, name)
        else:
            setattr(owner, name, value)
    arguments.retract()
    translators.remove(runs.translate)
    messages.forget()


def is_enabled() -> bool:
    """Whether code of Lightning 1 is translated."""
    return bool(_before)
