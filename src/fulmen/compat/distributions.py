"""What ``importlib.metadata`` says of Lightning while the aliases are installed."""

from __future__ import annotations

import os
import re
from importlib.metadata import Distribution
from pathlib import Path
from typing import Any

from fulmen import __version__
from fulmen.compat.table import VERSION

ALIASED = ("lightning", "lightning-fabric", "pytorch-lightning")


class AliasDistribution(Distribution):
    """Lightning as far as a check of its version goes; its summary says what it is."""

    def __init__(self, name: str) -> None:
        self._text = (
            f"Metadata-Version: 2.1\nName: {name}\nVersion: {VERSION}\n"
            f"Summary: Import aliases of Fulmen {__version__}, which offers the names of this version\n"
        )

    def read_text(self, filename: Any) -> str | None:
        return self._text if filename == "METADATA" else None

    def locate_file(self, path: str | os.PathLike[str]) -> Any:
        return Path(__file__).parent / path


def normalized(name: str) -> str:
    """The name of a distribution as package indexes compare it."""
    return re.sub(r"[-_.]+", "-", name).lower()
