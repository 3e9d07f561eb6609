"""The processor as a device."""

from __future__ import annotations

from typing import Any

import torch

from fulmen.accelerators.accelerator import Accelerator
from fulmen.accelerators.forms import processes_of
from fulmen.utilities.imports import require


class CPUAccelerator(Accelerator):
    """The processor. Here ``devices`` is the number of processes."""

    @staticmethod
    def name() -> str:
        return "cpu"

    @staticmethod
    def is_available() -> bool:
        return True

    @staticmethod
    def auto_device_count() -> int:
        return 1

    @staticmethod
    def parse_devices(devices: Any) -> int:
        return processes_of(devices)

    @staticmethod
    def get_parallel_devices(devices: Any) -> list[torch.device]:
        return [torch.device("cpu")] * processes_of(devices)

    def device(self, index: int = 0) -> torch.device:
        return torch.device("cpu")

    def setup_device(self, device: torch.device) -> None:
        if device.type != "cpu":
            raise ValueError(f"the CPU accelerator cannot use the device {device}. Write `accelerator='auto'`.")

    def get_device_stats(self, device: torch.device | str | int) -> dict[str, Any]:
        """How busy the machine's processors are, and how full its memory and its swap, in percent.

        Raises:
            ModuleNotFoundError: ``psutil`` is not installed.
        """
        return get_cpu_stats()


def get_cpu_stats() -> dict[str, float]:
    """What :meth:`CPUAccelerator.get_device_stats` gives."""
    require("psutil", "what the CPU does")
    import psutil  # type: ignore[import-untyped]

    return {
        "cpu_percent": psutil.cpu_percent(),
        "cpu_vm_percent": psutil.virtual_memory().percent,
        "cpu_swap_percent": psutil.swap_memory().percent,
    }
