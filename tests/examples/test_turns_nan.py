"""The example that turns NaN is stopped, and ``fulmen replay`` finds why: as a user types it."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from fingerprint import fingerprint

from fulmen.callbacks.nonfinite import Record

from .load import EXAMPLES, load_example

RUN = "turns_nan_runs/version_0"


def python(*arguments: str, directory: Path, typed: str = "") -> subprocess.CompletedProcess[str]:
    environment = {name: value for name, value in os.environ.items() if name != "PL_GLOBAL_SEED"}
    return subprocess.run(
        [sys.executable, *arguments],
        cwd=directory,
        env=environment,
        input=typed,
        capture_output=True,
        text=True,
        timeout=120,
    )


@pytest.fixture(scope="module")
def stopped(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """The folder in which the example was run, and what it ended with."""
    directory = tmp_path_factory.mktemp("example")
    ended = python(str(EXAMPLES / "turns_nan.py"), directory=directory)
    assert ended.returncode == 1
    return directory, ended.stderr.splitlines()[-1]


def test_turns_nan_is_stopped_with_the_command_that_repeats_the_step(stopped: tuple[Path, str]) -> None:
    directory, last_line = stopped
    record = Record.read(str(directory / RUN))
    assert record is not None
    [found] = record.findings
    assert found.indices is not None
    assert load_example("turns_nan").SAME in found.indices
    assert "the gradient of `place.0.weight`" in last_line
    assert last_line.endswith(f"Repeat it by `fulmen replay {RUN} --step {found.step}`.")


def test_turns_nan_is_replayed_to_its_step_sample_and_operation(stopped: tuple[Path, str]) -> None:
    directory, _ = stopped
    before = fingerprint(directory)
    replay = python("-m", "fulmen", "replay", RUN, directory=directory)
    assert replay.returncode == 0, replay.stderr
    for part in (
        "nan in that of `place.0.weight`",
        "sample 1234 of the batch",
        "return (here - there).square().sum(dim=1).sqrt()",
        "the same: loss and gradients are equal bit for bit",
    ):
        assert part in replay.stdout
    assert fingerprint(directory) == before


def test_turns_nan_can_be_looked_at_in_pdb(stopped: tuple[Path, str]) -> None:
    directory, _ = stopped
    record = Record.read(str(directory / RUN))
    assert record is not None
    [found] = record.findings
    typed = "p 'at', trainer.global_step, batch_idx\ns\ns\nn\np 'sizes', pairs.shape\nc\n"
    replay = python("-m", "fulmen", "replay", RUN, "--debugger", "pdb", directory=directory, typed=typed)
    assert replay.returncode == 0, replay.stderr
    assert f"('at', {found.step - 1}, {found.batch})" in replay.stdout
    assert "('sizes', torch.Size([25, 4]))" in replay.stdout
    assert "equal bit for bit" in replay.stdout
