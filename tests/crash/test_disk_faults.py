"""A disk that is full or may not be written to ends a run with an error, and loses nothing: afterwards it goes on."""

from __future__ import annotations

import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.crash.comparison import files_in, left_half_written, progress_of, torn
from tests.crash.harness import Subject
from tests.crash.moments import BALLAST, BEFORE, Moment
from tests.crash.warm import Ended


def mount(*arguments: object) -> bool:
    tool = "umount" if arguments[0] == "-u" else "mount"
    command = [tool, *(str(each) for each in arguments if each != "-u")]
    return subprocess.run(command, capture_output=True).returncode == 0


@pytest.fixture
def disk(request, subject: Subject) -> Iterator[Path]:
    """The folder of all runs on a small file system of its own."""
    if "background" in request.fixturenames:
        subject = request.getfixturevalue("background")
    folder = subject.folder / "disk"
    subject.clear()
    if not shutil.which("mount") or not mount("-t", "tmpfs", "-o", "size=2m", "tmpfs", folder):
        pytest.skip("this user may not mount a small file system to fill")
    try:
        subject.clear()
        yield folder
    finally:
        assert mount("-u", folder)


def assert_fails_and_keeps_everything(subject: Subject, moment: Moment, error: str, name: str) -> Ended:
    """Let the fault come, and see that the run ends with an error about the file, and that what was there is there."""
    before = subject.folder / BEFORE
    shutil.rmtree(before, ignore_errors=True)

    ended = subject.start(moment)

    assert before.exists(), "the moment did not come"
    assert ended.code == 1, ended.output
    assert error in last_error(ended)
    assert name in last_error(ended)
    assert str(subject.run_folder) in last_error(ended)
    assert_is_short_and_says_what_to_do(ended, progress_of(subject.run_folder))
    assert torn(subject.run_folder) == []
    assert progress_of(before).keys() <= {str(before / path) for path in files_in(subject.run_folder)}
    for path in (before / each for each in files_in(before) if not each.endswith(".part")):
        now = (subject.run_folder / path.relative_to(before)).read_bytes()
        if path.suffix == ".csv":
            assert whole_lines(now)[: len(whole_lines(path.read_bytes()))] == whole_lines(path.read_bytes())
        elif path.suffix == ".ckpt":
            assert now == path.read_bytes()
    return ended


def assert_is_short_and_says_what_to_do(ended: Ended, progress: dict[str, int]) -> None:
    """What a user sees: one short traceback, whose last line is the last of all."""
    lines = ended.output.rstrip().splitlines()
    of_script = max(place for place, line in enumerate(lines) if re.search(r"script\.py", line))
    assert ended.output.count("Traceback") == 1
    assert len(lines) - of_script < 16, ended.output
    assert lines[-1] == last_error(ended)
    assert "then run the same command again. " in lines[-1]
    named = re.search(r"the newest checkpoint is (\S+)\. ", lines[-1])
    assert (progress[named[1]] if named else 0) == max(progress.values(), default=0)


def whole_lines(content: bytes) -> list[bytes]:
    return content.splitlines(keepends=True)


def last_error(ended: Ended) -> str:
    """The last line of the traceback, which users look at first."""
    return next(line for line in reversed(ended.output.splitlines()) if re.match(r"\w*Error: ", line))


slow = pytest.mark.slow
FULL = [
    ("write checkpoint", 1500, ".ckpt"),
    ("open index", 6, "checkpoints.json"),
    ("open csv", 5, "metrics.csv"),
    pytest.param("open checkpoint", 5, ".ckpt", marks=slow),
    pytest.param("rename checkpoint", 4, "checkpoints.json", marks=slow),
]


@pytest.mark.parametrize(("kind", "number", "name"), FULL)
def test_full_disk_ends_the_run_and_loses_nothing(subject, disk, kind, number, name):
    assert_fails_and_keeps_everything(subject, Moment("fill", kind, number), "No space left on device", name)
    assert left_half_written(subject.run_folder) == []

    (disk / BALLAST).unlink()
    subject.finish()


@pytest.mark.parametrize(("kind", "number"), [("write checkpoint", 1500), pytest.param("open index", 6, marks=slow)])
def test_full_disk_ends_the_run_that_writes_in_the_background(background, disk, kind, number):
    moment = Moment("fill", kind, number)
    assert_fails_and_keeps_everything(background, moment, "No space left on device", "")  # two threads may fail
    assert left_half_written(background.run_folder) == []

    (disk / BALLAST).unlink()
    background.finish()


@pytest.mark.parametrize("number", [4, pytest.param(8, marks=slow)])
def test_file_that_may_not_grow_ends_the_run_and_loses_nothing(subject, number):
    subject.clear()
    moment = Moment("limit", "open checkpoint", number, limit=20_000)
    assert_fails_and_keeps_everything(subject, moment, "File too large", ".ckpt")
    assert left_half_written(subject.run_folder) == []

    subject.finish()


@pytest.mark.parametrize("number", [8, pytest.param(20, marks=slow)])
def test_row_of_metrics_that_does_not_fit_is_not_written_in_part(subject, number):
    subject.clear()
    assert_fails_and_keeps_everything(
        subject, Moment("limit", "open csv", number, limit=5), "File too large", "metrics.csv"
    )
    (rows,) = subject.run_folder.rglob("metrics.csv")
    assert rows.read_text().endswith("\n")

    subject.finish()


@pytest.mark.parametrize(
    ("kind", "number"),
    [
        ("open checkpoint", 4),
        *(pytest.param(*each, marks=slow) for each in (("open index", 7), ("remove checkpoint", 2))),
    ],
)
def test_folder_that_may_not_be_written_to_ends_the_run_and_loses_nothing(subject, kind, number):
    subject.clear()
    name = ".ckpt" if kind.endswith("checkpoint") else "checkpoints.json"
    assert_fails_and_keeps_everything(subject, Moment("deny", kind, number), "Permission denied", name)

    for folder in (subject.run_folder, *subject.run_folder.rglob("*")):
        if folder.is_dir():
            folder.chmod(0o755)
    subject.finish()


@pytest.mark.parametrize(("kind", "number"), [("open checkpoint", 4), pytest.param("open index", 7, marks=slow)])
def test_file_system_that_becomes_read_only_ends_the_run_and_loses_nothing(subject, disk, kind, number):
    name = ".ckpt" if kind.endswith("checkpoint") else "checkpoints.json"
    assert_fails_and_keeps_everything(subject, Moment("read-only", kind, number), "Read-only file system", name)

    assert mount("-o", "remount,rw", disk)
    subject.finish()


def test_file_is_on_the_disk_before_it_takes_its_place_and_its_name_is_before_anything_else_is_done(subject):
    of_files = [event for event in subject.record if event.split()[0] in ("synced", "rename", "renamed", "remove")]
    for kind in ("checkpoint", "index", "hparams"):
        places = [place for place, event in enumerate(of_files) if event == f"rename {kind}"]
        assert places
        for place in places:
            around = [f"synced {kind}", f"rename {kind}", f"renamed {kind}", "synced folder"]
            assert of_files[place - 1 : place + 3] == around
