"""What the program that runs packages on Lightning and on Fulmen makes of its list and of reports."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from . import run
from .run import HERE, Package, counts, main, outcomes, packages, worse

_REPORT = """
<testsuites><testsuite>
  <testcase classname="tests.a" name="passes"/>
  <testcase classname="tests.a" name="fails"><failure message="assert 1 == 2&#10;more">long</failure></testcase>
  <testcase classname="tests.a" name="cannot_begin"><error message="no fixture">long</error></testcase>
  <testcase classname="tests.a" name="skips"><skipped message="no GPU"/></testcase>
</testsuite></testsuites>
"""


def test_report_is_counted_by_outcome() -> None:
    found = dict(outcomes(_REPORT))
    assert found["tests.a::fails"] == ("failed", "assert 1 == 2")
    assert found["tests.a::cannot_begin"] == ("failed", "no fixture")
    assert counts(found) == "1 passed, 2 failed, 1 skipped"


def test_fulmen_is_worse_only_where_lightning_passes() -> None:
    lightning = {"a": ("passed", ""), "b": ("passed", ""), "c": ("failed", "x"), "d": ("passed", "")}
    fulmen = {"a": ("passed", ""), "b": ("failed", "y"), "c": ("failed", "x"), "e": ("passed", "")}
    assert worse(lightning, fulmen) == {"b": "failed: y", "d": "not run: "}


def test_each_listed_package_says_what_is_run() -> None:
    for package in packages((HERE / "packages.toml").read_text(encoding="utf-8")):
        assert package.tests or (HERE / "quick_starts" / package.quick_start).is_file(), package.name
        assert package.prepare is None or (HERE / "quick_starts" / package.prepare).is_file(), package.name


def test_key_that_the_list_cannot_have_is_an_error() -> None:
    with pytest.raises(TypeError, match="test"):
        packages('[lightly]\nversion = "1.6.0"\ntest = ["tests"]\n')


def test_list_is_printed(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--list", "--only", "chemprop"]) == 0
    assert capsys.readouterr().out.endswith("quick_starts/run_chemprop.py\n")


@pytest.mark.parametrize(
    ("known", "code"), [({}, 1), ({"run_toy::test_it": "Lightning is installed there"}, 0)], ids=["new", "known"]
)
def test_a_test_that_fails_on_fulmen_alone_ends_the_program_with_one_unless_its_reason_is_known(
    known: dict[str, str],
    code: int,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    toy = Package("toy", "1.0", differs=known)
    monkeypatch.setattr(run, "ENVIRONMENTS", tmp_path / "environments")
    monkeypatch.setattr(run, "HERE", tmp_path)
    monkeypatch.setattr(run, "LIMITS", ())  # its plugin is in the environments of packages alone
    (tmp_path / "quick_starts").mkdir()
    asks = "import sys\n\ndef test_it():\n    assert 'fulmen.compat' not in sys.modules\n"
    (tmp_path / "quick_starts" / toy.quick_start).write_text(asks)
    python = toy.place / "venv" / "bin" / "python"
    python.parent.mkdir(parents=True)
    python.write_text(f'#!/bin/sh\nexec "{sys.executable}" "$@"\n')
    python.chmod(0o755)
    installed = {"python": sys.version, "requirements": run.requirements_of(toy)}
    (toy.place / "installed.json").write_text(run.json.dumps(installed))

    assert run.compare(toy, timeout=100) is not bool(code)
    printed = capsys.readouterr().out
    assert "Lightning 1 passed, 0 failed, 0 skipped" in printed
    assert "Fulmen    0 passed, 1 failed, 0 skipped" in printed
