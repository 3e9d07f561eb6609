"""Apple's graphics processors."""

from __future__ import annotations

import torch

from fulmen.accelerators.accelerator import Accelerator


class MPSAccelerator(Accelerator):
    """Apple's graphics processors."""

    name = "mps"

    def device(self, index: int = 0) -> torch.device:
        return torch.device("mps", 0)

    def setup_device(self, device: torch.device) -> None:
        pass  # there is only one
