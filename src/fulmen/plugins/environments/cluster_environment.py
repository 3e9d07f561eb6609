"""How the processes of a job find each other: the open class of all cluster environments."""

from __future__ import annotations

from abc import ABC, abstractmethod


class ClusterEnvironment(ABC):
    """Who this process is among those of its job, and where they meet. Derive from it for a cluster of your own, and
    pass it as ``Trainer(plugins=...)``.
    """

    @property
    @abstractmethod
    def creates_processes_externally(self) -> bool:
        """Whether the cluster has started all processes; else the Trainer starts those of this machine."""

    @property
    @abstractmethod
    def main_address(self) -> str:
        """The address of the machine that global rank 0 runs on."""

    @property
    @abstractmethod
    def main_port(self) -> int:
        """A free port there, the same on all processes."""

    @staticmethod
    @abstractmethod
    def detect() -> bool:
        """Whether this process was started in such a cluster."""

    @abstractmethod
    def world_size(self) -> int:
        """How many processes the job has."""

    @abstractmethod
    def set_world_size(self, size: int) -> None:
        """Tell it, where the cluster does not know."""

    @abstractmethod
    def global_rank(self) -> int:
        """The number of this process in the job, from 0."""

    @abstractmethod
    def set_global_rank(self, rank: int) -> None:
        """Tell it, where the cluster does not know."""

    @abstractmethod
    def local_rank(self) -> int:
        """The number of this process on its machine, from 0."""

    @abstractmethod
    def node_rank(self) -> int:
        """The number of this machine in the job, from 0."""

    def validate_settings(self, num_devices: int, num_nodes: int) -> None:
        """Check that the cluster was asked for as many processes as the Trainer.

        Raises:
            ValueError: it was not.
        """

    def teardown(self) -> None:
        """Forget what belongs to one run."""
