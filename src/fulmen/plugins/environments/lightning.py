"""One or more machines on which the Trainer starts the processes by itself."""

from __future__ import annotations

import os
import socket

from fulmen.plugins.environments.cluster_environment import ClusterEnvironment


class LightningEnvironment(ClusterEnvironment):
    """The Trainer starts the processes of each machine; the user starts one per machine.

    Several machines find each other by the variables ``NODE_RANK`` (or ``GROUP_RANK``), ``MASTER_ADDR`` and
    ``MASTER_PORT``. Where ``LOCAL_RANK`` is set, somebody else has started the processes.
    """

    def __init__(self) -> None:
        self._world_size, self._global_rank, self._port = 1, 0, 0

    @property
    def creates_processes_externally(self) -> bool:
        return "LOCAL_RANK" in os.environ

    @property
    def main_address(self) -> str:
        return os.environ.get("MASTER_ADDR", "127.0.0.1")

    @property
    def main_port(self) -> int:
        if not self._port:
            given = os.environ.get("MASTER_PORT")
            self._port = int(given) if given else find_free_network_port()
        return self._port

    @staticmethod
    def detect() -> bool:
        return True

    def world_size(self) -> int:
        return self._world_size

    def set_world_size(self, size: int) -> None:
        self._world_size = size

    def global_rank(self) -> int:
        return self._global_rank

    def set_global_rank(self, rank: int) -> None:
        self._global_rank = rank

    def local_rank(self) -> int:
        return int(os.environ.get("LOCAL_RANK", 0))

    def node_rank(self) -> int:
        return int(os.environ.get("NODE_RANK", os.environ.get("GROUP_RANK", 0)))


def find_free_network_port() -> int:
    """A port of this machine that nobody listens at just now."""
    with socket.socket() as listener:
        listener.bind(("", 0))
        return listener.getsockname()[1]
