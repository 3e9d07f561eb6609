from __future__ import annotations

import csv
from pathlib import Path

from tests.distributed.processes import run
from tests.examples.load import load_example


def accuracy(folder: str, *words: str) -> float:
    example = load_example("fabric_loop")
    return example.main(example.parse_arguments(["--accelerator", "cpu", "--dir", folder, *words]))


def test_the_loop_learns_writes_its_curve_and_goes_on(tmp_path: Path) -> None:
    assert accuracy(str(tmp_path), "--epochs", "1") > 0.7
    assert accuracy(str(tmp_path), "--epochs", "2", "--precision", "bf16-mixed") > 0.8
    folders = sorted(tmp_path.glob("lightning_logs/version_*"))
    with (folders[1] / "metrics.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [int(row["step"]) for row in rows] == [94]  # of the second epoch


def test_two_processes_come_to_the_same(tmp_path: Path) -> None:
    one, other = run(2, accuracy, str(tmp_path), "--strategy", "ddp", "--devices", "2", "--epochs", "2")
    assert one == other
    assert one > 0.8
