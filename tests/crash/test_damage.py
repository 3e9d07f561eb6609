"""A damaged checkpoint is found out, the one before it is used, and the run becomes the run that nobody disturbed."""

from __future__ import annotations

import json
import random
import re
import shutil
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from tests.crash.comparison import differences, progress_of
from tests.crash.harness import Subject
from tests.crash.moments import Moment


@pytest.fixture(scope="module")
def killed(subject: Subject) -> Path:
    """A run that was killed in its third epoch."""
    subject.clear()
    assert subject.start(Moment("kill", "open csv", 19)).was_killed
    folder = subject.folder / "killed"
    shutil.rmtree(folder, ignore_errors=True)
    shutil.move(subject.run_folder, folder)
    assert len(set(progress_of(folder).values())) >= 3
    return folder


@pytest.fixture
def checkpoints(subject: Subject, killed: Path) -> list[Path]:
    """The checkpoints of the killed run, the newest first, to be damaged."""
    subject.clear()
    shutil.copytree(killed, subject.run_folder, dirs_exist_ok=True)
    index = json.loads(index_of(subject).read_text())
    written = {entry["path"]: entry["written"] for entry in index["checkpoints"]}
    batches = {Path(path): number for path, number in progress_of(subject.run_folder).items()}
    return sorted(batches, key=lambda path: (batches[path], written[path.name]), reverse=True)


def index_of(subject: Subject) -> Path:
    return next(subject.run_folder.rglob("checkpoints.json"))


def goes_on_from(subject: Subject) -> tuple[Path, str]:
    """Start the run again; what it goes on from, and the warning that it gives."""
    there = {path: path.read_bytes() for path in subject.run_folder.rglob("*.ckpt")}
    ended = subject.start()
    assert ended.code == 0, ended.output
    assert differences(subject.run_folder, subject.reference) == []
    match = re.search(r"going on from (.*)", ended.output)
    warnings = [text for text in re.split(r"(?=^.*Warning: )", ended.output, flags=re.M) if "Warning: " in text]
    assert len(warnings) <= 1, ended.output
    kept = [path.read_bytes() for path in subject.run_folder.rglob("*.damaged*")]
    for path in there:  # what is damaged is put aside
        if str(path) in ended.output and (match is None or str(path) != match[1]):
            assert there[path] in kept
    return Path(match[1]) if match else Path(), warnings[0] if warnings else ""


def bits(path: Path, where: Callable[[int], int], number: int = 1) -> None:
    """Turn over some bits of a file, each in the byte that ``where`` gives for the size of the file."""
    content, chance = bytearray(path.read_bytes()), random.Random(path.name)
    for _ in range(number):
        content[where(len(content))] ^= 1 << chance.randrange(8)
    path.write_bytes(content)


def cut(path: Path, size: Callable[[int], int]) -> None:
    content = path.read_bytes()
    path.write_bytes(content[: size(len(content))])


def of_member(path: Path, name: str) -> int:
    """A byte in the middle of what an archive holds under a name that ends in ``name``."""
    with zipfile.ZipFile(path) as archive:
        info = next(info for info in archive.infolist() if info.filename.endswith(name) and info.file_size > 50)
        return info.header_offset + 100 + info.file_size // 2


DAMAGES: dict[str, Callable[[Path], Any]] = {
    "empty": lambda path: cut(path, lambda size: 0),
    "half": lambda path: cut(path, lambda size: size // 2),
    "last byte missing": lambda path: cut(path, lambda size: size - 1),
    "bit of the header": lambda path: bits(path, lambda size: 2),
    "bit of the pickle": lambda path: bits(path, lambda size: of_member(path, "data.pkl")),
    "bit of a tensor": lambda path: bits(path, lambda size: of_member(path, "data/0")),
    "bit of the directory": lambda path: bits(path, lambda size: size - 200),
    "bit of the end": lambda path: bits(path, lambda size: size - 10),
    "zeros": lambda path: path.write_bytes(bytes(path.stat().st_size)),
    "longer": lambda path: path.write_bytes(path.read_bytes() + b"\0"),
}


QUICK = ("half", "bit of a tensor", "bit of the directory", "missing", "silent about the newest file")


def most_are_slow(names: Any) -> list[Any]:
    return [pytest.param(name, marks=[] if name in QUICK else pytest.mark.slow) for name in names]


@pytest.mark.parametrize("damage", most_are_slow(DAMAGES))
def test_damaged_newest_checkpoint_is_named_and_the_one_before_it_is_used(subject, checkpoints, damage):
    DAMAGES[damage](checkpoints[0])

    path, warning = goes_on_from(subject)

    assert path == checkpoints[1]
    assert str(checkpoints[0]) in warning
    assert str(checkpoints[1]) in warning


def test_two_damaged_checkpoints_are_named_and_the_third_is_used(subject, checkpoints):
    DAMAGES["half"](checkpoints[0])
    DAMAGES["bit of a tensor"](checkpoints[1])

    path, warning = goes_on_from(subject)

    assert path == checkpoints[2]
    assert all(str(path) in warning for path in checkpoints[:2])


def test_run_whose_checkpoints_are_all_damaged_begins_anew_and_says_so(subject, checkpoints):
    for path in checkpoints:
        DAMAGES["half"](path)

    path, warning = goes_on_from(subject)

    assert path == Path()
    assert all(str(path) in warning for path in checkpoints)


def without_newest(index: Path, checkpoints: list[Path]) -> None:
    content = json.loads(index.read_text())
    content["checkpoints"] = [each for each in content["checkpoints"] if each["path"] != checkpoints[0].name]
    index.write_text(json.dumps(content))


INDEX_DAMAGES: dict[str, Callable[[Path, list[Path]], Any]] = {
    "missing": lambda index, _: index.unlink(),
    "empty": lambda index, _: index.write_text(""),
    "half": lambda index, _: cut(index, lambda size: size // 2),
    "zeros": lambda index, _: index.write_bytes(bytes(100)),
    "of another kind": lambda index, _: index.write_text("[1, 2]"),
    "silent about the newest file": without_newest,
}


@pytest.mark.parametrize("damage", most_are_slow(INDEX_DAMAGES))
def test_damaged_index_is_made_anew_from_the_files(subject, checkpoints, damage):
    INDEX_DAMAGES[damage](index_of(subject), checkpoints)

    path, warning = goes_on_from(subject)

    assert path == checkpoints[0]
    assert ("checkpoints.json" in warning) == (damage not in ("missing", "silent about the newest file"))


def test_file_that_the_index_names_and_that_is_gone_is_named_and_the_one_before_it_is_used(subject, checkpoints):
    checkpoints[0].unlink()

    path, warning = goes_on_from(subject)

    assert path == checkpoints[1]
    assert str(checkpoints[0]) in warning


def test_damaged_index_and_damaged_newest_checkpoint_together_are_found_out(subject, checkpoints):
    index_of(subject).write_text("{")
    DAMAGES["bit of a tensor"](checkpoints[0])

    path, _ = goes_on_from(subject)

    assert path == checkpoints[1]


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(25))
def test_random_damage_of_the_newest_checkpoint_is_found_out(subject, checkpoints, seed):
    chance = random.Random(seed)
    if chance.random() < 0.5:
        bits(checkpoints[0], chance.randrange, chance.choice([1, 1, 2, 20]))
    else:
        cut(checkpoints[0], chance.randrange)

    path, warning = goes_on_from(subject)

    assert path == checkpoints[1]
    assert str(checkpoints[0]) in warning
