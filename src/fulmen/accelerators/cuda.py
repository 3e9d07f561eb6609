"""NVIDIA's graphics processors, and through ROCm AMD's."""

from __future__ import annotations

from typing import Any

import torch

from fulmen.accelerators.accelerator import Accelerator
from fulmen.accelerators.forms import numbers_of
from fulmen.utilities.exceptions import MisconfigurationException


class CUDAAccelerator(Accelerator):
    """NVIDIA's (and, through ROCm, AMD's) graphics processors."""

    @staticmethod
    def name() -> str:
        return "cuda"

    @staticmethod
    def is_available() -> bool:
        return torch.cuda.is_available()

    @staticmethod
    def auto_device_count() -> int:
        return torch.cuda.device_count()

    @staticmethod
    def parse_devices(devices: Any) -> list[int]:
        return numbers_of(devices, torch.cuda.device_count(), "cuda")

    @staticmethod
    def get_parallel_devices(devices: Any) -> list[torch.device]:
        numbers = range(devices) if isinstance(devices, int) else devices
        return [torch.device("cuda", number) for number in numbers]

    def setup_device(self, device: torch.device) -> None:
        if device.type != "cuda":
            raise MisconfigurationException(
                f"the CUDA accelerator cannot use the device {device}. Write `accelerator='auto'`."
            )
        super().setup_device(device)

    def get_device_stats(self, device: torch.device | str | int) -> dict[str, Any]:
        """``torch.cuda.memory_stats``."""
        return torch.cuda.memory_stats(device)

    def teardown(self) -> None:
        torch.cuda.empty_cache()


def find_usable_cuda_devices(num_devices: int = -1) -> list[int]:
    """The numbers of devices that nobody else has taken for themselves, found by putting something on each.

    Args:
        num_devices: how many are wanted; -1: all that can be used.

    Raises:
        ValueError: the machine does not have so many.
        RuntimeError: it has, but some cannot be used.
    """
    if num_devices == 0:
        return []
    count = torch.cuda.device_count()
    if num_devices > count or (num_devices == -1 and count == 0):
        asked = "some" if num_devices == -1 else num_devices
        raise ValueError(
            f"find_usable_cuda_devices(num_devices={num_devices}) asks for {asked} CUDA devices, and this machine has "
            f"{count}. Ask for fewer, or write `accelerator='auto'`."
        )
    usable: list[int] = []
    taken: list[int] = []
    for number in range(count):
        try:
            torch.zeros(1, device=torch.device("cuda", number))
        except RuntimeError:
            taken.append(number)
            continue
        usable.append(number)
        if len(usable) == num_devices:
            break
    if len(usable) < num_devices:
        raise RuntimeError(
            f"find_usable_cuda_devices(num_devices={num_devices}) found {len(usable)}: {usable}. The devices {taken} "
            "are taken by other processes, or full. End those processes, or ask for fewer devices."
        )
    return usable
