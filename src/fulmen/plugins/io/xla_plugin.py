"""Checkpoints of runs on an XLA device."""

from __future__ import annotations

import os
from typing import Any

from torch import Tensor

from fulmen.plugins.io.torch_plugin import TorchCheckpointIO
from fulmen.utilities.apply_func import apply_to_collection


class XLACheckpointIO(TorchCheckpointIO):
    """Files as :class:`TorchCheckpointIO` writes them. Tensors are brought to the host first, so that a file can be
    read on any machine.
    """

    def save_checkpoint(
        self, checkpoint: dict[str, Any], path: str | os.PathLike[str], storage_options: Any | None = None
    ) -> None:
        on_host = apply_to_collection(checkpoint, Tensor, lambda tensor: tensor.detach().cpu())
        super().save_checkpoint(on_host, path, storage_options)
