"""``fulmen checkpoint diff``."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from fulmen.checkpoints.folders import Folders
from fulmen.checkpoints.output import brief, kind_of, printable, title
from fulmen.checkpoints.reading import load

#: the sections that a checkpoint is compared in, and their keys; all else is under "other"
_SECTIONS = {
    "metadata": ("epoch", "global_step", "pytorch-lightning_version", "fulmen_version"),
    "hyperparameters": (
        "hparams_name",
        "hyper_parameters",
        "hparams_kinds",
        "datamodule_hparams_name",
        "datamodule_hyper_parameters",
        "datamodule_hparams_kinds",
    ),
    "weights": ("state_dict",),
    "optimizers": ("optimizer_states",),
    "schedulers": ("lr_schedulers",),
    "callbacks": ("callbacks",),
    "loops": ("loops",),
    "resume": ("resume",),
}
#: differences that are shown of each section
_MOST_LINES = 12
_OF_SECTION = {key: section for section, keys in _SECTIONS.items() for key in keys}


@dataclass(frozen=True, slots=True)
class Difference:
    """What differs at a place."""

    section: str
    place: str
    what: str


def diff(a: str, b: str, tolerance: float = 0.0, weights_only: bool = False, all_of_them: bool = False) -> int:
    """Print what differs between two checkpoints.

    Args:
        tolerance: numbers whose difference is not more than this are equal.
        weights_only: compare the weights alone.
        all_of_them: print every difference, not only the first ones of each section.

    Returns:
        The exit code: 0 if they are equal, 1 if they differ.

    Raises:
        CannotDo: one cannot be read.
    """
    one, other = load(a), load(b)
    folders = Folders.of_runs((one, other), (a, b))
    found = differences(one, other, tolerance, weights_only, folders)
    if not found:
        only = f" ({_passed(folders)})" if folders.passed else ""
        print(f"equal{f' within {tolerance:g}' if tolerance else ''}{only}")
        return 0
    print(f"A: {a}\nB: {b}")
    for section in (*_SECTIONS, "other"):
        lines = [difference for difference in found if difference.section == section]
        if lines:
            title(f"{section}: {len(lines)} {'difference' if len(lines) == 1 else 'differences'}")
            shown = lines if all_of_them else lines[:_MOST_LINES]
            for difference in shown:
                print(f"  {printable(difference.place)}: {difference.what}")
            if len(shown) < len(lines):
                print(f"  and {len(lines) - len(shown)} more; `--all` shows them")
    if folders.passed:
        print(f"\nnot counted: {_passed(folders)}")
    return 1


def _passed(folders: Folders) -> str:
    count = folders.passed
    return f"{count} {'path differs' if count == 1 else 'paths differ'} only by the folder of the run"


def differences(
    one: dict[str, Any],
    other: dict[str, Any],
    tolerance: float = 0.0,
    weights_only: bool = False,
    folders: Folders | None = None,
) -> list[Difference]:
    """What differs between two checkpoints, in the order of their keys.

    Args:
        folders: the folders of their runs: paths that differ by them alone do not count.
    """
    measure = _Measure(tolerance, folders or Folders())
    keys = ["state_dict"] if weights_only else [*one, *(key for key in other if key not in one)]
    found = []
    for key in keys:
        section = _OF_SECTION.get(key, "other")
        if key not in one or key not in other:
            found.append(Difference(section, str(key), f"only in {'A' if key in one else 'B'}"))
            continue
        pair = [_in_order(key, checkpoint[key]) for checkpoint in (one, other)]
        place = "" if _SECTIONS.get(section) == (key,) else str(key)  # the section's title says it
        found += [Difference(section, *difference) for difference in _compare(*pair, place, measure)]
    return found


def _in_order(key: str, value: Any) -> Any:
    """The loops with what goes on from them first, and callbacks by the name of their class where that is enough."""
    if not isinstance(value, dict):
        return value
    if key == "loops":
        return {name: value[name] for name in sorted(value, key=lambda name: name != "progress")}
    if key == "callbacks":
        names = [str(name).partition("{")[0] for name in value]
        return {
            short if names.count(short) == 1 else str(name): state for short, (name, state) in zip(names, value.items())
        }
    return value


@dataclass(frozen=True, slots=True)
class _Measure:
    """What counts as equal."""

    tolerance: float
    folders: Folders


def _compare(one: Any, other: Any, place: str, measure: _Measure) -> Iterator[tuple[str, str]]:
    """The places where two values differ, and how."""
    if isinstance(one, Tensor) and isinstance(other, Tensor):
        what = _difference_of_tensors(one, other, measure.tolerance)
        if what is not None:
            yield place, what
    elif isinstance(one, dict) and isinstance(other, dict):
        same = measure.folders.same_keys(one, other)
        taken = set(same.values())
        for key in [*one, *(key for key in other if key not in one and key not in taken)]:
            there = same.get(key, key)
            name = key if there == key else str(key).replace(os.sep, "/").rpartition("/")[2]
            here = f"{place}.{name}" if place else str(name)
            if key not in one or there not in other:
                side, value = ("A", one[key]) if key in one else ("B", other[key])
                yield here, f"only in {side} ({brief(value)})"
            else:
                yield from _compare(one[key], other[there], here, measure)
    elif isinstance(one, (list, tuple)) and isinstance(other, (list, tuple)):
        if len(one) != len(other) or (_is_simple(one) and _is_simple(other)):
            if not _same_rows(one, other, measure):
                lengths = "" if len(one) == len(other) else f" ({len(one)} and {len(other)} values)"
                yield place, f"{brief(one)} -> {brief(other)}{lengths}"
            return
        for number, (first, second) in enumerate(zip(one, other)):
            yield from _compare(first, second, f"{place}.{number}" if place else str(number), measure)
    elif not _same(one, other, measure):
        yield place, f"{brief(one)} -> {brief(other)}"


def _is_simple(values: Any) -> bool:
    return all(value is None or isinstance(value, (bool, int, float, str, bytes)) for value in values)


def _same_rows(one: Any, other: Any, measure: _Measure) -> bool:
    return (
        type(one) is type(other)
        and len(one) == len(other)
        and all(not any(_compare(first, second, "", measure)) for first, second in zip(one, other))
    )


def _same(one: Any, other: Any, measure: _Measure) -> bool:
    if isinstance(one, str) and isinstance(other, str):
        return one == other or measure.folders.differ_alone(one, other)
    if isinstance(one, (int, float)) and isinstance(other, (int, float)) and type(one) is type(other):
        return one == other or (one != one and other != other) or abs(one - other) <= measure.tolerance
    return type(one) is type(other) and bool(one == other)


def _difference_of_tensors(one: Tensor, other: Tensor, tolerance: float) -> str | None:
    if one.shape != other.shape:
        return f"of shape {tuple(one.shape)} -> {tuple(other.shape)}"
    if one.dtype != other.dtype:
        return f"of {kind_of(one)} -> {kind_of(other)}{_values_too(one, other)}"
    if one.is_floating_point() or one.is_complex():
        wide = torch.complex128 if one.is_complex() else torch.float64
        first, second = (tensor.detach().to_dense().to(wide) for tensor in (one, other))
        equal = (first == second) | (first.isnan() & second.isnan())
    else:  # long integers are not exact as floating-point numbers
        first, second = (tensor.to_dense() for tensor in (one, other))
        equal = first == second
        first, second = first.to(torch.float64), second.to(torch.float64)
    if equal.all():
        return None
    distance = (first - second).abs().masked_fill(equal, 0)
    differ = ~equal & ~(distance <= tolerance) if tolerance else ~equal
    count = int(differ.sum())
    if not count:
        return None
    if one.numel() == 1:
        return f"{brief(one)} -> {brief(other)}"
    finite = distance[differ & distance.isfinite()]
    by = f", by at most {finite.max().item():.3g}" if len(finite) else ""
    odd = count - len(finite)
    some = f" ({odd:,} not finite in one)" if odd else ""
    return f"{count:,} of {one.numel():,} elements differ{by}{some}"


def _values_too(one: Tensor, other: Tensor) -> str:
    """Whether tensors of different types hold the same numbers."""
    same = torch.equal(one.detach().to(torch.complex128), other.detach().to(torch.complex128))
    return ", with the same values" if same else ""
