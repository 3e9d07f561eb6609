"""Values in messages."""

from __future__ import annotations

from typing import Any


def shown(value: Any) -> str:
    """A value in a message: as Python writes it if that is short and says something, else its type."""
    if isinstance(value, type):
        return f"the class {value.__name__}"
    if isinstance(value, (list, tuple, dict)) and not value:
        return f"an empty {type(value).__name__}"
    try:
        text = repr(value)
    except Exception:  # an object whose __init__ has not run
        text = " at 0x"
    return a_kind(value) if len(text) > 60 or " at 0x" in text or "\n" in text else text


def plainly(value: Any) -> str:
    """A number or a short text and its type: ``'text' (a str)``; of anything else, however large, only the type."""
    return described(value) if isinstance(value, (str, int, float, type(None))) else a_kind(value)


def a_kind(value: Any) -> str:
    """The type of a value with its article: ``a Linear``, ``an Adam``."""
    kind = type(value).__name__
    return f"{'an' if kind[0] in 'aeiouAEIO' else 'a'} {kind}"


def described(value: Any) -> str:
    """A value and its type: ``'text' (a str)``; only the type of what is long or says nothing."""
    text, kind = shown(value), a_kind(value)
    return kind if text == kind else f"{text} ({kind})"
