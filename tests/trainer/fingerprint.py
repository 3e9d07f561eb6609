"""What tells whether anything in a directory was touched."""

from __future__ import annotations

import hashlib
from pathlib import Path


def fingerprint(directory: Path) -> dict[str, tuple[int, str]]:
    """Names, contents and times of everything in ``directory``."""
    return {
        str(path.relative_to(directory)): (
            path.lstat().st_mtime_ns,
            hashlib.sha256(path.read_bytes()).hexdigest() if path.is_file() else "",
        )
        for path in [directory, *directory.rglob("*")]
    }
