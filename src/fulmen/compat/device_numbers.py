"""Functions of Lightning's ``utilities.device_parser`` that programs call: the forms of ``devices``, one by one."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from fulmen.utilities.exceptions import MisconfigurationException


def check_data_type(device_ids: Any) -> None:
    """See that ``devices`` is a number, a text or a list of numbers.

    Raises:
        TypeError: it is something else.
    """
    several = isinstance(device_ids, (list, tuple))
    for one in device_ids if several else [device_ids]:
        if isinstance(one, bool) or not isinstance(one, int if several else (int, str)):
            raise TypeError(
                f"`devices={device_ids!r}`: must be a number of devices, a text, or a list of numbers such as [0]."
            )


def check_unique(device_ids: Sequence[int]) -> None:
    """See that no device is named twice.

    Raises:
        MisconfigurationException: one is.
    """
    if len(set(device_ids)) != len(device_ids):
        raise MisconfigurationException(f"`devices={device_ids!r}` names a device twice.")


def numbers_in_text(devices: Any) -> Any:
    """``"0,1"`` as ``[0, 1]``, ``"2"`` as ``2``, ``"-1"`` as ``-1``; anything that is no text as it is."""
    if not isinstance(devices, str):
        return devices
    if "," in devices:
        return [int(part) for part in devices.split(",") if part.strip()]
    return int(devices.strip())
