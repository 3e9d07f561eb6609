"""A real mpirun on this machine: its processes train as those that the Trainer starts."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

CANNOT = 77  # what the script ends with where MPI cannot run


@pytest.mark.slow
def test_two_processes_of_mpirun_train_with_the_numbers_of_ddp(tmp_path: Path) -> None:
    done = subprocess.run(
        [str(Path(__file__).with_name("run.sh")), str(tmp_path), sys.executable],
        capture_output=True,
        text=True,
        timeout=900,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )
    if done.returncode == CANNOT:
        pytest.skip(done.stdout.splitlines()[-1])
    assert done.returncode == 0, done.stdout + done.stderr
    by_mpi, by_ddp = (_results(tmp_path / name) for name in ("mpi", "ddp"))
    assert [result["environment"] for result in by_mpi] == ["MPIEnvironment"] * 2
    assert [result["ranks"] for result in by_mpi] == [[0, 0, 0, 2], [1, 1, 0, 2]]
    for result in (*by_mpi, *by_ddp):
        assert result["steps"] == 19
        assert result["weights"] == by_ddp[0]["weights"]
    assert [result["metrics"] for result in by_mpi] == [result["metrics"] for result in by_ddp]
    assert by_mpi[0]["metrics"]["val_acc"] > 0.9
    wrong = "mpirun has started 3 processes on 1 machine, and the Trainer was asked for `devices=2` on `num_nodes=1`."
    assert wrong in (tmp_path / "three.txt").read_text()


def _results(folder: Path) -> list[Any]:
    return [json.loads((folder / f"rank{rank}.json").read_text()) for rank in range(2)]
