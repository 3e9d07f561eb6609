"""How far a run has come, for people: in a terminal, in a notebook, in a file."""

from fulmen.callbacks.progress.plain_progress import PlainProgress
from fulmen.callbacks.progress.progress_bar import ProgressBar
from fulmen.callbacks.progress.rich_progress import RichProgressBar
from fulmen.callbacks.progress.tqdm_progress import TQDMProgressBar

__all__ = ["PlainProgress", "ProgressBar", "RichProgressBar", "TQDMProgressBar"]
