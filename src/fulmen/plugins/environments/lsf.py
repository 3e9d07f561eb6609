"""Jobs of IBM's LSF scheduler, started by jsrun."""

from __future__ import annotations

import os
import socket

from fulmen.plugins.environments.cluster_environment import ClusterEnvironment
from fulmen.plugins.environments.variables import rank_of, whole
from fulmen.utilities.exceptions import MisconfigurationException


class LSFEnvironment(ClusterEnvironment):
    """Processes that ``jsrun`` has started in a job of LSF.

    The machines are those of the file ``LSB_DJOB_RANKFILE``, of which the first line is the one that the job was
    submitted from; the port depends on the number of the job.
    """

    def __init__(self) -> None:
        self._hosts = _hosts()
        self._port = 10000 + whole("LSB_JOBID") % 1000

    @property
    def creates_processes_externally(self) -> bool:
        return True

    @property
    def main_address(self) -> str:
        return self._hosts[0]

    @property
    def main_port(self) -> int:
        return self._port

    @staticmethod
    def detect() -> bool:
        return {"LSB_JOBID", "LSB_DJOB_RANKFILE", "JSM_NAMESPACE_LOCAL_RANK", "JSM_NAMESPACE_SIZE"} <= os.environ.keys()

    def world_size(self) -> int:
        return whole("JSM_NAMESPACE_SIZE", least=1)

    def set_world_size(self, size: int) -> None:
        pass  # the scheduler knows

    def global_rank(self) -> int:
        return rank_of("JSM_NAMESPACE_RANK", "JSM_NAMESPACE_SIZE", self.world_size())

    def set_global_rank(self, rank: int) -> None:
        pass  # the scheduler knows

    def local_rank(self) -> int:
        return whole("JSM_NAMESPACE_LOCAL_RANK")

    def node_rank(self) -> int:
        host = socket.gethostname()
        names = list(dict.fromkeys(self._hosts))
        for name in (host, host.partition(".")[0]):
            if name in names:
                return names.index(name)
        raise MisconfigurationException(
            f"LSB_DJOB_RANKFILE={os.environ['LSB_DJOB_RANKFILE']} names the machines {names}, and not this one, "
            f"{host!r}. Start the program by `jsrun`."
        )


def _hosts() -> list[str]:
    """The machine of each process."""
    path = os.environ.get("LSB_DJOB_RANKFILE", "")
    if not path:
        raise MisconfigurationException(
            "the environment variable LSB_DJOB_RANKFILE is not set: start the program by `jsrun` in a job of LSF."
        )
    try:
        with open(path) as file:
            hosts = [line.strip() for line in file if line.strip()]
    except OSError as error:
        raise MisconfigurationException(f"LSB_DJOB_RANKFILE={path!r} cannot be read: {error.strerror}.") from None
    if len(hosts) < 2:
        raise MisconfigurationException(
            f"LSB_DJOB_RANKFILE={path!r} must name the machine that the job was submitted from and at least one more, "
            f"each on a line of its own; it has {len(hosts)}."
        )
    return hosts[1:]
