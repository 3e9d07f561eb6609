"""The accelerator ``cpu``."""

from fulmen.accelerators.accelerator import CPUAccelerator

__all__ = ["CPUAccelerator"]
