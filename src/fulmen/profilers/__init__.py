"""Where the time of a run goes. Each is imported when it is first used."""

from __future__ import annotations

from typing import TYPE_CHECKING

from fulmen.utilities.imports import at_first_use

if TYPE_CHECKING:
    from fulmen.profilers.advanced import AdvancedProfiler as AdvancedProfiler
    from fulmen.profilers.base import PassThroughProfiler as PassThroughProfiler
    from fulmen.profilers.profiler import Profiler as Profiler
    from fulmen.profilers.simple import SimpleProfiler as SimpleProfiler

__all__ = ["AdvancedProfiler", "PassThroughProfiler", "Profiler", "SimpleProfiler"]
__getattr__, __dir__ = at_first_use(
    __name__,
    {
        "AdvancedProfiler": "advanced",
        "PassThroughProfiler": "base",
        "Profiler": "profiler",
        "SimpleProfiler": "simple",
    },
)
