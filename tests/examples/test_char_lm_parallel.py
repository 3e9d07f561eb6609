from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from .load import EXAMPLES

FEW_STEPS = "--max-steps 6 --val-every 6 --context 64 --width 16 --layers 2 --batch-size 64".split()


def bits(strategy: str, folder: Path) -> float:
    done = subprocess.run(
        [sys.executable, str(EXAMPLES / "char_lm_parallel.py"), "--strategy", strategy, "--dir", folder, *FEW_STEPS],
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    found = re.search(rf"{strategy}: ([0-9.]+) bits", done.stdout)
    assert found is not None, done.stdout
    return float(found[1])


@pytest.mark.slow
def test_char_lm_parallel_of_two_processes_comes_to_the_same_by_ddp_and_by_fsdp(tmp_path: Path) -> None:
    by_ddp = bits("ddp", tmp_path)
    assert bits("fsdp", tmp_path) == pytest.approx(by_ddp, abs=2e-4)
    assert bits("fsdp_sharded", tmp_path) == pytest.approx(by_ddp, abs=2e-4)
    assert list((tmp_path / "fsdp_sharded").rglob("*.ckpt/.metadata"))


@pytest.mark.slow
def test_char_lm_parallel_runs_by_fsdp(tmp_path: Path) -> None:
    assert 4 < bits("fsdp", tmp_path) < 7
