"""Jobs of Kubernetes: one process in each container, told who it is by environment variables."""

from __future__ import annotations

import os

from fulmen.plugins.environments.cluster_environment import ClusterEnvironment
from fulmen.plugins.environments.variables import advice, port, rank_of, whole
from fulmen.utilities.exceptions import MisconfigurationException


class KubeflowEnvironment(ClusterEnvironment):
    """A ``PyTorchJob`` of Kubeflow, or any other set of containers that get ``MASTER_ADDR``, ``MASTER_PORT``,
    ``WORLD_SIZE`` and ``RANK``. It is not found by itself: write ``Trainer(plugins=[KubeflowEnvironment()])``.

    With several processes in a container start them by ``torchrun``, and leave this out.
    """

    @property
    def creates_processes_externally(self) -> bool:
        return True

    @property
    def main_address(self) -> str:
        address = os.environ.get("MASTER_ADDR")
        if not address:
            raise MisconfigurationException(f"the environment variable MASTER_ADDR is not set: {advice('MASTER_ADDR')}")
        return address

    @property
    def main_port(self) -> int:
        return port("MASTER_PORT")

    @staticmethod
    def detect() -> bool:
        raise NotImplementedError("KubeflowEnvironment is not found by itself: pass it as `Trainer(plugins=...)`")

    def world_size(self) -> int:
        return whole("WORLD_SIZE", least=1)

    def set_world_size(self, size: int) -> None:
        pass  # the cluster knows

    def global_rank(self) -> int:
        return rank_of("RANK", "WORLD_SIZE", self.world_size())

    def set_global_rank(self, rank: int) -> None:
        pass  # the cluster knows

    def local_rank(self) -> int:
        return 0

    def node_rank(self) -> int:
        return self.global_rank()

    def validate_settings(self, num_devices: int, num_nodes: int) -> None:
        if num_devices != 1 or num_nodes != self.world_size():
            raise MisconfigurationException(
                f"the job has WORLD_SIZE={self.world_size()} containers with one process each, and the Trainer was "
                f"asked for `devices={num_devices}` on `num_nodes={num_nodes}`. Write `Trainer(devices=1, "
                f"num_nodes={self.world_size()})`."
            )
