"""The forms of ``Trainer(devices=...)``."""

from __future__ import annotations

from typing import Any

from fulmen.utilities.exceptions import MisconfigurationException


def numbers_of(devices: Any, count: int, kind: str) -> list[int]:
    """The numbers of the devices that are meant.

    Args:
        devices: a number of devices (-1: all), a list of their numbers, or either of them as text: ``"2"``, ``"0,1"``,
            ``"1,"``.
        count: how many there are.
        kind: their name, for messages.

    Raises:
        TypeError: it has none of the forms.
        MisconfigurationException: it names a device twice, or one that is not there, or none.
    """
    given = devices
    if isinstance(devices, str):
        try:
            devices = [int(part) for part in devices.split(",") if part.strip()] if "," in devices else int(devices)
        except ValueError:
            raise MisconfigurationException(_bad(given)) from None
    if isinstance(devices, (list, tuple)):
        chosen: list[Any] = list(devices)
    elif isinstance(devices, int) and not isinstance(devices, bool):
        if devices < -1:
            raise MisconfigurationException(_bad(given))
        chosen = list(range(count if devices == -1 else devices))
    else:
        raise TypeError(_bad(given))
    if not all(isinstance(number, int) and not isinstance(number, bool) for number in chosen):
        raise TypeError(_bad(given))
    if not chosen:
        raise MisconfigurationException(f"`devices={given!r}` leaves nothing to run on. Write `devices=1` or 'auto'.")
    if len(set(chosen)) != len(chosen):
        raise MisconfigurationException(f"`devices={given!r}` names a device twice.")
    if not all(0 <= number < count for number in chosen):
        raise MisconfigurationException(f"`devices={given!r}`: this machine has {count} of {kind!r}, numbered from 0.")
    return chosen


def processes_of(devices: Any) -> int:
    """The number of processes on the CPU.

    Raises:
        TypeError: it is no whole number, nor text that is one.
        MisconfigurationException: it is zero.
    """
    number = devices
    if isinstance(devices, str) and "," not in devices:
        try:
            number = int(devices)
        except ValueError:
            raise MisconfigurationException(_bad(devices)) from None
    if isinstance(number, bool) or not isinstance(number, (int, str, list, tuple)):
        raise TypeError(_bad(devices))
    if number == 0 or number == [] or number == ():
        raise MisconfigurationException(f"`devices={devices!r}` leaves nothing to run on. Write `devices=1` or 'auto'.")
    if not isinstance(number, int) or number < 0:
        raise TypeError(f"`devices={devices!r}`: on the CPU it is the number of processes, a whole number from 1.")
    return number


def _bad(devices: Any) -> str:
    return f"`devices={devices!r}`: must be 'auto', a number of devices, or a list of their numbers such as [0]."
