"""Loops that their users write, on the devices, strategies and precisions of the Trainer."""

from __future__ import annotations

from typing import TYPE_CHECKING

from fulmen.utilities.imports import at_first_use

if TYPE_CHECKING:
    from fulmen.fabric.fabric import Fabric as Fabric
    from fulmen.fabric.wrappers import is_wrapped as is_wrapped

__all__ = ["Fabric", "is_wrapped"]
__getattr__, __dir__ = at_first_use(__name__, {"Fabric": "fabric", "is_wrapped": "wrappers"})
