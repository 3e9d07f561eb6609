"""Apple's graphics processors."""

from __future__ import annotations

import os
from typing import Any

import torch

from fulmen.accelerators.accelerator import Accelerator
from fulmen.accelerators.forms import numbers_of


class MPSAccelerator(Accelerator):
    """Apple's graphics processors; a machine has one. ``DISABLE_MPS=1`` in the environment hides it."""

    @staticmethod
    def name() -> str:
        return "mps"

    @staticmethod
    def is_available() -> bool:
        return torch.backends.mps.is_available() and os.environ.get("DISABLE_MPS", "0") != "1"

    @staticmethod
    def auto_device_count() -> int:
        return 1

    @staticmethod
    def parse_devices(devices: Any) -> list[int]:
        return numbers_of(devices, 1, "mps")

    @staticmethod
    def get_parallel_devices(devices: Any) -> list[torch.device]:
        numbers = range(devices) if isinstance(devices, int) else devices
        return [torch.device("mps", number) for number in numbers]

    def setup_device(self, device: torch.device) -> None:
        pass  # there is only one

    def get_device_stats(self, device: torch.device | str | int) -> dict[str, Any]:
        """The memory in use, in bytes."""
        return {
            "mps.current_allocated_bytes": torch.mps.current_allocated_memory(),
            "mps.driver_allocated_bytes": torch.mps.driver_allocated_memory(),
        }
