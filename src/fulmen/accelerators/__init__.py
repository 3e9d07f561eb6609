"""The kinds of devices that a model can be trained on."""

from fulmen.accelerators.accelerator import Accelerator, CPUAccelerator, CUDAAccelerator, MPSAccelerator

__all__ = ["Accelerator", "CPUAccelerator", "CUDAAccelerator", "MPSAccelerator"]
