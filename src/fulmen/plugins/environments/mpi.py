"""Jobs that were started by mpirun or mpiexec."""

from __future__ import annotations

import os
import socket
from functools import cached_property
from typing import Any

from fulmen.plugins.environments.cluster_environment import ClusterEnvironment
from fulmen.plugins.environments.lightning import find_free_network_port
from fulmen.plugins.environments.variables import whole
from fulmen.utilities.exceptions import MisconfigurationException
from fulmen.utilities.imports import package_available

_STARTED_BY_MPI = ("OMPI_COMM_WORLD_SIZE", "PMI_SIZE", "MV2_COMM_WORLD_SIZE", "PALS_RANKID")


class MPIEnvironment(ClusterEnvironment):
    """Processes that ``mpirun`` has started. It needs the package mpi4py, which only tells who is who: gradients go the
    way that ``torch.distributed`` chooses.
    """

    @cached_property
    def _world(self) -> Any:
        from mpi4py import MPI  # type: ignore[import-not-found]

        return MPI.COMM_WORLD

    @cached_property
    def _meeting_place(self) -> tuple[str, int]:
        place = (socket.gethostname(), find_free_network_port()) if self.global_rank() == 0 else None
        return self._world.bcast(place, root=0)

    @cached_property
    def _hosts(self) -> list[str]:
        """The machine of each process."""
        return self._world.allgather(socket.gethostname())

    @cached_property
    def _ranks(self) -> tuple[int, int]:
        """The number of this process on its machine, and of the machine."""
        hosts = self._hosts
        mine, own = self.global_rank(), socket.gethostname()
        return hosts[:mine].count(own), list(dict.fromkeys(hosts)).index(own)

    @property
    def creates_processes_externally(self) -> bool:
        return True

    @property
    def main_address(self) -> str:
        return self._meeting_place[0]

    @property
    def main_port(self) -> int:
        return self._meeting_place[1]

    @staticmethod
    def detect() -> bool:
        """Whether this process is one of several that MPI has started.

        Raises:
            MisconfigurationException: it seems so, and mpi4py is not there to tell which one.
        """
        name = next((name for name in _STARTED_BY_MPI if name in os.environ), None)
        if name is None:
            return False
        if not package_available("mpi4py"):
            if name.endswith("_SIZE") and whole(name) < 2:
                return False
            raise MisconfigurationException(
                f"MPI has started this process ({name}={os.environ[name]}), and the package mpi4py is not installed, "
                f"which tells the processes who they are: `pip install mpi4py`, or `unset {name}` if it is a leftover."
            )
        from mpi4py import MPI  # type: ignore[import-not-found]

        return MPI.COMM_WORLD.Get_size() > 1

    def validate_settings(self, num_devices: int, num_nodes: int) -> None:
        if num_devices * num_nodes != self.world_size():
            machines = len(set(self._hosts))
            raise MisconfigurationException(
                f"mpirun has started {self.world_size()} processes on {machines} machine{'s' * (machines > 1)}, and "
                f"the Trainer was asked for `devices={num_devices}` on `num_nodes={num_nodes}`. Write "
                f"`Trainer(devices={self.world_size() // machines}, num_nodes={machines})`, or `mpirun -n "
                f"{num_devices * num_nodes}`."
            )

    def world_size(self) -> int:
        return self._world.Get_size()

    def set_world_size(self, size: int) -> None:
        pass  # MPI knows

    def global_rank(self) -> int:
        return self._world.Get_rank()

    def set_global_rank(self, rank: int) -> None:
        pass  # MPI knows

    def local_rank(self) -> int:
        return self._ranks[0]

    def node_rank(self) -> int:
        return self._ranks[1]
