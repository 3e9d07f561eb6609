"""Where the time of a run goes."""

from fulmen.profilers.advanced import AdvancedProfiler
from fulmen.profilers.base import PassThroughProfiler
from fulmen.profilers.profiler import Profiler
from fulmen.profilers.simple import SimpleProfiler

__all__ = ["AdvancedProfiler", "PassThroughProfiler", "Profiler", "SimpleProfiler"]
