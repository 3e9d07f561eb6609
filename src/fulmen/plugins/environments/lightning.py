"""One or more machines on which the Trainer starts the processes by itself."""

from __future__ import annotations

import os
import socket

from fulmen.plugins.environments.cluster_environment import ClusterEnvironment
from fulmen.plugins.environments.variables import port, whole
from fulmen.utilities.exceptions import MisconfigurationException


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
        return os.environ.get("MASTER_ADDR") or "127.0.0.1"

    @property
    def main_port(self) -> int:
        if not self._port:
            alone = os.environ.get("STANDALONE_PORT")  # of a program that runs beside others with the same variables
            self._port = port("STANDALONE_PORT" if alone else "MASTER_PORT", 0) if _given() else 0
            self._port = self._port or find_free_network_port()
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
        return whole("LOCAL_RANK", 0)

    def node_rank(self) -> int:
        return whole("NODE_RANK", whole("GROUP_RANK", 0))

    def validate_settings(self, num_devices: int, num_nodes: int) -> None:
        """Check what the variables say of this process against the Trainer's arguments.

        Raises:
            MisconfigurationException: a number is too high, or several machines have no place to meet.
        """
        if self.local_rank() >= num_devices:
            raise MisconfigurationException(
                f"LOCAL_RANK={self.local_rank()} says that this process is one of more than {num_devices}, but the "
                f"Trainer was asked for `devices={num_devices}` per machine. Write `devices` to match, or "
                "`unset LOCAL_RANK` and let the Trainer start the processes."
            )
        if self.node_rank() >= num_nodes:
            name = "NODE_RANK" if os.environ.get("NODE_RANK") else "GROUP_RANK"
            raise MisconfigurationException(
                f"{name}={self.node_rank()} says that this machine is one of more than {num_nodes}, but the Trainer "
                f"was asked for `num_nodes={num_nodes}`. Write `num_nodes` to match, or `unset {name}`."
            )
        if num_nodes > 1:
            missing = [name for name in ("MASTER_ADDR", "MASTER_PORT") if not os.environ.get(name)]
            if missing:
                raise MisconfigurationException(
                    f"`num_nodes={num_nodes}`: {' and '.join(missing)} must be set to where rank 0 is, the same on "
                    "all machines, and NODE_RANK to the number of each. Or start the program by torchrun."
                )
        given = os.environ.get("WORLD_SIZE", "")
        if self.creates_processes_externally and given and whole("WORLD_SIZE", least=1) != num_devices * num_nodes:
            raise MisconfigurationException(
                f"WORLD_SIZE={given} contradicts `devices={num_devices}` times `num_nodes={num_nodes}` of the Trainer. "
                "Write the arguments to match, or `unset WORLD_SIZE`."
            )

    def teardown(self) -> None:
        if not self.creates_processes_externally:
            self._port = 0


def _given() -> bool:
    return bool(os.environ.get("STANDALONE_PORT") or os.environ.get("MASTER_PORT"))


def find_free_network_port() -> int:
    """A port of this machine that nobody listens at just now."""
    with socket.socket() as listener:
        listener.bind(("", 0))
        return listener.getsockname()[1]
