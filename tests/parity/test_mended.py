"""The numbers of ``benchmarks/mended.py``, which a person can compute, are those of this framework."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"


@pytest.mark.slow
def test_small_runs_give_what_a_person_computes(monkeypatch):
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    from mended import CASES  # type: ignore[import-not-found]

    done = subprocess.run(
        [sys.executable, str(BENCHMARKS / "mended.py"), "--json"], capture_output=True, text=True, timeout=300
    )
    assert done.returncode == 0, done.stderr
    found = {case: results["fulmen"] for case, results in json.loads(done.stdout).items()}
    assert found == {case: by_hand for case, (_, by_hand, _) in CASES.items()}
