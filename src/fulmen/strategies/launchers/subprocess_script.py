"""Starts the program again, once for each further process."""

from __future__ import annotations

import os
import subprocess
import sys

from fulmen.plugins.environments.cluster_environment import ClusterEnvironment
from fulmen.strategies.launchers.launcher import Launcher


class SubprocessScriptLauncher(Launcher):
    """Runs the command of this process again for each further process of the machine; this one is local rank 0.

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
        if self.processes or self.cluster_environment.creates_processes_externally:
            return
        environment = self.cluster_environment
        os.environ.update(
            MASTER_ADDR=environment.main_address,
            MASTER_PORT=str(environment.main_port),
            NODE_RANK=str(environment.node_rank()),
            WORLD_SIZE=str(self.num_processes * self.num_nodes),
        )
        for rank in range(1, self.num_processes):
            variables = {**os.environ, "LOCAL_RANK": str(rank)}
            self.processes.append(subprocess.Popen([sys.executable, *sys.orig_argv[1:]], env=variables))
        os.environ["LOCAL_RANK"] = "0"

    def kill(self) -> None:
        for process in self.processes:
            if process.poll() is None:
                process.terminate()
