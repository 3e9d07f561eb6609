"""Starts the program again, once for each further process."""

from __future__ import annotations

import atexit
import os
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

from fulmen.plugins.environments.cluster_environment import ClusterEnvironment
from fulmen.strategies.launchers.launcher import Launcher
from fulmen.utilities.exceptions import MisconfigurationException

_SECONDS_TO_END = 10.0  # that the other processes have when this one is through


class SubprocessScriptLauncher(Launcher):
    """Runs the command of this process again for each further process of the machine; this one is local rank 0.

    All of the program runs in each of them, also what stands before ``fit``. ``start_method="spawn"`` runs it once.

    Args:
        cluster_environment: where the processes meet.
        num_processes: how many this machine has.
        num_nodes: how many machines there are.
    """

    def __init__(self, cluster_environment: ClusterEnvironment, num_processes: int, num_nodes: int) -> None:
        self.cluster_environment = cluster_environment
        self.num_processes, self.num_nodes = num_processes, num_nodes
        self.processes: list[subprocess.Popen[bytes]] = []

    def start(self) -> None:
        """Start the other processes of this machine, once.

        Raises:
            MisconfigurationException: there is no program that could be run again.
        """
        environment = self.cluster_environment
        if self.processes or environment.creates_processes_externally:
            return
        environment.validate_settings(self.num_processes, self.num_nodes)
        command, directory = command_of_this_process()
        os.environ.update(
            MASTER_ADDR=environment.main_address,
            MASTER_PORT=str(environment.main_port),
            NODE_RANK=str(environment.node_rank()),
            WORLD_SIZE=str(self.num_processes * self.num_nodes),
        )
        for rank in range(1, self.num_processes):
            more = _of_hydra(rank)
            variables = {**os.environ, "LOCAL_RANK": str(rank)}
            self.processes.append(subprocess.Popen([*command, *more], env=variables, cwd=directory))
        os.environ["LOCAL_RANK"] = "0"
        atexit.register(self._wait)

    def check(self) -> None:
        for rank, process in enumerate(self.processes, 1):
            code = process.poll()
            if code is not None:
                raise RuntimeError(
                    f"local rank {rank} has ended ({_how(code)}) before it came to `trainer.{_VERB}`: see its output "
                    "above. All processes run the same program, and must call the Trainer alike."
                )

    def kill(self) -> None:
        for process in self.processes:
            if process.poll() is None:
                process.terminate()

    def _wait(self) -> None:
        """This process is through: no other outlives it, and one that failed makes the job fail."""
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
        if failed:
            sys.stdout.flush()
            print(failed, file=sys.stderr, flush=True)
            os._exit(1)  # what was registered before this has no other way to fail


_VERB = "fit"


def _how(code: int) -> str:
    return f"killed by signal {-code}" if code < 0 else f"exit code {code}"


def command_of_this_process() -> tuple[list[str], str]:
    """How this program was started, and in which directory.

    Raises:
        MisconfigurationException: it is an interactive session, or was read from a pipe.
    """
    arguments = list(sys.orig_argv[1:])
    main = getattr(sys.modules["__main__"], "__file__", None)
    is_text = "-c" in arguments and main is None
    if (main is None and not is_text) or sys.argv[:1] == ["-"]:
        raise MisconfigurationException(
            "several processes were asked for, but there is no program here that the others could run: this is an "
            "interactive session. Write `strategy='ddp_notebook'`, which sends them what they need."
        )
    script = sys.argv[0]
    directory = os.getcwd()
    if main is not None and script in arguments and not os.path.isabs(script):
        arguments[arguments.index(script)] = os.path.abspath(main)  # the program may have changed its directory
    elif main is not None and "-m" in arguments and sys.path[:1] and Path(sys.path[0]).is_dir():
        directory = sys.path[0]  # where it was started, and where the module is found
    return [sys.executable, *arguments], directory


def _of_hydra(rank: int) -> list[str]:
    """What tells a program of Hydra to do the job of this one, in its folder, and nothing else."""
    hydra: Any = sys.modules.get("hydra.core.hydra_config")
    if hydra is None or not hydra.HydraConfig.initialized():
        return []
    config = hydra.HydraConfig.get()
    folder = config.runtime.output_dir
    return [
        f"hydra.run.dir={_quoted(folder)}",
        f"hydra.job.name={config.job.name}_rank_{rank}",
        "hydra.output_subdir=null",
        "hydra/hydra_logging=disabled",
    ]


def _quoted(text: str) -> str:
    return '"' + text.replace("\\", "\\\\").replace('"', '\\"') + '"'
