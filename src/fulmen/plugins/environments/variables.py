"""Environment variables that say who a process is, read so that a wrong one is named."""

from __future__ import annotations

import os

from fulmen.utilities.exceptions import MisconfigurationException
from fulmen.utilities.program import is_worker_of_ray

_STARTED_BY = {
    "SLURM_": "`srun` in a job of SLURM",
    "JSM_": "`jsrun` in a job of LSF",
    "LSB_": "`jsrun` in a job of LSF",
}


def whole(name: str, default: int | None = None, least: int = 0) -> int:
    """The whole number in the environment variable ``name``.

    Args:
        name: of the variable.
        default: where it is not set or empty. None: it must be set.
        least: the smallest number that makes sense.

    Raises:
        MisconfigurationException: it is not set, or no such number.
    """
    given = os.environ.get(name, "").strip()
    if not given:
        if default is not None:
            return default
        raise MisconfigurationException(
            f"the environment variable {name} is not set, which whoever starts the processes of a job must do: "
            f"{advice(name)}"
        )
    if not given.isdecimal() or int(given) < least:
        raise MisconfigurationException(
            f"the environment variable {name}={given!r} must be a whole number from {least}: {advice(name)}"
        )
    return int(given)


def port(name: str, default: int | None = None) -> int:
    """The port in the environment variable ``name``.

    Raises:
        MisconfigurationException: it is not set and there is no default, or it is no port.
    """
    number = whole(name, default, 1)
    if number > 65535:
        raise MisconfigurationException(f"the environment variable {name}={number}: a port is at most 65535.")
    return number


def rank_of(rank: str, size: str, count: int) -> int:
    """The number in the variable ``rank``, which must be below ``count``, the number in the variable ``size``.

    Raises:
        MisconfigurationException: it is not.
    """
    number = whole(rank)
    if number >= count:
        raise MisconfigurationException(
            f"the environment variables contradict each other: {rank}={number}, and {size} is {count}; ranks count "
            f"from 0. So {advice(rank)}"
        )
    return number


def started_here() -> int:
    """How many processes torchrun or Ray has started on this machine, this one among them; 1 if it was neither."""
    return whole("LOCAL_WORLD_SIZE", 1, 1) if "TORCHELASTIC_RUN_ID" in os.environ or is_worker_of_ray() else 1


def advice(name: str) -> str:
    """What to do about a wrong variable."""
    if name.startswith("FULMEN_"):
        return "write another value, or unset it."
    scheduler = next((how for prefix, how in _STARTED_BY.items() if name.startswith(prefix)), None)
    if scheduler is not None:
        return f"start the program by {scheduler}."
    return (
        f"start the program by `torchrun --nproc-per-node=N program.py` or by your scheduler, or `unset {name}` and "
        "let the Trainer start the processes."
    )
