"""The accelerator ``cuda``."""

from fulmen.accelerators.accelerator import CUDAAccelerator

__all__ = ["CUDAAccelerator"]
