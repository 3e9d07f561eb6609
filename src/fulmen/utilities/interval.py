"""Spans of a run as texts: ``"500step"``, ``"2epoch"``, ``"30min"``."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, Literal

from fulmen.utilities.exceptions import MisconfigurationException

Unit = Literal["step", "epoch", "batch", "second"]

_COUNTED: dict[str, Unit] = {
    "step": "step", "steps": "step",
    "epoch": "epoch", "epochs": "epoch",
    "batch": "batch", "batches": "batch",
}  # fmt: skip
_SECONDS: dict[str, int] = {
    "s": 1, "sec": 1, "second": 1, "seconds": 1,
    "min": 60, "minute": 60, "minutes": 60,
    "h": 3600, "hour": 3600, "hours": 3600,
    "d": 86400, "day": 86400, "days": 86400,
}  # fmt: skip
_DURATIONS = '"10s", "30min", "2h", "1d", "DD:HH:MM:SS", a timedelta, or a dict of its arguments such as {"hours": 2}'


@dataclass(frozen=True, slots=True)
class Interval:
    """``count`` of ``unit``: a whole number of optimizer steps, epochs or batches, or any number of seconds."""

    count: int | float
    unit: Unit

    def __str__(self) -> str:
        return f"{self.count:g}s" if self.unit == "second" else f"{self.count}{self.unit}"


def parse_interval(value: str | timedelta | Mapping[str, Any] | Interval) -> Interval:
    """Read an interval such as ``"500step"``, ``"2epoch"``, ``"100batch"``, ``"30min"`` or ``timedelta(hours=2)``.

    Raises:
        MisconfigurationException: ``value`` is none of these, or not positive.
    """
    if isinstance(value, Interval):
        return value
    number, unit = _number_and_unit(value)
    if unit in _COUNTED:
        if number != int(number):
            raise MisconfigurationException(f"The interval {value!r} is not a whole number of {_COUNTED[unit]}s.")
        interval = Interval(int(number), _COUNTED[unit])
    else:
        try:
            interval = Interval(parse_duration(value).total_seconds(), "second")  # type: ignore[arg-type]
        except MisconfigurationException as error:
            raise MisconfigurationException(
                f'{value!r} is not an interval. Write "500step", "2epoch", "100batch", or a time: {_DURATIONS}.'
            ) from error
    if interval.count <= 0:
        raise MisconfigurationException(f"The interval {value!r} is not positive: nothing can happen that often.")
    return interval


def parse_duration(value: str | timedelta | Mapping[str, Any]) -> timedelta:
    """Read a length of time: ``"10s"``, ``"30min"``, ``"1.5h"``, ``"1d"``, ``"DD:HH:MM:SS"``, or what timedelta takes.

    Raises:
        MisconfigurationException: ``value`` is none of these, or negative.
    """
    duration = _duration(value)
    if duration is None:
        raise MisconfigurationException(f"{value!r} is not a length of time. Write {_DURATIONS}.")
    if duration < timedelta(0):
        raise MisconfigurationException(f"The length of time {value!r} is negative.")
    return duration


def _duration(value: Any) -> timedelta | None:
    if isinstance(value, timedelta):
        return value
    try:
        if isinstance(value, Mapping):
            return timedelta(**value)
        number, unit = _number_and_unit(value)
        if unit in _SECONDS:
            return timedelta(seconds=number * _SECONDS[unit])
        clock = re.fullmatch(r"(\d+):(\d\d):(\d\d):(\d\d)", value.strip()) if isinstance(value, str) else None
        if clock:
            days, hours, minutes, seconds = map(int, clock.groups())
            return timedelta(days=days, hours=hours, minutes=minutes, seconds=seconds)
    except (TypeError, OverflowError):
        pass  # a dict with other keys; more than the 2.7 million years that a timedelta holds
    return None


def _number_and_unit(value: Any) -> tuple[float, str]:
    """``"30 min"`` -> ``(30.0, "min")``; the unit is empty if ``value`` has another form."""
    match = re.fullmatch(r"(\d+(?:\.\d+)?)\s*([a-z]+)", value.strip().lower()) if isinstance(value, str) else None
    return (float(match[1]), match[2]) if match else (0.0, "")
