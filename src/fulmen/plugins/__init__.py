"""What changes how a run computes or stores: precision and checkpoint files."""

from fulmen.plugins.io.checkpoint_io import CheckpointIO
from fulmen.plugins.io.torch_io import TorchCheckpointIO
from fulmen.plugins.precision.amp import MixedPrecision
from fulmen.plugins.precision.precision import Precision
from fulmen.plugins.precision.true import DoublePrecision, HalfPrecision

__all__ = [
    "CheckpointIO",
    "DoublePrecision",
    "HalfPrecision",
    "MixedPrecision",
    "Precision",
    "TorchCheckpointIO",
]
