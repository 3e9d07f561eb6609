"""What is said of code of Lightning 1: one message per program for each thing, with the line of today."""

from __future__ import annotations

from fulmen.utilities.rank_zero import rank_zero_warn
from fulmen.utilities.warnings import LightningDeprecationWarning

_told: set[str] = set()


def tell(what: str, today: str) -> None:
    """Say once that ``what`` is the way of Lightning 1, and ``today``, what to write."""
    if what not in _told:
        _told.add(what)
        rank_zero_warn(f"{what} is the way of Lightning 1. {today}", category=LightningDeprecationWarning)


def forget() -> None:
    """Say everything once more."""
    _told.clear()
