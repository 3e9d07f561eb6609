"""Where the time of a run goes. Each is imported when it is first used."""

from __future__ import annotations

from typing import TYPE_CHECKING

from fulmen.utilities.imports import at_first_use

if TYPE_CHECKING:
    from fulmen.profilers.advanced import AdvancedProfiler as AdvancedProfiler
    from fulmen.profilers.base import PassThroughProfiler as PassThroughProfiler
    from fulmen.profilers.profiler import Profiler as Profiler
    from fulmen.profilers.pytorch import PyTorchProfiler as PyTorchProfiler
    from fulmen.profilers.simple import SimpleProfiler as SimpleProfiler
    from fulmen.profilers.time_spent import TimeProfiler as TimeProfiler
    from fulmen.profilers.xla import XLAProfiler as XLAProfiler

__all__ = [
    "AdvancedProfiler",
    "PassThroughProfiler",
    "Profiler",
    "PyTorchProfiler",
    "SimpleProfiler",
    "TimeProfiler",
    "XLAProfiler",
]
__getattr__, __dir__ = at_first_use(
    __name__,
    {
        "AdvancedProfiler": "advanced",
        "PassThroughProfiler": "base",
        "Profiler": "profiler",
        "PyTorchProfiler": "pytorch",
        "SimpleProfiler": "simple",
        "TimeProfiler": "time_spent",
        "XLAProfiler": "xla",
    },
)
