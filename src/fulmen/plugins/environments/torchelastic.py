"""Jobs that were started by torchrun."""

from __future__ import annotations

import os

from fulmen.plugins.environments.cluster_environment import ClusterEnvironment
from fulmen.plugins.environments.variables import port, rank_of, whole
from fulmen.utilities.exceptions import MisconfigurationException


class TorchElasticEnvironment(ClusterEnvironment):
    """Processes that ``torchrun`` has started, on one machine or many; they may be started again, also in another
    number (``--nnodes=MIN:MAX``).
    """

    @property
    def creates_processes_externally(self) -> bool:
        return True

    @property
    def main_address(self) -> str:
        return os.environ.get("MASTER_ADDR") or "127.0.0.1"

    @property
    def main_port(self) -> int:
        return port("MASTER_PORT")

    @staticmethod
    def detect() -> bool:
        return "TORCHELASTIC_RUN_ID" in os.environ

    def world_size(self) -> int:
        return whole("WORLD_SIZE", least=1)

    def set_world_size(self, size: int) -> None:
        pass  # torchrun knows

    def global_rank(self) -> int:
        return rank_of("RANK", "WORLD_SIZE", self.world_size())

    def set_global_rank(self, rank: int) -> None:
        pass  # torchrun knows

    def local_rank(self) -> int:
        return rank_of("LOCAL_RANK", "LOCAL_WORLD_SIZE", whole("LOCAL_WORLD_SIZE", self.world_size(), 1))

    def node_rank(self) -> int:
        return whole("GROUP_RANK", 0)

    def validate_settings(self, num_devices: int, num_nodes: int) -> None:
        if num_devices * num_nodes != self.world_size():
            here = whole("LOCAL_WORLD_SIZE", self.world_size(), 1)
            raise MisconfigurationException(
                f"torchrun has started {self.world_size()} processes (WORLD_SIZE), and the Trainer was asked for "
                f"`devices={num_devices}` on `num_nodes={num_nodes}`. Write `Trainer(devices={here}, "
                f"num_nodes={max(1, self.world_size() // here)})`, or `torchrun --nproc-per-node={num_devices} "
                f"--nnodes={num_nodes}`."
            )
