"""What changes how a run computes, stores, or comes back: precision, checkpoint files, shared layers and the job's
environment."""

from fulmen.plugins.environments.requeue import ExitCodeRequeue, Requeue
from fulmen.plugins.environments.slurm import SLURMEnvironment
from fulmen.plugins.io.async_plugin import AsyncCheckpointIO
from fulmen.plugins.io.checkpoint_plugin import CheckpointIO
from fulmen.plugins.io.torch_plugin import TorchCheckpointIO
from fulmen.plugins.io.xla_plugin import XLACheckpointIO
from fulmen.plugins.layer_sync import LayerSync, TorchSyncBatchNorm
from fulmen.plugins.precision.amp import MixedPrecision
from fulmen.plugins.precision.bitsandbytes import BitsandbytesPrecision
from fulmen.plugins.precision.double import DoublePrecision
from fulmen.plugins.precision.half import HalfPrecision
from fulmen.plugins.precision.precision import Precision
from fulmen.plugins.precision.transformer_engine import TransformerEnginePrecision
from fulmen.plugins.precision.xla import XLAPrecision

__all__ = [
    "AsyncCheckpointIO",
    "BitsandbytesPrecision",
    "CheckpointIO",
    "DoublePrecision",
    "ExitCodeRequeue",
    "HalfPrecision",
    "LayerSync",
    "MixedPrecision",
    "Precision",
    "Requeue",
    "SLURMEnvironment",
    "TorchCheckpointIO",
    "TorchSyncBatchNorm",
    "TransformerEnginePrecision",
    "XLACheckpointIO",
    "XLAPrecision",
]
