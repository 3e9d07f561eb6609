"""How far a run has come, for people: in a terminal, in a notebook, in a file. Each is imported when it is first
used.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from fulmen.utilities.imports import at_first_use

if TYPE_CHECKING:
    from fulmen.callbacks.progress.plain_progress import PlainProgress as PlainProgress
    from fulmen.callbacks.progress.progress_bar import ProgressBar as ProgressBar
    from fulmen.callbacks.progress.rich_progress import RichProgressBar as RichProgressBar
    from fulmen.callbacks.progress.tqdm_progress import TQDMProgressBar as TQDMProgressBar

__all__ = [
    "PlainProgress",
    "ProgressBar",
    "RichProgressBar",
    "TQDMProgressBar",
]
__getattr__, __dir__ = at_first_use(
    __name__,
    {
        "PlainProgress": "plain_progress",
        "ProgressBar": "progress_bar",
        "RichProgressBar": "rich_progress",
        "TQDMProgressBar": "tqdm_progress",
    },
)
