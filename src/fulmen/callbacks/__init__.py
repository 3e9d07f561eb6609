"""Who listens to a run. Each is imported when it is first used."""

from __future__ import annotations

from typing import TYPE_CHECKING

from fulmen.utilities.imports import at_first_use

if TYPE_CHECKING:
    from fulmen.callbacks.batch_size_finder import BatchSizeFinder as BatchSizeFinder
    from fulmen.callbacks.callback import Callback as Callback
    from fulmen.callbacks.checkpoint import Checkpoint as Checkpoint
    from fulmen.callbacks.device_stats_monitor import DeviceStatsMonitor as DeviceStatsMonitor
    from fulmen.callbacks.early_stopping import EarlyStopping as EarlyStopping
    from fulmen.callbacks.finetuning import BackboneFinetuning as BackboneFinetuning
    from fulmen.callbacks.finetuning import BaseFinetuning as BaseFinetuning
    from fulmen.callbacks.gradient_accumulation_scheduler import (
        GradientAccumulationScheduler as GradientAccumulationScheduler,
    )
    from fulmen.callbacks.lambda_function import LambdaCallback as LambdaCallback
    from fulmen.callbacks.lr_finder import LearningRateFinder as LearningRateFinder
    from fulmen.callbacks.lr_monitor import LearningRateMonitor as LearningRateMonitor
    from fulmen.callbacks.model_checkpoint import ModelCheckpoint as ModelCheckpoint
    from fulmen.callbacks.model_summary import ModelSummary as ModelSummary
    from fulmen.callbacks.nonfinite_guard import NonFiniteGuard as NonFiniteGuard
    from fulmen.callbacks.on_exception_checkpoint import OnExceptionCheckpoint as OnExceptionCheckpoint
    from fulmen.callbacks.prediction_writer import BasePredictionWriter as BasePredictionWriter
    from fulmen.callbacks.progress.plain_progress import PlainProgress as PlainProgress
    from fulmen.callbacks.progress.progress_bar import ProgressBar as ProgressBar
    from fulmen.callbacks.progress.rich_progress import RichProgressBar as RichProgressBar
    from fulmen.callbacks.progress.tqdm_progress import TQDMProgressBar as TQDMProgressBar
    from fulmen.callbacks.pruning import ModelPruning as ModelPruning
    from fulmen.callbacks.rich_model_summary import RichModelSummary as RichModelSummary
    from fulmen.callbacks.spike import SpikeDetection as SpikeDetection
    from fulmen.callbacks.stochastic_weight_avg import StochasticWeightAveraging as StochasticWeightAveraging
    from fulmen.callbacks.throughput_monitor import ThroughputMonitor as ThroughputMonitor
    from fulmen.callbacks.timer import Timer as Timer
    from fulmen.callbacks.weight_averaging import EMAWeightAveraging as EMAWeightAveraging
    from fulmen.callbacks.weight_averaging import WeightAveraging as WeightAveraging

__all__ = [
    "BackboneFinetuning",
    "BaseFinetuning",
    "BasePredictionWriter",
    "BatchSizeFinder",
    "Callback",
    "Checkpoint",
    "DeviceStatsMonitor",
    "EMAWeightAveraging",
    "EarlyStopping",
    "GradientAccumulationScheduler",
    "LambdaCallback",
    "LearningRateFinder",
    "LearningRateMonitor",
    "ModelCheckpoint",
    "ModelPruning",
    "ModelSummary",
    "NonFiniteGuard",
    "OnExceptionCheckpoint",
    "PlainProgress",
    "ProgressBar",
    "RichModelSummary",
    "RichProgressBar",
    "SpikeDetection",
    "StochasticWeightAveraging",
    "TQDMProgressBar",
    "ThroughputMonitor",
    "Timer",
    "WeightAveraging",
]
__getattr__, __dir__ = at_first_use(
    __name__,
    {
        "BackboneFinetuning": "finetuning",
        "BaseFinetuning": "finetuning",
        "BasePredictionWriter": "prediction_writer",
        "BatchSizeFinder": "batch_size_finder",
        "Callback": "callback",
        "Checkpoint": "checkpoint",
        "EMAWeightAveraging": "weight_averaging",
        "DeviceStatsMonitor": "device_stats_monitor",
        "EarlyStopping": "early_stopping",
        "GradientAccumulationScheduler": "gradient_accumulation_scheduler",
        "LambdaCallback": "lambda_function",
        "LearningRateFinder": "lr_finder",
        "LearningRateMonitor": "lr_monitor",
        "ModelCheckpoint": "model_checkpoint",
        "ModelPruning": "pruning",
        "ModelSummary": "model_summary",
        "NonFiniteGuard": "nonfinite_guard",
        "OnExceptionCheckpoint": "on_exception_checkpoint",
        "PlainProgress": "progress.plain_progress",
        "ProgressBar": "progress.progress_bar",
        "RichModelSummary": "rich_model_summary",
        "RichProgressBar": "progress.rich_progress",
        "StochasticWeightAveraging": "stochastic_weight_avg",
        "SpikeDetection": "spike",
        "TQDMProgressBar": "progress.tqdm_progress",
        "ThroughputMonitor": "throughput_monitor",
        "Timer": "timer",
        "WeightAveraging": "weight_averaging",
    },
)
