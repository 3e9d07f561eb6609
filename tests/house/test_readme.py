"""The README keeps its word: its example runs, and its tree shows what is there."""

from __future__ import annotations

import re
import runpy
from pathlib import Path

import pytest

from .readme_tree import README, readme_with, tree


def test_readme_example_is_short_and_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    [example] = re.findall(r"```python\n(.*?)```", README.read_text(encoding="utf-8"), flags=re.DOTALL)
    assert len(example.splitlines()) <= 32
    monkeypatch.chdir(tmp_path)
    Path("example.py").write_text(example, encoding="utf-8")
    names = runpy.run_path("example.py")
    assert names["trainer"].callback_metrics["val_acc"] > 0.9
    assert list(tmp_path.rglob("*.ckpt"))


def test_readme_tree_is_the_tree_of_the_package() -> None:
    assert README.read_text(encoding="utf-8") == readme_with(tree()), "run `make lists`"


def test_readme_tree_gives_every_file_a_purpose() -> None:
    without = [line.strip() for line in tree().splitlines() if len(line.split()) == 1]
    assert not without, "begin these files with a docstring that says what they are for"
