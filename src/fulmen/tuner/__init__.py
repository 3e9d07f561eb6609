"""Who searches: learning rates and batch sizes. Each is imported when it is first used."""

from __future__ import annotations

from typing import TYPE_CHECKING

from fulmen.utilities.imports import at_first_use

if TYPE_CHECKING:
    from fulmen.tuner.lr_finder import LRFinder as LRFinder
    from fulmen.tuner.tuning import Tuner as Tuner

__all__ = ["LRFinder", "Tuner"]
__getattr__, __dir__ = at_first_use(__name__, {"LRFinder": "lr_finder", "Tuner": "tuning"})
