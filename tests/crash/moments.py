"""Lets something befall a process at a chosen moment of its work with files: it is killed, or its disk is full.

This is installed in the process of the training script before the script begins. It counts what the process does with
files below one folder, and acts at the n-th of the things it was told to wait for. Nothing else changes for the script.
"""

from __future__ import annotations

import builtins
import ctypes
import io
import json
import os
import resource
import shutil
import signal
import subprocess
import sys
import threading
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

#: a file beside the folder of the run that takes the room on its disk
BALLAST = "ballast"
#: a folder beside the disk with a copy of what the run had written when the fault came
BEFORE = "before"


@dataclass(frozen=True, slots=True)
class Moment:
    """When something happens, and what.

    Attributes:
        action: ``"kill"``: SIGKILL; ``"fill"``: the disk is full from then on; ``"deny"``: no folder may be written to
            by this user; ``"read-only"``: the file system is; ``"limit"``: no file may be larger than the one that this
            is about, plus ``limit`` bytes.
        kind: what is counted, of :data:`KINDS` and the kinds of files, as in ``"write checkpoint"``. A ``write`` that
            is to be killed has half of its data on the disk. None: anything.
        number: which one, from 1.
        limit: bytes; small, so that a part of what is written still fits.
    """

    action: str
    kind: str | None = None
    number: int = 1
    limit: int = 20_000


#: what a process does with a file; some before, some after it is done
KINDS = (
    *("open", "write", "fsync", "synced", "rename", "renamed", "remove", "removed", "truncate", "truncated"),
    *("mkdir", "made"),
)


def what_it_is(path: str) -> str:
    """What kind of file ``path`` is, also under the name that it has while it is written."""
    name = os.path.basename(path)
    for part, kind in (("checkpoints.json", "index"), (".csv", "csv"), (".yaml", "hparams"), (".ckpt", "checkpoint")):
        if part in name:
            return kind
    return "folder" if os.path.isdir(path) else "other"


@dataclass(slots=True)
class Watch:
    """Counts what happens below ``root``, and acts."""

    root: str
    moment: Moment | None
    record: list[str] | None = None
    counts: dict[str | None, int] = field(default_factory=dict)
    lock: Any = field(default_factory=threading.RLock)
    acts: bool = False
    pid: int = field(default_factory=os.getpid)  #: loader workers are not counted

    def sees(self, path: Any) -> bool:
        """Whether ``path`` is below the folder that is watched, and the process is the one that trains."""
        if not isinstance(path, (str, os.PathLike)) or os.getpid() != self.pid:
            return False
        return os.path.abspath(os.fspath(path)).startswith(self.root + os.sep)  # type: ignore[operator]

    def note(self, kind: str, path: Any, before_kill: Callable[[], None] | None = None) -> None:
        """Something is about to happen to ``path``, or has happened.

        Args:
            before_kill: what is done first if the process is killed now.
        """
        with self.lock:
            if self.acts:
                return
            name = f"{kind} {what_it_is(os.fspath(path))}"
            if self.record is not None:
                self.record.append(name)
            self.counts[name] = self.counts.get(name, 0) + 1
            self.counts[None] = self.counts.get(None, 0) + 1
            moment = self.moment
            if moment is None or moment.kind not in (None, name) or self.counts[moment.kind] != moment.number:
                return
            self.acts = True
            if moment.action == "kill" and before_kill is not None:
                before_kill()
            act(self.root, moment, path)


def act(root: str, moment: Moment, path: str) -> None:
    """Let happen what ``moment`` says. Before a fault of the disk, what is there is copied to :data:`BEFORE`."""
    if moment.action != "kill":
        shutil.copytree(root, Path(root).parents[1] / BEFORE)
    if moment.action == "kill":
        os.kill(os.getpid(), signal.SIGKILL)
        signal.pause()
    elif moment.action == "fill":
        fill(Path(root).parent / BALLAST)
    elif moment.action == "deny":
        obey_permissions()
        for folder, _, _ in os.walk(root):
            os.chmod(folder, 0o555)
    elif moment.action == "read-only":
        subprocess.run(["mount", "-o", "remount,ro", os.path.dirname(root)], check=True)
    elif moment.action == "limit":
        size = os.path.getsize(path) if os.path.exists(path) else 0
        resource.setrlimit(resource.RLIMIT_FSIZE, (size + moment.limit, resource.RLIM_INFINITY))
    else:
        raise ValueError(moment.action)


