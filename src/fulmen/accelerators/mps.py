"""The accelerator ``mps``."""

from fulmen.accelerators.accelerator import MPSAccelerator

__all__ = ["MPSAccelerator"]
