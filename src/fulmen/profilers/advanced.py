"""Which functions each action spent its time in."""

from __future__ import annotations

import cProfile
import io
import os
import pstats
import tempfile
from pathlib import Path

from fulmen.profilers.profiler import Profiler
from fulmen.utilities.cloud_io import get_filesystem, is_remote, make_dirs, parent_path


class AdvancedProfiler(Profiler):
    """Run Python's own profiler (``cProfile``) over every action and report each one's functions.

    One action is measured at a time: an action that starts within another pauses the outer one, so each function counts
    for the innermost action alone.

    Args:
        dirpath: where the report is written; None for the trainer's ``log_dir``.
        filename: the report's name; None prints it.
        line_count_restriction: how much of each action's table to report: a number of lines (int) or a share of them
            between 0 and 1 (float).
        dump_stats: whether to write ``<stage>[-<filename>]-<action>.prof`` per action too, to open with ``snakeviz`` or
            ``pstats``.

    Attributes:
        profiled_actions: the ``cProfile.Profile`` of each action, of this run.
    """

    def __init__(
        self,
        dirpath: str | Path | None = None,
        filename: str | None = None,
        line_count_restriction: float = 1.0,
        dump_stats: bool = False,
    ) -> None:
        super().__init__(dirpath, filename)
        self.line_count_restriction = line_count_restriction
        self.dump_stats = dump_stats
        self.profiled_actions: dict[str, cProfile.Profile] = {}
        self._running: list[str] = []
        self._reported = False

    def setup(self, stage: str, local_rank: int | None = None, log_dir: str | None = None) -> None:
        super().setup(stage, local_rank, log_dir)
        if self._reported:  # what an earlier run has reported belongs to it
            self.profiled_actions.clear()
            self._reported = False

    def start(self, action_name: str) -> None:
        if self._running:
            self.profiled_actions[self._running[-1]].disable()
        self._running.append(action_name)
        self.profiled_actions.setdefault(action_name, cProfile.Profile()).enable()

    def stop(self, action_name: str) -> None:
        if action_name not in self._running:
            raise ValueError(f"The action {action_name!r} was stopped but never started: call start({action_name!r}).")
        self.profiled_actions[self._running[-1]].disable()
        self._running.reverse()  # the latest of that name, wherever it stands
        self._running.remove(action_name)
        self._running.reverse()
        if self._running:
            self.profiled_actions[self._running[-1]].enable()

    def describe(self) -> None:
        super().describe()
        self._reported = True

    def teardown(self, stage: str | None) -> None:
        if self._running:  # an exception leaves actions open
            self.profiled_actions[self._running[-1]].disable()
            self._running.clear()

    def summary(self) -> str:
        if self._running:
            self.profiled_actions[self._running[-1]].disable()
        parts = [f"\n{(self._stage or '').upper()} Profiler Report".rstrip() + "\n"]
        for action_name, profile in self.profiled_actions.items():
            if self.dump_stats:
                self._dump(action_name, profile)
            text = io.StringIO()
            stats = pstats.Stats(profile, stream=text)
            stats.strip_dirs().sort_stats("cumulative").print_stats(self.line_count_restriction)
            parts.append(f"Profile stats for: {action_name}\n{text.getvalue().strip()}\n")
        if self._running:
            self.profiled_actions[self._running[-1]].enable()
        return "\n".join(parts)

    def _dump(self, action_name: str, profile: cProfile.Profile) -> None:
        path = self._path(".prof", action_name)
        make_dirs(parent_path(path))
        if not is_remote(path):
            profile.dump_stats(path)
            return
        with tempfile.TemporaryDirectory() as directory:
            beside = os.path.join(directory, "action.prof")
            profile.dump_stats(beside)
            with get_filesystem(path).open(path, "wb") as file:
                file.write(Path(beside).read_bytes())  # type: ignore[arg-type]
