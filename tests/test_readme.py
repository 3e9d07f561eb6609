from __future__ import annotations

import re
import runpy
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).parents[1]
README = (REPOSITORY / "README.md").read_text(encoding="utf-8")


def test_readme_example_runs_and_is_short(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    [example] = re.findall(r"```python\n(.*?)```", README, flags=re.DOTALL)
    assert len(example.splitlines()) <= 32
    monkeypatch.chdir(tmp_path)
    (tmp_path / "example.py").write_text(example)
    names = runpy.run_path("example.py")
    assert names["trainer"].global_step > 0


def test_readme_tree_names_every_file_of_the_package() -> None:
    tree = README.partition("```text\nsrc/fulmen/")[2].partition("```")[0]
    names = set(re.findall(r"[\w.]+", tree))
    missing = [
        path.relative_to(REPOSITORY).as_posix()
        for path in sorted((REPOSITORY / "src" / "fulmen").rglob("*.py"))
        if path.stem not in names and path.name not in names and path.name != "__init__.py"
    ]
    assert not missing


def test_readme_tree_names_no_file_that_is_gone() -> None:
    tree = README.partition("```text\nsrc/fulmen/")[2].partition("```")[0]
    there = {path.name for path in (REPOSITORY / "src" / "fulmen").rglob("*")}
    assert set(re.findall(r"\b\w+\.(?:py|gz|typed)\b", tree)) <= there
