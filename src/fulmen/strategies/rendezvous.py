"""Where the processes of a job meet before they work together."""

from __future__ import annotations

import os
import socket
import struct
import time
from contextlib import suppress
from datetime import timedelta
from typing import TYPE_CHECKING

import torch.distributed as dist
from torch._C._distributed_c10d import PrefixStore, Store, TCPStore

from fulmen.plugins.environments.lightning import find_free_network_port
from fulmen.plugins.environments.variables import whole
from fulmen.utilities.exceptions import MisconfigurationException
from fulmen.utilities.rank_zero import rank_zero_info

if TYPE_CHECKING:
    from fulmen.plugins.environments.cluster_environment import ClusterEnvironment
    from fulmen.strategies.launchers.launcher import Launcher

_SECONDS_UNTIL_SAID = 15.0  # before it is said who is missing
_SECONDS_ALONE, _SECONDS_WITH_OTHERS = 60, 600  # one machine; several, which start at different times
_SIOCGIFADDR = 0x8915  # of Linux: the address of a network card
_SECONDS_TO_ITSELF = 30.0  # for rank 0, which listens already, to come to its own address


def meet(
    environment: ClusterEnvironment, rank: int, world_size: int, timeout: float | None, launcher: Launcher | None
) -> Store:
    """Wait for all processes of the job.

    Args:
        environment: knows the place.
        rank: of this process.
        world_size: how many there are.
        timeout: seconds. None: those of ``FULMEN_RENDEZVOUS_TIMEOUT``, else 60 on one machine and 600 on several.
        launcher: what has started the others; None if somebody else has.

    Returns:
        The store at that place, in which processes leave values for each other.

    Raises:
        MisconfigurationException: the port is taken, or the variables make no sense.
        RuntimeError: a process that was started has ended.
        TimeoutError: not all are there; the message names those that are missing.
    """
    address, port = environment.main_address, environment.main_port
    alone = environment.node_rank() == 0 and address in ("127.0.0.1", "localhost", socket.gethostname())
    if timeout is None:
        default = _SECONDS_ALONE if alone else _SECONDS_WITH_OTHERS
        timeout = float(whole("FULMEN_RENDEZVOUS_TIMEOUT", default, 1))
    os.environ["MASTER_ADDR"], os.environ["MASTER_PORT"] = address, str(port)
    deadline = time.monotonic() + timeout
    store = _connected(address, port, rank, world_size, deadline, timeout)
    store.set(f"here/{rank}", socket.gethostname())
    missing = [other for other in range(world_size) if other != rank]
    said = time.monotonic()
    while missing:
        with suppress(dist.DistError):
            missing = [other for other in missing if not store.check([f"here/{other}"])]
        if missing and launcher is not None:
            launcher.check()
        now = time.monotonic()
        if missing and now > deadline:
            raise TimeoutError(_who_is_missing(missing, rank, world_size, address, port, timeout))
        if missing and now - said > _SECONDS_UNTIL_SAID:
            said = now
            rank_zero_info("waiting for %s at %s:%d ...", _ranks(missing), address, port)
        time.sleep(0.01 if missing else 0)
    return store


def interface_to(address: str) -> str | None:
    """The network card of this machine by which ``address`` is reached; None if that is not known.

    gloo would take the one that the machine's own name stands for, which on many machines is the loopback.
    """
    try:
        import fcntl  # not on Windows

        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
            probe.connect((address, 9))  # sends nothing
            own = probe.getsockname()[0]
            for _, name in [] if own.startswith("127.") else socket.if_nameindex():
                with suppress(OSError):  # it has no address
                    answer = fcntl.ioctl(probe.fileno(), _SIOCGIFADDR, struct.pack("256s", name.encode()[:15]))
                    if socket.inet_ntoa(answer[20:24]) == own:
                        return name
    except (ImportError, OSError):
        pass
    return None


def _connected(address: str, port: int, rank: int, world_size: int, deadline: float, timeout: float) -> Store:
    of_agent = os.environ.get("TORCHELASTIC_USE_AGENT_STORE") == "True"
    is_host = rank == 0 and not of_agent
    if is_host:
        _refuse_taken(address, port)
    wait = max(1.0, deadline - time.monotonic())
    connect = min(wait, _SECONDS_TO_ITSELF) if is_host else wait
    try:
        store = TCPStore(address, port, None, is_host, timedelta(seconds=connect), wait_for_workers=False)
        store.set_timeout(timedelta(seconds=wait))
    except (dist.DistError, RuntimeError, ValueError) as error:
        if is_host:
            raise MisconfigurationException(
                f"rank 0 cannot listen at {address}:{port} (MASTER_ADDR, MASTER_PORT): {_first_line(error)} "
                f"MASTER_ADDR must be this machine, {socket.gethostname()!r}."
            ) from None
        raise TimeoutError(
            f"rank {rank} of {world_size} cannot reach rank 0 at {address}:{port} (MASTER_ADDR, MASTER_PORT) in "
            f"{timeout:g} seconds: it was not started, it has failed, or the address or port is another one there. "
            "See the output of rank 0."
        ) from None
    if of_agent:  # a job that torchrun has started again meets anew
        return PrefixStore(f"attempt/{os.environ.get('TORCHELASTIC_RESTART_COUNT', '0')}", store)
    return store


def _refuse_taken(address: str, port: int) -> None:
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    with socket.socket(family) as listener:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            listener.bind(("", port))
        except OSError as error:
            raise MisconfigurationException(
                f"the port {port} (MASTER_PORT) cannot be used: {error.strerror}. Another job may run on this machine. "
                f"Choose another one, such as MASTER_PORT={find_free_network_port()}, the same for all processes, or "
                "`unset MASTER_PORT` where the Trainer starts them."
            ) from None


def _who_is_missing(missing: list[int], rank: int, world_size: int, address: str, port: int, timeout: float) -> str:
    return (
        f"{_ranks(missing)} of {world_size} did not come to {address}:{port} (MASTER_ADDR, MASTER_PORT) in {timeout:g} "
        f"seconds; rank {rank} is here. Were all processes started, and with the same variables? If they start slowly, "
        "set FULMEN_RENDEZVOUS_TIMEOUT to more seconds."
    )


def _ranks(ranks: list[int]) -> str:
    shown = ", ".join(map(str, ranks[:8])) + (f" and {len(ranks) - 8} more" if len(ranks) > 8 else "")
    return f"rank{'s' * (len(ranks) > 1)} {shown}"


def _first_line(error: Exception) -> str:
    return str(error).partition("\n")[0].rstrip(".") + "."
