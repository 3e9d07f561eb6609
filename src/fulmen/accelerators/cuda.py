"""NVIDIA's graphics processors, and through ROCm AMD's."""

from __future__ import annotations

from typing import Any

import torch

from fulmen.accelerators.accelerator import Accelerator


class CUDAAccelerator(Accelerator):
    """NVIDIA's (and, through ROCm, AMD's) graphics processors."""

    name = "cuda"

    def get_device_stats(self, device: torch.device) -> dict[str, Any]:
        return torch.cuda.memory_stats(device)

    def teardown(self) -> None:
        torch.cuda.empty_cache()
