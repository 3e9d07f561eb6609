"""The kinds of devices that a model can be trained on: the open class of all, on top of ``torch.accelerator``."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch

from fulmen.accelerators.forms import numbers_of

if TYPE_CHECKING:
    from fulmen.accelerators.registry import _AcceleratorRegistry


class Accelerator:
    """One kind of device. As it stands it is the one that torch was built for, whatever that is
    (``torch.accelerator.current_accelerator()``): ``"xpu"``, ``"npu"``, ...

    Derive from it for a kind of your own, overriding the static methods, and give ``Trainer(accelerator=...)`` an
    object, or a name under which you registered the class (:data:`~fulmen.accelerators.registry.AcceleratorRegistry`).
    """

    _devices: dict[int, torch.device] | None = None  # by number: what `get_parallel_devices` gave

    @staticmethod
    def name() -> str:
        """What ``Trainer(accelerator=...)`` calls it."""
        current = torch.accelerator.current_accelerator()
        return "cpu" if current is None else current.type

    @staticmethod
    def is_available() -> bool:
        """Whether this machine has such a device."""
        return torch.accelerator.is_available()

    @staticmethod
    def auto_device_count() -> int:
        """How many of them ``devices="auto"`` uses."""
        return torch.accelerator.device_count()

    @staticmethod
    def parse_devices(devices: Any) -> Any:
        """Read ``Trainer(devices=...)``, in any form but ``"auto"``.

        Returns:
            A number of devices, or a list of their numbers.

        Raises:
            TypeError: it has none of the forms.
            MisconfigurationException: it names a device twice, or one that is not there, or none.
        """
        return numbers_of(devices, torch.accelerator.device_count(), Accelerator.name())

    @staticmethod
    def get_parallel_devices(devices: Any) -> list[torch.device]:
        """The devices of what :meth:`parse_devices` returned."""
        numbers = range(devices) if isinstance(devices, int) else devices
        return [torch.device(Accelerator.name(), number) for number in numbers]

    def device(self, index: int = 0) -> torch.device:
        """The device number ``index``."""
        if self._devices is not None and index in self._devices:
            return self._devices[index]
        return self.get_parallel_devices(self.parse_devices([index]))[0]

    def indices(self, devices: Any) -> list[int]:
        """The numbers of the devices that ``Trainer(devices=...)`` chooses."""
        if isinstance(devices, str) and devices == "auto":
            devices = self.auto_device_count()
        parsed = self.parse_devices(devices)
        found = self.get_parallel_devices(parsed)
        numbers = list(parsed) if isinstance(parsed, (list, tuple)) else list(range(len(found)))
        if not all(isinstance(number, int) for number in numbers):  # a class of the user's may name them otherwise
            numbers = list(range(len(found)))
        self._devices = dict(zip(numbers, found))
        return numbers

    def setup_device(self, device: torch.device) -> None:
        """Make ``device`` the current one of this process."""
        torch.accelerator.set_device_index(device.index or 0)

    def setup(self, trainer: Any) -> None:
        """Called when a run begins, after :meth:`setup_device`."""

    def get_device_stats(self, device: torch.device | str | int) -> dict[str, Any]:
        """Figures about the device, by name."""
        return {}

    def teardown(self) -> None:
        """Give back what a run held."""

    @classmethod
    def register_accelerators(cls, accelerator_registry: _AcceleratorRegistry) -> None:
        """Register this class under its name."""
        accelerator_registry.register(cls.name(), cls, description=cls.__name__)