def fill(ballast: Path) -> None:
    """Take all the room that the disk of ``ballast`` has."""
    room = shutil.disk_usage(ballast.parent).free
    assert room < 1 << 28, f"{ballast.parent} is no small disk of its own: it is not filled"
    descriptor = os.open(ballast, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    size = 1 << 16
    while size:
        with suppress(OSError):
            while os.write(descriptor, bytes(size)):
                pass
        size //= 2
    os.close(descriptor)


def obey_permissions() -> None:
    """Take from root the privilege to write wherever it likes; others do not have it."""
    if os.geteuid() != 0:
        return
    libc = ctypes.CDLL(None, use_errno=True)
    header = (ctypes.c_uint32 * 2)(0x20080522, 0)  # version 3, this process
    sets = (ctypes.c_uint32 * 6)()  # effective, permitted, inheritable; twice
    overrides = 1 << 1 | 1 << 2  # CAP_DAC_OVERRIDE, CAP_DAC_READ_SEARCH
    if libc.capget(header, sets):
        raise OSError(ctypes.get_errno(), "capget")
    sets[0], sets[1] = sets[0] & ~overrides, sets[1] & ~overrides
    if libc.capset(header, sets):
        raise OSError(ctypes.get_errno(), "capset")


# -- what the process calls -------------------------------------------------------------------------------------------


def install(root: str | os.PathLike[str], moment: Moment | None, record: list[str] | None = None) -> None:
    """Watch this process.

    Args:
        root: the folder whose files count.
        moment: when to act. None: never.
        record: gets everything that counts.
    """
    watch = Watch(os.path.abspath(root), moment, record)
    _watch_open(watch)
    for name, before, after in (
        ("remove", "remove", "removed"),
        ("unlink", "remove", "removed"),
        ("truncate", "truncate", "truncated"),
        ("mkdir", "mkdir", "made"),
        ("fsync", "fsync", "synced"),
    ):
        setattr(os, name, _around(watch, getattr(os, name), before, after))
    for name in ("rename", "replace"):
        setattr(os, name, _around(watch, getattr(os, name), "rename", "renamed", of=1))


def _around(watch: Watch, call: Callable[..., Any], before: str, after: str, of: int = 0) -> Callable[..., Any]:
    """``call``, with a note before and one after it; ``of``: which argument has the name of the file."""

    def noted(*args: Any, **options: Any) -> Any:
        path = _path_of(args[of]) if len(args) > of else None
        if not watch.sees(path):
            return call(*args, **options)
        watch.note(before, path)
        result = call(*args, **options)
        watch.note(after, path)
        return result

    return noted


def _path_of(file: Any) -> Any:
    if isinstance(file, int):  # a descriptor
        with suppress(OSError):
            return os.readlink(f"/proc/self/fd/{file}")
    return file


def _watch_open(watch: Watch) -> None:
    plain = io.open

    class Noted(io.BufferedWriter):
        def write(self, data: Any) -> int:
            def half() -> None:
                super(Noted, self).write(memoryview(data).cast("B")[: memoryview(data).nbytes // 2])
                self.flush()

            watch.note("write", self.raw.name, half)  # type: ignore[attr-defined]
            return super().write(data)

    def noted(file: Any, mode: str = "r", buffering: int = -1, *args: Any, **options: Any) -> Any:
        if "+" in mode or not set(mode) & set("wxa") or not watch.sees(file):
            return plain(file, mode, buffering, *args, **options)
        watch.note("open", file)
        buffer = Noted(io.FileIO(os.fspath(file), mode.replace("b", "").replace("t", "")))
        return buffer if "b" in mode else io.TextIOWrapper(buffer, *args, **options)

    io.open = builtins.open = noted  # type: ignore[assignment]


def keep_record(path: str | os.PathLike[str], record: list[str]) -> None:
    """Write down what counted, and which modules are in memory, when the process ends."""
    import atexit

    def write() -> None:
        Path(path).write_text(json.dumps({"events": record, "modules": sorted(sys.modules)}))

    atexit.register(write)
