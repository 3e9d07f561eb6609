"""What changes how a run computes, stores, or comes back: precision, checkpoint files, shared layers and the job's
environment. Each is imported when it is first used."""

from __future__ import annotations

from typing import TYPE_CHECKING

from fulmen.utilities.imports import at_first_use

if TYPE_CHECKING:
    from fulmen.plugins.environments.requeue import ExitCodeRequeue as ExitCodeRequeue
    from fulmen.plugins.environments.requeue import Requeue as Requeue
    from fulmen.plugins.environments.slurm import SLURMEnvironment as SLURMEnvironment
    from fulmen.plugins.io.async_plugin import AsyncCheckpointIO as AsyncCheckpointIO
    from fulmen.plugins.io.checkpoint_plugin import CheckpointIO as CheckpointIO
    from fulmen.plugins.io.torch_plugin import TorchCheckpointIO as TorchCheckpointIO
    from fulmen.plugins.io.xla_plugin import XLACheckpointIO as XLACheckpointIO
    from fulmen.plugins.layer_sync import LayerSync as LayerSync
    from fulmen.plugins.layer_sync import TorchSyncBatchNorm as TorchSyncBatchNorm
    from fulmen.plugins.precision.amp import MixedPrecision as MixedPrecision
    from fulmen.plugins.precision.bitsandbytes import BitsandbytesPrecision as BitsandbytesPrecision
    from fulmen.plugins.precision.deepspeed import DeepSpeedPrecision as DeepSpeedPrecision
    from fulmen.plugins.precision.double import DoublePrecision as DoublePrecision
    from fulmen.plugins.precision.half import HalfPrecision as HalfPrecision
    from fulmen.plugins.precision.precision import Precision as Precision
    from fulmen.plugins.precision.transformer_engine import TransformerEnginePrecision as TransformerEnginePrecision
    from fulmen.plugins.precision.xla import XLAPrecision as XLAPrecision

__all__ = [
    "AsyncCheckpointIO",
    "BitsandbytesPrecision",
    "CheckpointIO",
    "DeepSpeedPrecision",
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
__getattr__, __dir__ = at_first_use(
    __name__,
    {
        "AsyncCheckpointIO": "io.async_plugin",
        "BitsandbytesPrecision": "precision.bitsandbytes",
        "CheckpointIO": "io.checkpoint_plugin",
        "DeepSpeedPrecision": "precision.deepspeed",
        "DoublePrecision": "precision.double",
        "ExitCodeRequeue": "environments.requeue",
        "HalfPrecision": "precision.half",
        "LayerSync": "layer_sync",
        "MixedPrecision": "precision.amp",
        "Precision": "precision.precision",
        "Requeue": "environments.requeue",
        "SLURMEnvironment": "environments.slurm",
        "TorchCheckpointIO": "io.torch_plugin",
        "TorchSyncBatchNorm": "layer_sync",
        "TransformerEnginePrecision": "precision.transformer_engine",
        "XLACheckpointIO": "io.xla_plugin",
        "XLAPrecision": "precision.xla",
    },
)
