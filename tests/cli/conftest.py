from __future__ import annotations

import pytest


@pytest.fixture(autouse=True)
def program_without_arguments(monkeypatch: pytest.MonkeyPatch, tmp_path) -> None:
    """A program that was called with nothing, in a folder of its own, and seeds that do not outlive the test."""
    monkeypatch.setattr("sys.argv", ["program.py"])
    monkeypatch.chdir(tmp_path)
    for name in ("PL_GLOBAL_SEED", "PL_SEED_WORKERS"):
        monkeypatch.setenv(name, "0")
        monkeypatch.delenv(name)
