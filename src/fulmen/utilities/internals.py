"""Names of the inside of Lightning that packages use: the rows of the tables that say where they are here."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from difflib import get_close_matches
from typing import Any

from fulmen.utilities.rank_zero import rank_zero_warn


@dataclass(frozen=True, slots=True)
class Row:
    """One name of the inside.

    Attributes:
        path: from the trainer, or from the class in front of it.
        modern: what to write instead.
        users: the packages that use it, as far as the census names them; () for what is there for its neighbours' sake.
        read: gets it; None: it is not offered.
        write: sets it; None: it cannot be set.
    """

    path: str
    modern: str
    users: tuple[str, ...] = ()
    read: Callable[[Any], Any] | None = None
    write: Callable[[Any, Any], None] | None = None


def absent(asked: str, row: Row | None, others: Iterable[str] = (), *, is_write: bool = False) -> AttributeError:
    """The error that says what to write in the place of ``asked``.

    Args:
        row: that of the name, if it has one.
        others: what there is, to find what is near.
        is_write: it was to be set.
    """
    if row is not None:
        modern = f"`{row.modern}`" if " to " not in row.modern and "`" not in row.modern else row.modern
        what = "cannot be set" if is_write else "is not there"
        text = f"`{asked}` {what}: it is of the inside of Lightning. Here it is {modern}."
    else:
        text = f"`{asked}` is not there: it is of the inside of Lightning, and Fulmen's is another."
        near = get_close_matches(asked, list(others), n=1, cutoff=0.85)
        text += f" Did you mean `{near[0]}`?" if near else ""
        text += " docs/internals.md lists what is offered, and what to write instead."
    return AttributeError(text)


def warn_of_uncalled(cls: type, names: dict[str, str]) -> None:
    """Warn if the class that is being defined writes methods that Lightning calls and Fulmen does not.

    Args:
        names: the methods, each with what to write in its place.
    """
    if cls.__module__.startswith("fulmen."):
        return
    for name in names.keys() & vars(cls).keys():
        parent = next((one for one in cls.__mro__[1:] if one.__module__.startswith("fulmen.")), object)
        rank_zero_warn(
            f"`{cls.__name__}.{name}` is not called: it is of the inside of Lightning's {parent.__name__}. Write "
            f"{names[name]} instead. docs/internals.md lists what is called."
        )
