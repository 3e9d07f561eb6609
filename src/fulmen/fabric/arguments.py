"""Fabric's arguments from the environment, where ``fulmen run`` has left them."""

from __future__ import annotations

import os
from typing import Any, Literal

#: what ``Fabric(precision=...)`` may be, besides a type such as ``torch.bfloat16``
PrecisionName = Literal[
    64,
    32,
    16,
    "64",
    "32",
    "16",
    "bf16",
    "64-true",
    "32-true",
    "16-true",
    "16-mixed",
    "bf16-true",
    "bf16-mixed",
    "transformer-engine",
    "transformer-engine-float16",
]

#: in the environment of a program that ``fulmen run`` has started
STARTED = "LT_CLI_USED"


def is_started_by_command() -> bool:
    """Whether ``fulmen run`` has started this process, as one of all that there are."""
    return os.environ.get(STARTED) == "1"


def from_environment(written: dict[str, Any], defaults: dict[str, Any]) -> dict[str, Any]:
    """The arguments, with those that were not written from the variables ``LT_<ARGUMENT>``.

    Args:
        written: all arguments as they came.
        defaults: what they are where nobody writes them.

    Raises:
        ValueError: ``fulmen run`` was told another value than is written in the program.
    """
    found = dict(written)
    for name, default in defaults.items():
        text = os.environ.get(f"LT_{name.upper()}")
        if not text:
            continue
        if written[name] == default and type(written[name]) is type(default):
            found[name] = int(text) if name == "num_nodes" and text.isdecimal() else text
        elif is_started_by_command() and str(written[name]) != text:
            raise ValueError(
                f"`Fabric({name}={written[name]!r})`, but the command line says `--{name.replace('_', '-')}={text}`. "
                "Leave one of them out."
            )
    return found
