"""What two runs have left on the disk: is it the same, and is it whole?"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

INDEX = "checkpoints.json"
#: a damaged file that was put aside is no part of what a run is compared by
ASIDE = ".damaged"


def differences(run: Path, reference: Path) -> list[str]:
    """What differs between two folders of runs, in words.

    Every file must be there in both and have the same bytes. Both runs were made under the same path, so that also the
    paths in the files are equal. The index may differ in the times at which files were written. The bytes of a
    checkpoint may differ where tensors share memory in one run and are equal in the other; what it holds may not.
    """
    ours, theirs = files_in(run), files_in(reference)
    found = [f"{name} is too much" for name in sorted(ours - theirs)]
    found += [f"{name} is missing" for name in sorted(theirs - ours)]
    for name in sorted(ours & theirs):
        one, other = run / name, reference / name
        if one.name == INDEX:
            found += [f"{name}: {each}" for each in differ(_comparable(one), _comparable(other))]
        elif one.read_bytes() != other.read_bytes():
            found += [f"{name}: {each}" for each in _of_contents(one, other)]
    return found + torn(run)


def files_in(folder: Path) -> set[str]:
    """The names of all files below ``folder`` that belong to the run."""
    return {
        os.fspath(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file() and ASIDE not in path.name
    }


def _comparable(index: Path) -> Any:
    """The index without times, and without what :func:`torn` compares with the files themselves."""
    content = json.loads(index.read_text())
    for entry in content["checkpoints"]:
        for name in ("written", "size", "checksum"):
            del entry[name]
    return content


def _of_contents(one: Path, other: Path) -> Iterator[str]:
    if one.suffix == ".ckpt":
        yield from differ(*(torch.load(path, weights_only=True) for path in (one, other)))
        return
    if one.suffix in (".csv", ".yaml", ".json"):
        yield from differ(one.read_text().splitlines(), other.read_text().splitlines())
    yield "its bytes differ"


def differ(one: Any, other: Any, place: str = "") -> Iterator[str]:
    """The places at which two values of plain data differ."""
    if type(one) is not type(other):
        yield f"{place} is {one!r:.200}, not {other!r:.200}"
    elif isinstance(one, dict):
        if [*one] != [*other]:
            yield f"{place} has the keys {[*one]}, not {[*other]}"
        for key in one.keys() & other.keys():
            yield from differ(one[key], other[key], f"{place}[{key!r}]")
    elif isinstance(one, (list, tuple)):
        if len(one) != len(other):
            yield f"{place} has {len(one)} items, not {len(other)}"
        for number, (each, its) in enumerate(zip(one, other)):
            yield from differ(each, its, f"{place}[{number}]")
    elif isinstance(one, Tensor):
        if one.dtype != other.dtype or one.shape != other.shape or not torch.equal(_bits(one), _bits(other)):
            yield f"{place} is {one!r:.200}, not {other!r:.200}"
    elif one != other and not (one != one and other != other):
        yield f"{place} is {one!r:.200}, not {other!r:.200}"


def _bits(tensor: Tensor) -> Tensor:
    return tensor.contiguous().flatten().view(torch.uint8) if tensor.is_floating_point() else tensor


def torn(run: Path) -> list[str]:
    """What is not whole in the folder of a run, whatever has just befallen its process, in words.

    Every checkpoint can be read, every index, and everything that an index names is there as it says; of the rows of
    metrics at most the last one is cut short.
    """
    found = []
    for path in sorted(run.rglob("*.ckpt")):
        try:
            torch.load(path, weights_only=True)
        except Exception as error:
            found.append(f"{path.name} cannot be read: {error}")
    for path in run.rglob(INDEX):
        try:
            entries = json.loads(path.read_text())["checkpoints"]
        except ValueError as error:
            found.append(f"{path.name} cannot be read: {error}")
            continue
        found += [f"the index names {entry['path']}, {why}" for entry in entries if (why := _unlike(path, entry))]
    for path in run.rglob("metrics.csv"):
        rows = [line.split(",") for line in path.read_text().split("\n")]
        found += [f"{path.name} has the row {row}" for row in rows[1:-1] if len(row) != len(rows[0])]
    return found


def _unlike(index: Path, entry: dict[str, Any]) -> str:
    path = index.parent / entry["path"]
    if not path.exists():
        return "which is not there"
    content = path.read_bytes()
    if (len(content), f"sha256:{hashlib.sha256(content).hexdigest()}") != (entry["size"], entry["checksum"]):
        return "whose size or checksum is another"
    return ""


def left_half_written(run: Path) -> list[str]:
    """The names of files that writers have left beside their targets."""
    return sorted(path.name for path in run.rglob("*.part"))


def progress_of(run: Path) -> dict[str, int]:
    """The training batches that each checkpoint has behind it."""
    paths = run.rglob("*.ckpt")
    return {str(path): torch.load(path, weights_only=True)["loops"]["progress"]["total_batches"] for path in paths}
