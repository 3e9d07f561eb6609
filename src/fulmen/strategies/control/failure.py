"""The first failure of a job: what is told about it, and how those are woken who wait for the process that failed."""

from __future__ import annotations

import json
import os
import socket
import stat
import sys
import traceback
from dataclasses import asdict, dataclass, replace

import torch.distributed


@dataclass(frozen=True, slots=True)
class Failure:
    """Why a job ends.

    Attributes:
        rank: of the process that failed.
        what: what it did, in a line: ``"failed: ValueError: ..."``, ``"is gone: ..."``.
        text: its traceback, or "".
        code: what the other processes exit with.
        site: the kind of exception, and where it was raised, or "".
    """

    rank: int
    what: str
    text: str = ""
    code: int = 1
    site: str = ""

    @classmethod
    def of(cls, rank: int, exception: BaseException) -> Failure:
        """What is to be told about ``exception``."""
        text = "".join(traceback.format_exception(exception))
        if isinstance(exception, SystemExit):
            code = exception.code if isinstance(exception.code, int) else 1
            return cls(rank, f"was ended ({type(exception).__name__}: {exception.code})", text, code or 1)
        lines = traceback.format_exception_only(exception)[0].strip().splitlines()
        frames = traceback.extract_tb(exception.__traceback__)
        site = f"{type(exception).__qualname__} at {frames[-1].filename}:{frames[-1].lineno}" if frames else ""
        return cls(rank, f"failed: {lines[0][:300]}", text, site=site)

    def is_like(self, other: Failure) -> bool:
        """Whether it is the same mistake, made by all alike."""
        return bool(self.site) and self.site == other.site

    def __str__(self) -> str:
        return f"rank {self.rank} {self.what}"

    def in_short(self) -> Failure:
        """Without the traceback."""
        return replace(self, text="")

    def to_text(self) -> str:
        """As it is put into the store."""
        return json.dumps(asdict(self))

    @classmethod
    def from_text(cls, text: str) -> Failure:
        """As it is read from there."""
        return cls(**json.loads(text))


class PeerFailure(RuntimeError):
    """Another process of the job has failed, so this one ends, too.

    Attributes:
        failure: what is known of it.
    """

    def __init__(self, failure: Failure) -> None:
        super().__init__(str(failure))
        self.failure = failure


_SIGNS = ("gloo", "NCCL", "Connection closed by peer", "Connection reset by peer", "Broken pipe", "c10d", "Socket")


def may_be_consequence(exception: BaseException) -> bool:
    """Whether ``exception`` looks as if another process was gone, so that it is hardly the first failure."""
    if isinstance(exception, (PeerFailure, torch.distributed.DistError, ConnectionError)):
        return True
    return isinstance(exception, RuntimeError) and any(sign in str(exception) for sign in _SIGNS)


def abort_process_groups(kept_ports: frozenset[int] = frozenset()) -> None:
    """Let all collectives of this process fail, those that wait and those to come. May be called from any thread.

    Args:
        kept_ports: of listening sockets of this process whose connections stay open, such as that of the store.
    """
    if not torch.distributed.is_available() or not torch.distributed.is_initialized():
        return
    groups = torch.distributed.distributed_c10d
    for group, (backend, _) in list(groups._world.pg_map.items()):
        if str(backend).lower() == "gloo":
            continue
        try:
            group.abort()
        except Exception as error:  # the next one may still be aborted
            print(f"a process group of {backend} cannot be aborted: {error}", file=sys.stderr)
    _break_incoming_connections(kept_ports)


def _break_incoming_connections(kept_ports: frozenset[int]) -> None:
    """End what others have connected to here.

    Gloo has no way to wake a thread that waits for another process, except that the connection breaks. One of each two
    processes has accepted the connection between them, so that it is enough that each breaks those that it accepted.
    """
    folder = "/proc/self/fd" if os.path.isdir("/proc/self/fd") else "/dev/fd"
    sockets = []
    try:
        names = os.listdir(folder)
    except OSError:
        return
    for name in names:
        try:
            if stat.S_ISSOCK(os.fstat(int(name)).st_mode):
                sockets.append(socket.socket(fileno=os.dup(int(name))))
        except OSError:
            continue
    internet = [one for one in sockets if one.family in (socket.AF_INET, socket.AF_INET6)]
    listening = {
        one.getsockname()[1] for one in internet if one.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN)
    } - kept_ports
    for one in internet:
        try:
            if one.getsockname()[1] in listening and one.getpeername():
                one.shutdown(socket.SHUT_RDWR)
        except OSError:  # it is not connected
            continue
    for one in sockets:
        one.close()
