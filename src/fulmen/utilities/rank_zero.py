"""Functions that speak once per job instead of once per process."""

from __future__ import annotations

import contextlib
import logging
import os
import sys
import warnings
from collections.abc import Callable
from functools import wraps
from typing import Any, TypeVar, overload

from fulmen.utilities.warnings import LightningDeprecationWarning

T = TypeVar("T")
Function = TypeVar("Function", bound=Callable[..., Any])

log = logging.getLogger("fulmen")

#: where the frames are that a user need not see: this package, and the context managers that it enters
_INSIDE = (os.path.dirname(os.path.dirname(os.path.abspath(__file__))) + os.sep, contextlib.__file__)


def rank_from_environment() -> int | None:
    """The global rank that a launcher left in the environment, or None when there was no launcher."""
    for name in ("RANK", "LOCAL_RANK", "SLURM_PROCID", "JSM_NAMESPACE_RANK"):
        value = os.environ.get(name, "")
        if value.isdigit():
            return int(value)
    return None


@overload
def rank_zero_only(fn: Function) -> Function: ...
@overload
def rank_zero_only(fn: Callable[..., T], default: T) -> Callable[..., T]: ...
def rank_zero_only(fn: Callable[..., Any], default: Any = None) -> Callable[..., Any]:
    """Decorate ``fn`` so that it runs on global rank 0 alone; on the other ranks the call returns ``default``.

    The rank is the attribute ``rank_zero_only.rank``; it starts from the launcher's environment and strategies set it.
    """

    @wraps(fn)
    def on_rank_zero(*args: Any, **kwargs: Any) -> Any:
        return fn(*args, **kwargs) if rank_zero_only.rank == 0 else default  # type: ignore[attr-defined]

    return on_rank_zero


rank_zero_only.rank = rank_from_environment() or 0  # type: ignore[attr-defined]


@rank_zero_only
def rank_zero_warn(
    message: str | Warning, category: type[Warning] = UserWarning, stacklevel: int | None = None
) -> None:
    """Warn on rank 0. ``stacklevel`` counts frames from here; None names the first line outside of Fulmen."""
    warnings.warn(message, category=category, stacklevel=_first_line_outside() if stacklevel is None else stacklevel)


def _first_line_outside() -> int:
    """The stack level, seen from :func:`rank_zero_warn`, of the line of the user's that led here."""
    frame, level = sys._getframe(1), 1
    while frame.f_back is not None and frame.f_code.co_filename.startswith(_INSIDE):
        frame, level = frame.f_back, level + 1
    return level


@rank_zero_only
def rank_zero_deprecation(message: str | Warning, stacklevel: int = 5) -> None:
    """Give a deprecation warning on rank 0."""
    warnings.warn(message, category=LightningDeprecationWarning, stacklevel=stacklevel)


@rank_zero_only
def rank_zero_info(message: object, *args: object) -> None:
    """Log ``message % args`` at INFO on rank 0, to the logger named ``fulmen``.

    Where logging is not set up at all, the message goes to stderr, as Python does with warnings. To silence these
    messages write ``logging.getLogger("fulmen").setLevel(logging.WARNING)``.
    """
    if log.hasHandlers():
        log.info(message, *args)
    elif log.level <= logging.INFO:  # NOTSET is 0
        print(str(message) % args if args else message, file=sys.stderr)


@rank_zero_only
def rank_zero_debug(message: object, *args: object) -> None:
    """Log ``message % args`` at DEBUG on rank 0, to the logger named ``fulmen``."""
    log.debug(message, *args)
