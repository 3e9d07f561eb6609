"""The kinds of devices that a model can be trained on."""

from __future__ import annotations

from typing import Any

import torch


class Accelerator:
    """One kind of device; the open class for all of them, on top of ``torch.accelerator``.

    Attributes:
        name: what ``Trainer(accelerator=...)`` calls it, which is torch's name of the device type.
    """

    name: str = "cpu"

    @classmethod
    def is_available(cls) -> bool:
        """Whether this machine has such a device."""
        current = torch.accelerator.current_accelerator(check_available=True)
        return current is not None and current.type == cls.name

    @classmethod
    def auto_device_count(cls) -> int:
        """How many of them ``devices="auto"`` uses."""
        return torch.accelerator.device_count() if cls.is_available() else 0

    def device(self, index: int = 0) -> torch.device:
        """The device number ``index``."""
        return torch.device(self.name, index)

    def setup_device(self, device: torch.device) -> None:
        """Make ``device`` the current one of this process."""
        torch.accelerator.set_device_index(device.index or 0)

    def get_device_stats(self, device: torch.device) -> dict[str, Any]:
        """Figures about the device, by name."""
        return {}

    def teardown(self) -> None:
        """Give back what a run held."""


class OtherAccelerator(Accelerator):
    """Any further device type that ``torch.accelerator`` knows, such as ``xpu``."""

    def __init__(self, name: str) -> None:
        self.name = name
