"""The kinds of devices that a model can be trained on. Each is imported when it is first used."""

from __future__ import annotations

from typing import TYPE_CHECKING

from fulmen.utilities.imports import at_first_use

if TYPE_CHECKING:
    from fulmen.accelerators.accelerator import Accelerator as Accelerator
    from fulmen.accelerators.cpu import CPUAccelerator as CPUAccelerator
    from fulmen.accelerators.cuda import CUDAAccelerator as CUDAAccelerator
    from fulmen.accelerators.cuda import find_usable_cuda_devices as find_usable_cuda_devices
    from fulmen.accelerators.mps import MPSAccelerator as MPSAccelerator
    from fulmen.accelerators.registry import AcceleratorRegistry as AcceleratorRegistry
    from fulmen.accelerators.xla import XLAAccelerator as XLAAccelerator

__all__ = [
    "Accelerator",
    "AcceleratorRegistry",
    "CPUAccelerator",
    "CUDAAccelerator",
    "MPSAccelerator",
    "XLAAccelerator",
    "find_usable_cuda_devices",
]
__getattr__, __dir__ = at_first_use(
    __name__,
    {
        "Accelerator": "accelerator",
        "AcceleratorRegistry": "registry",
        "CPUAccelerator": "cpu",
        "CUDAAccelerator": "cuda",
        "MPSAccelerator": "mps",
        "XLAAccelerator": "xla",
        "find_usable_cuda_devices": "cuda",
    },
)
