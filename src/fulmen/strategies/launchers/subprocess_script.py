"""Starts the program again, once for each further process."""

from __future__ import annotations

import atexit
import os
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from typing import ClassVar

from fulmen.plugins.environments.cluster_environment import ClusterEnvironment
from fulmen.strategies.launchers.launcher import Launcher
from fulmen.utilities.program import command, job_of_sweep

_SECONDS_TO_END = 10.0  # that the other processes have when this one is through


class SubprocessScriptLauncher(Launcher):
    """Runs the command of this process again for each further process of the machine; this one is local rank 0.

    All of the program runs in each of them, also what stands before ``fit``. ``start_method="spawn"`` runs it once.

    Args:
        cluster_environment: where the processes meet.
        num_processes: how many this machine has.
        num_nodes: how many machines there are.
    """

    #: what has started the other processes of this program
    latest: ClassVar[SubprocessScriptLauncher | None] = None

    def __init__(self, cluster_environment: ClusterEnvironment, num_processes: int, num_nodes: int) -> None:
        self.cluster_environment = cluster_environment
        self.num_processes, self.num_nodes = num_processes, num_nodes
        self.processes: list[subprocess.Popen[bytes]] = []
        self.is_told: Callable[[], bool] = bool  #: whether it was said why one of them failed
        self._variables_before: dict[str, str | None] = {}
        self._job = ""

    def start(self) -> None:
        """Start the other processes of this machine, once.

        Raises:
            MisconfigurationException: there is no program that could be run again.
        """
        environment = self.cluster_environment
        if self.processes or environment.creates_processes_externally:
            return
        environment.validate_settings(self.num_processes, self.num_nodes)
        again, directory = command()
        variables = {
            "MASTER_ADDR": environment.main_address,
            "MASTER_PORT": str(environment.main_port),
            "NODE_RANK": str(environment.node_rank()),
            "WORLD_SIZE": str(self.num_processes * self.num_nodes),
            "LOCAL_RANK": "0",
        }
        self._variables_before = {name: os.environ.get(name) for name in variables}
        os.environ.update(variables)
        self._job = job_of_sweep()
        for rank in range(1, self.num_processes):
            self.processes.append(subprocess.Popen(again, env={**os.environ, "LOCAL_RANK": str(rank)}, cwd=directory))
        SubprocessScriptLauncher.latest = self
        atexit.register(self._end)

    @property
    def is_of_other_job(self) -> bool:
        """Whether the program has gone on to another job of a sweep since, with other processes to start."""
        return self._job != job_of_sweep()

    def finish(self) -> None:
        """Wait for the processes of a job, and make this process one that has started none.

        Raises:
            RuntimeError: one of them failed, or did not end.
        """
        atexit.unregister(self._end)
        SubprocessScriptLauncher.latest = None
        for name, value in self._variables_before.items():
            os.environ.pop(name, None)
            if value is not None:
                os.environ[name] = value
        failed = self._wait()
        if failed:
            raise RuntimeError(f"the job in {self._job} is over for this process, but {failed}")

    def check(self) -> None:
        for rank, process in enumerate(self.processes, 1):
            code = process.poll()
            if code is not None:
                self.kill()
                raise RuntimeError(
                    f"local rank {rank} has ended ({_how(code)}) before it came to where this process is: see its "
                    "output above. All processes run the same program, and must call the Trainer alike."
                )

    def kill(self) -> None:
        for process in self.processes:
            if process.poll() is None:
                process.terminate()

    def _end(self) -> None:
        """This process is through: no other outlives it, and one that failed makes the job fail."""
        failed = self._wait()
        codes = [process.returncode for process in self.processes if process.returncode]
        if failed:
            sys.stdout.flush()
            if not self.is_told() and codes[0] < 128:  # above that, a signal has ended all of them
                print(failed, file=sys.stderr, flush=True)
            sys.stderr.flush()
            os._exit(codes[0] if codes[0] > 0 else 1)  # what was registered before this has no other way to fail

    def _wait(self) -> str:
        """Wait for the others; returns what is wrong with the first that failed or had to be killed."""
        deadline = time.monotonic() + _SECONDS_TO_END
        failed = ""
        for rank, process in enumerate(self.processes, 1):
            with suppress(subprocess.TimeoutExpired):
                process.wait(max(0.1, deadline - time.monotonic()))
            if process.poll() is None:
                process.kill()
                process.wait()
                failed = (
                    failed or f"local rank {rank} did not end {_SECONDS_TO_END:g} seconds after rank 0 and was killed"
                )
            elif process.returncode:
                failed = failed or f"local rank {rank} failed ({_how(process.returncode)})"
        return failed


def _how(code: int) -> str:
    return f"killed by signal {-code}" if code < 0 else f"exit code {code}"
