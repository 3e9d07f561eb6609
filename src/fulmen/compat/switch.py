"""The switch in the environment: ``FULMEN_COMPAT=1`` installs the aliases in every Python of an environment.

Python reads the ``.pth`` files of an environment when it starts, and runs those of their lines that begin with
``import``.
"""

from __future__ import annotations

import sysconfig
from pathlib import Path

NAME = "fulmen_compat.pth"

#: it costs one look at the environment where the switch is off, and nothing is done where Fulmen is not installed
_LINE = (
    'import os; os.environ.get("FULMEN_COMPAT", "0") in ("", "0") or '
    '__import__("importlib.util").util.find_spec("fulmen") and '
    '__import__("fulmen.compat.aliases").compat.aliases.install()\n'
)


def place() -> Path:
    """Where the file of the switch is, or would be."""
    return Path(sysconfig.get_path("purelib")) / NAME


def add() -> Path:
    """Put the switch into the environment of this Python.

    Returns:
        The file that was written.

    Raises:
        OSError: the environment cannot be written to.
    """
    path = place()
    path.write_text(_LINE)
    return path


def remove() -> Path | None:
    """Take the switch out of the environment of this Python.

    Returns:
        The file that was removed; None if there was none.
    """
    path = place()
    if not path.exists():
        return None
    path.unlink()
    return path
