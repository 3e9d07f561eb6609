"""How the processes of a job are started. Each is imported when it is first used."""

from __future__ import annotations

from typing import TYPE_CHECKING

from fulmen.utilities.imports import at_first_use

if TYPE_CHECKING:
    from fulmen.strategies.launchers.launcher import Launcher as Launcher
    from fulmen.strategies.launchers.multiprocessing import MultiProcessingLauncher as MultiProcessingLauncher
    from fulmen.strategies.launchers.subprocess_script import SubprocessScriptLauncher as SubprocessScriptLauncher

__all__ = ["Launcher", "MultiProcessingLauncher", "SubprocessScriptLauncher"]
__getattr__, __dir__ = at_first_use(
    __name__,
    {
        "Launcher": "launcher",
        "MultiProcessingLauncher": "multiprocessing",
        "SubprocessScriptLauncher": "subprocess_script",
    },
)
