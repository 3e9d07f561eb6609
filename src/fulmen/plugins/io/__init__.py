"""How checkpoints are written and read."""

from fulmen.plugins.io.async_plugin import AsyncCheckpointIO
from fulmen.plugins.io.checkpoint_plugin import CheckpointIO
from fulmen.plugins.io.distributed_plugin import DistributedCheckpointIO
from fulmen.plugins.io.torch_plugin import TorchCheckpointIO

__all__ = ["AsyncCheckpointIO", "CheckpointIO", "DistributedCheckpointIO", "TorchCheckpointIO"]
