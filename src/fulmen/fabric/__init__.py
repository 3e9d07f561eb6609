"""Loops that their users write, on the devices, strategies and precisions of the Trainer."""

from __future__ import annotations

from fulmen.fabric.fabric import Fabric as Fabric
from fulmen.fabric.wrappers import is_wrapped as is_wrapped
from fulmen.utilities.seed import seed_everything as seed_everything

__all__ = ["Fabric", "is_wrapped", "seed_everything"]
