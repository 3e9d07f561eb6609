"""A new process of a job: ``python -m fulmen.strategies.launchers.worker FOLDER``."""

from __future__ import annotations

import pickle
import sys
from pathlib import Path
from typing import Any


def main(folder: str) -> int:
    """Read what is to be done from ``folder``, do it, and leave the answer there; returns the exit code."""
    sys.path[:] = pickle.loads(Path(folder, "path").read_bytes())
    from fulmen.strategies.launchers.multiprocessing import work

    def read() -> Any:
        return pickle.loads(Path(folder, "work").read_bytes())

    return work(folder, read)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
