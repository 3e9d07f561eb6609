"""How checkpoints are written and read. What is for several processes is imported when it is first used."""

from __future__ import annotations

from typing import TYPE_CHECKING

from fulmen.plugins.io.async_plugin import AsyncCheckpointIO
from fulmen.plugins.io.checkpoint_plugin import CheckpointIO
from fulmen.plugins.io.torch_plugin import TorchCheckpointIO
from fulmen.utilities.imports import at_first_use

if TYPE_CHECKING:
    from fulmen.plugins.io.distributed_plugin import DistributedCheckpointIO as DistributedCheckpointIO

__all__ = ["AsyncCheckpointIO", "CheckpointIO", "DistributedCheckpointIO", "TorchCheckpointIO"]
__getattr__, __dir__ = at_first_use(__name__, {"DistributedCheckpointIO": "distributed_plugin"})
