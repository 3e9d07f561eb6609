"""The aliases within the process of the tests, and Python programs in processes of their own."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

import fulmen
from fulmen import compat

SOURCE = str(Path(fulmen.__file__).parents[1])


@pytest.fixture
def aliases() -> Iterator[None]:
    compat.install(children=False)
    yield
    compat.uninstall()


@pytest.fixture
def python(tmp_path: Path) -> Callable[..., subprocess.CompletedProcess[str]]:
    """Run Python in ``tmp_path``; its arguments, and ``environment`` beside that of the tests."""

    def run(*arguments: str, environment: dict[str, str] | None = None) -> subprocess.CompletedProcess[str]:
        variables: dict[str, Any] = {"PYTHONPATH": SOURCE, "OMP_NUM_THREADS": "1", **(environment or {})}
        inherited = {name: value for name, value in os.environ.items() if name != "FULMEN_COMPAT"}
        return subprocess.run(
            [sys.executable, *arguments],
            cwd=tmp_path,
            env={**inherited, **variables},
            capture_output=True,
            text=True,
            timeout=120,
        )

    return run
