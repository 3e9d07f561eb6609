"""How the processes of a job are started."""

from fulmen.strategies.launchers.launcher import Launcher
from fulmen.strategies.launchers.subprocess_script import SubprocessScriptLauncher

__all__ = ["Launcher", "SubprocessScriptLauncher"]
