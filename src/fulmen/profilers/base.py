"""The profiler that measures nothing."""

from __future__ import annotations

from fulmen.profilers.profiler import Profiler


class PassThroughProfiler(Profiler):
    """Stands in where no profiler was asked for."""

    def start(self, action_name: str) -> None:
        pass

    def stop(self, action_name: str) -> None:
        pass
