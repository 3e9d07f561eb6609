"""Starts a script again and again without the seconds that its imports take.

A process imports everything once and then forks itself for each start: a real process, in a session of its own, with
the arguments and the name ``__main__`` that ``python script.py`` would have.
"""

from __future__ import annotations

import importlib
import json
import os
import runpy
import select
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import IO, Any

from tests.crash.moments import Moment, install, keep_record


@dataclass(frozen=True, slots=True)
class Ended:
    """How a process ended.

    Attributes:
        code: its exit code; negative: the number of the signal that ended it.
        output: all that it wrote to the screen.
        seconds: how long it ran.
    """

    code: int
    output: str
    seconds: float

    @property
    def was_killed(self) -> bool:
        return self.code == -signal.SIGKILL


class Warm:
    """A process that starts ``script``; use it in a ``with`` statement."""

    def __init__(self, script: str | os.PathLike[str], timeout: float = 120) -> None:
        self.script, self.timeout = os.fspath(script), timeout
        self._process: subprocess.Popen[str] | None = None

    def __enter__(self) -> Warm:
        self._process = subprocess.Popen(
            [sys.executable, "-m", "tests.crash.warm", self.script],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env=environment(),
        )
        return self

    def __exit__(self, *exception: object) -> None:
        assert self._process is not None
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.close()
        self._process.wait(30)
        self._process.stdout.close()

    def run(
        self,
        arguments: Sequence[str],
        root: Path,
        moment: Moment | None = None,
        kill_after: float | None = None,
        record: Path | None = None,
    ) -> Ended:
        """Run the script to its end, or until it is killed.

        Args:
            root: the folder in which files are watched.
            moment: what is to happen, and when.
            kill_after: seconds until it is killed from outside. None: not at all.
            record: a file that gets what the process did with files.
        """
        with _Screen(root.parents[1] / "screen") as screen:
            start = {
                "arguments": list(arguments),
                "root": os.fspath(root),
                "moment": None if moment is None else asdict(moment),
                "record": None if record is None else os.fspath(record),
                "output": os.fspath(screen.path),
            }
            (pid,) = self._ask(start)
            begin = time.monotonic()
            killed_at = begin + (self.timeout if kill_after is None else kill_after)
            while not self._has_answer(screen, min(1.0, max(0.0, killed_at - time.monotonic()))):
                if time.monotonic() >= killed_at:
                    with suppress(ProcessLookupError):
                        os.kill(pid, signal.SIGKILL)
                    if kill_after is None:
                        self._answer()
                        raise TimeoutError(f"no end after {self.timeout} s: {screen.text()}")
                    killed_at += self.timeout
            (code,) = self._answer()
            seconds = time.monotonic() - begin
            with suppress(ProcessLookupError):
                os.killpg(pid, signal.SIGKILL)  # its loader workers: they would notice, seconds later
            return Ended(code, screen.text(), seconds)

    def _ask(self, question: Any) -> list[int]:
        assert self._process is not None
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps(question) + "\n")
        self._process.stdin.flush()
        return self._answer()

    def _has_answer(self, screen: _Screen, seconds: float) -> bool:
        assert self._process is not None
        ready = select.select([self._process.stdout, screen.descriptor], [], [], seconds)[0]
        if screen.descriptor in ready:
            screen.read()
        return self._process.stdout in ready

    def _answer(self) -> list[int]:
        assert self._process is not None
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            raise RuntimeError(f"{self.script} could not be imported")
        return json.loads(line)


class _Screen:
    """Takes what a process writes: by a pipe, as a file would have its share in the faults of the disk."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._content = bytearray()

    def __enter__(self) -> _Screen:
        self.path.unlink(missing_ok=True)
        os.mkfifo(self.path)
        self.descriptor = os.open(self.path, os.O_RDWR | os.O_NONBLOCK)
        return self

    def __exit__(self, *exception: object) -> None:
        os.close(self.descriptor)
        self.path.unlink()

    def read(self) -> None:
        """Take what is there."""
        with suppress(BlockingIOError):
            while block := os.read(self.descriptor, 1 << 16):
                self._content += block

    def text(self) -> str:
        """Everything that was written so far."""
        self.read()
        return self._content.decode(errors="replace")


def run_plainly(command: Sequence[str], folder: Path, kill_after: float | None = None, timeout: float = 120) -> Ended:
    """Run a command as a user does, with all its imports; see :meth:`Warm.run`."""
    output = folder / "output.txt"
    begin = time.monotonic()
    with output.open("wb") as file:
        process = subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=file, stderr=file, start_new_session=True, env=environment()
        )
        try:
            process.wait(timeout if kill_after is None else kill_after)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
            if kill_after is None:
                raise
    seconds = time.monotonic() - begin
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    return Ended(process.returncode, output.read_text(errors="replace"), seconds)


def environment() -> dict[str, str]:
    """That of this process, with what it can import, and one thread per process."""
    paths = [os.fspath(Path(__file__).parents[2]), *filter(None, sys.path)]
    return {**os.environ, "PYTHONPATH": os.pathsep.join(dict.fromkeys(paths)), "OMP_NUM_THREADS": "1"}


# -- within the process -----------------------------------------------------------------------------------------------


def serve(script: str, questions: IO[str], answers: IO[str]) -> None:
    runpy.run_path(script, run_name="warm")
    for line in questions:
        start = json.loads(line)
        pid = os.fork()
        if pid == 0:
            run_script(script, start)
        print(json.dumps([pid]), file=answers, flush=True)
        _, status = os.waitpid(pid, 0)
        import_like(start["record"])
        print(json.dumps([os.waitstatus_to_exitcode(status)]), file=answers, flush=True)


def import_like(record: str | None) -> None:
    """Import what the script has imported late."""
    if record is None or not os.path.exists(record):
        return
    for name in json.loads(Path(record).read_text())["modules"]:
        if name not in sys.modules and name.startswith(("torch", "fulmen", "rich", "numpy")):
            with suppress(Exception):
                importlib.import_module(name)


def run_script(script: str, start: dict[str, Any]) -> None:
    """Be the process of the script; never returns."""
    os.setsid()
    nothing = os.open(os.devnull, os.O_RDONLY)
    output = os.open(start["output"], os.O_WRONLY)
    for source, target in ((nothing, 0), (output, 1), (output, 2)):
        os.dup2(source, target)
    sys.argv[:] = [script, *start["arguments"]]
    record: list[str] | None = None
    if start["record"]:
        keep_record(start["record"], record := [])
    install(start["root"], Moment(**start["moment"]) if start["moment"] else None, record)
    runpy.run_path(script, run_name="__main__")
    sys.exit(0)


if __name__ == "__main__":
    _answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # what a script prints while it is imported is no answer
    serve(sys.argv[1], sys.stdin, _answers)
