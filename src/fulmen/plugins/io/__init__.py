"""How checkpoints are written and read."""

from fulmen.plugins.io.checkpoint_io import CheckpointIO
from fulmen.plugins.io.torch_io import TorchCheckpointIO

__all__ = ["CheckpointIO", "TorchCheckpointIO"]
