"""The processor as a device."""

from __future__ import annotations

import torch

from fulmen.accelerators.accelerator import Accelerator


class CPUAccelerator(Accelerator):
    """The processor."""

    name = "cpu"

    @classmethod
    def is_available(cls) -> bool:
        return True

    @classmethod
    def auto_device_count(cls) -> int:
        return 1

    def device(self, index: int = 0) -> torch.device:
        return torch.device("cpu")

    def setup_device(self, device: torch.device) -> None:
        if device.type != "cpu":
            raise ValueError(f"the CPU accelerator cannot use the device {device}. Write `accelerator='auto'`.")
