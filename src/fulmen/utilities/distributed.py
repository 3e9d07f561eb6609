"""Questions about the processes of a job that need no strategy."""

from __future__ import annotations

import os
import time
import uuid
from pathlib import Path
from typing import TYPE_CHECKING

import torch
import torch.distributed

from fulmen.utilities.cloud_io import is_remote, local_path

if TYPE_CHECKING:
    from fulmen.strategies.strategy import Strategy
    from fulmen.utilities.types import _PATH

if torch.distributed.is_available():
    from torch.distributed import ReduceOp as ReduceOp


def distributed_is_initialized() -> bool:
    """Whether this process belongs to a process group of ``torch.distributed``."""
    return torch.distributed.is_available() and torch.distributed.is_initialized()


_distributed_is_initialized = distributed_is_initialized


def is_shared_filesystem(strategy: Strategy, path: _PATH | None = None, timeout: int = 3) -> bool:
    """Whether all processes of the job see the same files at ``path``; to be called on all of them.

    Args:
        strategy: knows the other processes.
        path: a folder or file that exists; None: the working directory. A URL counts as shared.
        timeout: how many seconds to wait for the file of rank 0 to appear; network file systems may be slow to tell.

    Raises:
        FileNotFoundError: there is no ``path`` on some process, and that is the answer: on this one.
    """
    path = path if path is not None else Path.cwd()
    if is_remote(path) or strategy.world_size == 1:
        return True
    folder = Path(local_path(path)).resolve()
    everywhere = strategy.reduce_boolean_decision(folder.exists())
    if not everywhere:
        raise FileNotFoundError(f"is_shared_filesystem: {folder} does not exist on every process. Make it first.")
    folder = folder if folder.is_dir() else folder.parent

    marker = folder / strategy.broadcast(f".shared-{uuid.uuid4().hex}")
    if strategy.is_global_zero:
        marker.touch()
        _sync(folder)
    strategy.barrier()
    found = _appears(marker, timeout)
    shared = strategy.reduce_boolean_decision(found)  # and nobody looks any more
    if strategy.is_global_zero:
        marker.unlink(missing_ok=True)
    return shared


def _appears(file: Path, timeout: float) -> bool:
    deadline = time.monotonic() + timeout
    while not file.exists():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.1)
    return True


def _sync(folder: Path) -> None:
    """Have the file system tell others what is new in ``folder``, where it can be asked to."""
    if os.name == "nt":
        return
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
