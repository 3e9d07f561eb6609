"""A search in the process of the test."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from fulmen.__main__ import main

HERE = Path(__file__).parent


@pytest.fixture
def search_here(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Callable[..., tuple[int, str]]:
    """``fulmen search WORDS`` in ``tmp_path``: its exit code and what it prints. The trials are processes."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(HERE)
    monkeypatch.setenv("PYTHONPATH", str(HERE), prepend=":")

    def search(*words: str) -> tuple[int, str]:
        code = main(["search", *words])
        printed = capsys.readouterr()
        return code, printed.out + printed.err

    return search
