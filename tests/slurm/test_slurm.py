"""A real SLURM on this machine: a job of two tasks is pre-empted, comes back and ends as if nothing had happened."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

CANNOT = 77  # what the script ends with where SLURM cannot run


@pytest.mark.slow
def test_preempted_job_is_requeued_and_ends_with_the_numbers_of_a_whole_one(tmp_path: Path) -> None:
    script = Path(__file__).with_name("run.sh")
    own = {name: value for name, value in os.environ.items() if not name.startswith("SLURM_")}
    done = subprocess.run(
        [str(script), str(tmp_path), sys.executable],
        capture_output=True,
        text=True,
        timeout=900,
        env={**own, "OMP_NUM_THREADS": "1"},
    )
    if done.returncode == CANNOT:
        pytest.skip(done.stdout.splitlines()[-1])
    assert done.returncode == 0, done.stdout + done.stderr
    whole, preempted = (_results(tmp_path / name) for name in ("whole", "preempted"))
    assert [result["restarts"] for result in whole] == [0, 0]
    assert [result["restarts"] for result in preempted] == [1, 1]
    for result in (*whole, *preempted):
        assert (result["world"], result["steps"]) == (2, 20)
        assert result["weights"] == whole[0]["weights"]
    output = (tmp_path / "preempted.txt").read_text()
    assert "SIGUSR1: ended in epoch" in output
    assert "put back into the queue: `scontrol requeue" in output
    assert "the job was started again: going on from its newest checkpoint" in output


def _results(folder: Path) -> list[Any]:
    return [json.loads((folder / f"rank{rank}.json").read_text()) for rank in range(2)]
