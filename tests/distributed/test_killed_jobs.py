"""Jobs of several processes that are killed, in whole or in part, and started again by the same command."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

SCRIPT = Path(__file__).with_name("killed_job.py")
SECONDS_TO_END = 15.0


def started(folder: Path, strategy: str) -> subprocess.Popen[bytes]:
    """The job, with its own process group, and what it says in ``out.txt``."""
    with open(folder / "out.txt", "ab") as output:
        return subprocess.Popen(
            [sys.executable, "-W", "ignore", str(SCRIPT), str(folder), strategy],
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
            env={**os.environ, "OMP_NUM_THREADS": "1"},
        )


def processes_of(job: subprocess.Popen[bytes]) -> list[int]:
    """The processes of a job that live, rank 0 first."""
    found = subprocess.run(["ps", "-o", "pid=,stat=", "--sid", str(job.pid)], capture_output=True, text=True).stdout
    return [int(line.split()[0]) for line in found.splitlines() if "Z" not in line.split()[1]]


def rows_in(folder: Path) -> str:
    """The rows of the only metrics file."""
    (file,) = folder.glob("logs/version_*/metrics.csv")
    return file.read_text()


@pytest.fixture(scope="module")
def references(tmp_path_factory: pytest.TempPathFactory) -> dict[str, tuple[dict[str, torch.Tensor], str]]:
    """What undisturbed jobs leave, by strategy; made when it is asked for."""

    class Made(dict):  # type: ignore[type-arg]
        def __missing__(self, strategy: str) -> tuple[dict[str, torch.Tensor], str]:
            folder = tmp_path_factory.mktemp(strategy)
            assert started(folder, strategy).wait(120) == 0, (folder / "out.txt").read_text()
            self[strategy] = torch.load(folder / "weights.pt", weights_only=True), rows_in(folder)
            return self[strategy]

    return Made()


def has_begun(folder: Path, rows: int, job: subprocess.Popen[bytes]) -> None:
    """Wait until the job has logged so many rows, or has ended."""
    deadline = time.monotonic() + 90
    while time.monotonic() < deadline and job.poll() is None:
        files = list(folder.glob("logs/version_*/metrics.csv"))
        if files and len(files[0].read_text().splitlines()) > rows:
            return
        time.sleep(0.01)


def disturb(job: subprocess.Popen[bytes], how: str, chance: random.Random) -> None:
    """Kill or ask to end, after a moment."""
    time.sleep(chance.random() * 0.3)
    living = processes_of(job)
    if how == "all":
        os.killpg(job.pid, signal.SIGKILL)
        return
    number = {"SIGKILL": signal.SIGKILL, "SIGTERM": signal.SIGTERM}[how.split()[0]]
    if living:
        os.kill(living[0] if how.endswith("rank 0") else living[-1], number)


@pytest.mark.parametrize(
    ("strategy", "ways"),
    [
        ("ddp", ("SIGKILL rank 1",)),
        pytest.param("ddp", ("SIGKILL rank 0", "all", "SIGTERM rank 1"), marks=pytest.mark.slow),
        pytest.param("ddp", ("SIGTERM rank 0", "SIGKILL rank 1", "all", "SIGTERM rank 1"), marks=pytest.mark.slow),
        pytest.param("fsdp", ("SIGKILL rank 1", "all", "SIGTERM rank 1"), marks=pytest.mark.slow),
    ],
)
def test_killed_job_started_again_by_the_same_command_becomes_the_undisturbed_one(
    strategy: str,
    ways: tuple[str, ...],
    tmp_path: Path,
    references: dict[str, tuple[dict[str, torch.Tensor], str]],
) -> None:
    weights, rows = references[strategy]
    chance = random.Random(len(ways))
    for how in ways:
        seen = len(rows_in(tmp_path).splitlines()) if list(tmp_path.glob("logs/version_*/metrics.csv")) else 0
        job = started(tmp_path, strategy)
        has_begun(tmp_path, seen + 2, job)
        disturb(job, how, chance)
        try:
            code = job.wait(SECONDS_TO_END)
        except subprocess.TimeoutExpired:
            os.killpg(job.pid, signal.SIGKILL)
            raise AssertionError(f"hung after {how}:\n{(tmp_path / 'out.txt').read_text()}") from None
        time.sleep(0.2)
        deadline = time.monotonic() + SECONDS_TO_END
        while processes_of(job) and time.monotonic() < deadline:
            time.sleep(0.1)
        assert not processes_of(job), f"orphans after {how}:\n{(tmp_path / 'out.txt').read_text()}"
        assert code != 0, how
    assert started(tmp_path, strategy).wait(120) == 0, (tmp_path / "out.txt").read_text()
    assert rows_in(tmp_path) == rows
    found = torch.load(tmp_path / "weights.pt", weights_only=True)
    assert all(torch.equal(found[name], weights[name]) for name in weights)
