"""Who listens to a run."""

from fulmen.callbacks.callback import Callback
from fulmen.callbacks.checkpoint import Checkpoint
from fulmen.callbacks.early_stopping import EarlyStopping
from fulmen.callbacks.model_checkpoint import ModelCheckpoint
from fulmen.callbacks.model_summary import ModelSummary
from fulmen.callbacks.progress.plain_progress import PlainProgress
from fulmen.callbacks.progress.progress_bar import ProgressBar
from fulmen.callbacks.progress.rich_progress import RichProgressBar
from fulmen.callbacks.rich_model_summary import RichModelSummary
from fulmen.callbacks.timer import Timer

__all__ = [
    "Callback",
    "Checkpoint",
    "EarlyStopping",
    "ModelCheckpoint",
    "ModelSummary",
    "PlainProgress",
    "ProgressBar",
    "RichModelSummary",
    "RichProgressBar",
    "Timer",
]
