"""``fulmen replay``: repeat a step of a run that is over, in the debugger or with anomaly detection.

In a program or a notebook, :class:`Replay` does the same around the ``fit``.
"""

from __future__ import annotations

import os
import runpy
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from fulmen.trainer.past_run import PastRun
from fulmen.trainer.replay import Replay, say
from fulmen.utilities.exceptions import MisconfigurationException

__all__ = ["Replay", "replay_run"]


def replay_run(
    run: str,
    step: int | None = None,
    debugger: str | None = None,
    anomaly: bool = True,
    check: bool = False,
    fit: int = 1,
) -> Replay:
    """Run the program that made ``run`` again, in this process, up to ``step``; arguments as of :class:`Replay`.

    Raises:
        MisconfigurationException: also if no file says which program it was, or it cannot be run again.
    """
    replay = Replay(run, step, debugger, anomaly, check, fit)
    with replay, _program(replay.run, replay.step) as start:
        try:
            start()
        except SystemExit as end:
            if not replay.report:
                raise MisconfigurationException(
                    f"the program ended by itself (exit code {end.code}) before step {replay.step}."
                ) from end
    if replay.report and replay.recorded is None and replay.finding is not None and not replay.finding.is_bad:
        say(f"step {replay.step} is finite")
    return replay


@contextmanager
def _program(run: PastRun, step: int) -> Iterator[Callable[[], object]]:
    """What starts the program that made the run, with its arguments and in its directory."""
    argv, directory, module = (run.command.get(name) for name in ("argv", "directory", "module"))
    if not argv:
        raise _not_to_be_run(run, step, "no file in it says which program made it")
    script = Path(str(directory), argv[0])
    if not os.path.isdir(str(directory)):
        raise _not_to_be_run(run, step, f"it was made in {directory}, which is gone")
    if module is None and (not script.is_file() or script.name == "ipykernel_launcher.py"):
        raise _not_to_be_run(run, step, f"it was not made by a file that is still there ({argv[0] or 'a console'})")
    before = sys.argv, list(sys.path), os.getcwd()
    sys.argv = [str(script) if module is None else argv[0], *argv[1:]]
    sys.path[0] = str(directory) if module is not None else str(script.parent)
    os.chdir(str(directory))
    try:
        if module is not None:
            yield lambda: runpy.run_module(module, run_name="__main__", alter_sys=True)
        else:
            yield lambda: runpy.run_path(str(script), run_name="__main__")
    finally:
        sys.argv, sys.path[:] = before[0], before[1]
        os.chdir(before[2])


def _not_to_be_run(run: PastRun, step: int, why: str) -> MisconfigurationException:
    return MisconfigurationException(
        f"the run at {run.path} cannot be started again: {why}. Repeat the step in the program or notebook itself:\n\n"
        "    from fulmen.replay import Replay\n\n"
        f"    with Replay({str(run.path)!r}, step={step}):\n"
        "        trainer.fit(model, ...)  # as the run did\n"
    )
