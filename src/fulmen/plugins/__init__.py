"""What changes how a run computes, stores, or comes back: precision, checkpoint files and the job's environment."""

from fulmen.plugins.environments.requeue import ExitCodeRequeue, Requeue
from fulmen.plugins.environments.slurm import SLURMEnvironment
from fulmen.plugins.io.async_plugin import AsyncCheckpointIO
from fulmen.plugins.io.checkpoint_plugin import CheckpointIO
from fulmen.plugins.io.torch_plugin import TorchCheckpointIO
from fulmen.plugins.precision.amp import MixedPrecision
from fulmen.plugins.precision.double import DoublePrecision
from fulmen.plugins.precision.half import HalfPrecision
from fulmen.plugins.precision.precision import Precision

__all__ = [
    "AsyncCheckpointIO",
    "CheckpointIO",
    "DoublePrecision",
    "ExitCodeRequeue",
    "HalfPrecision",
    "MixedPrecision",
    "Precision",
    "Requeue",
    "SLURMEnvironment",
    "TorchCheckpointIO",
]
