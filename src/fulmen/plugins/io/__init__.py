"""How checkpoints are written and read."""

from fulmen.plugins.io.checkpoint_plugin import CheckpointIO
from fulmen.plugins.io.torch_plugin import TorchCheckpointIO

__all__ = ["CheckpointIO", "TorchCheckpointIO"]
