"""What torch_xla drives: TPUs above all."""

from __future__ import annotations

from typing import Any

import torch

from fulmen.accelerators.accelerator import Accelerator
from fulmen.accelerators.forms import numbers_of
from fulmen.utilities.imports import package_available, require


class XLAAccelerator(Accelerator):
    """The device that ``torch_xla`` was started for: ``PJRT_DEVICE`` in the environment, ``TPU`` or, to try things out,
    ``CPU``. It is imported when it is used.
    """

    @staticmethod
    def name() -> str:
        return "xla"

    @staticmethod
    def is_available() -> bool:
        return package_available("torch_xla")

    @staticmethod
    def auto_device_count() -> int:
        runtime = _runtime()
        if runtime.device_type() == "TPU":  # asked without starting the runtime, which its processes do
            from torch_xla._internal import tpu  # type: ignore[import-not-found]

            return tpu.num_available_devices()
        return runtime.addressable_device_count()

    @staticmethod
    def parse_devices(devices: Any) -> list[int]:
        return numbers_of(devices, XLAAccelerator.auto_device_count(), "xla")

    @staticmethod
    def get_parallel_devices(devices: Any) -> list[torch.device]:
        numbers = range(devices) if isinstance(devices, int) else devices
        return [torch.device("xla", number) for number in numbers]

    def setup_device(self, device: torch.device) -> None:
        pass  # a process has the device that the runtime gave it

    def get_device_stats(self, device: torch.device | str | int) -> dict[str, Any]:
        """The memory of the device, as ``torch_xla.core.xla_model.get_memory_info`` tells it."""
        from torch_xla.core import xla_model  # type: ignore[import-not-found]

        return dict(xla_model.get_memory_info(str(device)))


class TPUAccelerator(XLAAccelerator):
    """The same, where it is a TPU."""

    @staticmethod
    def name() -> str:
        return "tpu"

    @staticmethod
    def is_available() -> bool:
        return XLAAccelerator.is_available() and _runtime().device_type() == "TPU"


def _runtime() -> Any:
    require("torch_xla", "accelerator='xla'")
    from torch_xla import runtime  # type: ignore[import-not-found]

    return runtime
