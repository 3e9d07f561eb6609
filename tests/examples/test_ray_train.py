from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from .load import EXAMPLES


@pytest.mark.slow
@pytest.mark.xdist_group("ray")
@pytest.mark.parametrize("arguments", ["--workers 2 --epochs 3", "--search 3 --epochs 2"], ids=["train", "search"])
def test_ray_train_example_reads_digits(tmp_path: Path, arguments: str) -> None:
    quiet = {"RAY_USAGE_STATS_ENABLED": "0", "RAY_AUTH_MODE": "disabled", "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [sys.executable, str(EXAMPLES / "ray_train.py"), "--dir", tmp_path, *arguments.split()],
        env={**os.environ, **quiet},
        capture_output=True,
        text=True,
        timeout=240,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    found = re.search(r"learning rate [0-9.e-]+: ([0-9.]+)% of the images", done.stdout)
    assert found is not None, done.stdout
    assert float(found[1]) > 80
