"""Several processes, each with a device of its own, that work on one run together."""

from __future__ import annotations

import atexit
import os
from abc import ABC
from datetime import timedelta
from typing import TYPE_CHECKING, Any, Literal, TypeVar

import torch
import torch.distributed as dist
from torch import Tensor
from torch.distributed import PrefixStore, Store  # pyright: ignore[reportPrivateImportUsage]

from fulmen.plugins.environments.lightning import LightningEnvironment
from fulmen.strategies.launchers.launcher import Launcher
from fulmen.strategies.launchers.subprocess_script import SubprocessScriptLauncher
from fulmen.strategies.rendezvous import interface_to, meet
from fulmen.strategies.strategy import Strategy
from fulmen.utilities.exceptions import MisconfigurationException
from fulmen.utilities.program import is_worker_of_ray
from fulmen.utilities.rank_zero import rank_zero_only

if TYPE_CHECKING:
    from fulmen.accelerators.accelerator import Accelerator
    from fulmen.plugins.environments.cluster_environment import ClusterEnvironment
    from fulmen.plugins.io.checkpoint_plugin import CheckpointIO
    from fulmen.plugins.precision.precision import Precision
    from fulmen.strategies.control.control import Control

T = TypeVar("T")
StartMethod = Literal["popen", "spawn", "fork", "forkserver"]


class ParallelStrategy(Strategy, ABC):
    """A process group of ``torch.distributed``, and what its processes do together.

    Args:
        accelerator: the kind of device. None: the Trainer's.
        parallel_devices: the device of each process of this machine. None: those that the Trainer chose.
        cluster_environment: who the processes are and where they meet. None: as the Trainer finds it.
        checkpoint_io: how checkpoint files are written. None: :class:`TorchCheckpointIO`.
        precision_plugin: how numbers are kept. None: the Trainer's.
        process_group_backend: of ``torch.distributed``. None: the one for the device, such as ``"gloo"`` for the CPU.
        timeout: how long a collective operation waits for the other processes. None: torch's default.
        start_method: how the Trainer starts processes where nobody else has: ``"popen"`` (the program once more for
            each), ``"spawn"``, ``"fork"`` or ``"forkserver"``.
        rendezvous_timeout: seconds to wait for all processes at the start. None: those of the environment variable
            ``FULMEN_RENDEZVOUS_TIMEOUT``, else 60 on one machine and 600 on several.

    Attributes:
        stall_timeout: how long none of the processes may advance before they are reported: which one is where, and what
            its threads do. Setting up, saving and the first batch of an epoch may take three times that. None: never.
        on_stall: ``"report"`` and go on waiting, or ``"end"`` the job.
    """

    stall_timeout: timedelta | None = timedelta(minutes=10)
    on_stall: Literal["report", "end"] = "report"

    def __init__(
        self,
        accelerator: Accelerator | None = None,
        parallel_devices: list[torch.device] | None = None,
        cluster_environment: ClusterEnvironment | None = None,
        checkpoint_io: CheckpointIO | None = None,
        precision_plugin: Precision | None = None,
        process_group_backend: str | None = None,
        timeout: timedelta | None = None,
        start_method: StartMethod = "popen",
        rendezvous_timeout: float | None = None,
    ) -> None:
        super().__init__(accelerator, checkpoint_io, precision_plugin)
        if start_method not in ("popen", "spawn", "fork", "forkserver"):
            raise ValueError(
                f"{type(self).__name__}(start_method={start_method!r}): must be 'popen', 'spawn', 'fork' or "
                "'forkserver'."
            )
        self._start_method, self._rendezvous_timeout = start_method, rendezvous_timeout
        self.parallel_devices = parallel_devices
        self.cluster_environment = cluster_environment
        self.num_nodes = 1
        self._backend, self._timeout = process_group_backend, timeout
        self._launcher: Launcher | None = None
        self._starts_processes = False
        self.store: Store | None = None  #: where the processes met; what they tell each other outside of steps

    # -- who and where ------------------------------------------------------------------------------------------------

    @property
    def num_processes(self) -> int:
        """How many processes this machine has."""
        return len(self.parallel_devices or ())

    @property
    def world_size(self) -> int:
        return self.num_processes * self.num_nodes

    @property
    def local_rank(self) -> int:
        return self._environment.local_rank()

    @property
    def node_rank(self) -> int:
        return self._environment.node_rank()

    @property
    def global_rank(self) -> int:
        environment = self._environment
        environment.set_world_size(self.world_size)
        environment.set_global_rank(environment.node_rank() * self.num_processes + environment.local_rank())
        return environment.global_rank()

    @property
    def root_device(self) -> torch.device:
        assert self.parallel_devices is not None
        return self.parallel_devices[self.local_rank % len(self.parallel_devices)]

    @property
    def _environment(self) -> ClusterEnvironment:
        if self.cluster_environment is None:
            self.cluster_environment = LightningEnvironment()
        return self.cluster_environment

    @property
    def process_group_backend(self) -> str:
        """The backend of ``torch.distributed`` for the devices."""
        return self._backend or dist.get_default_backend_for_device(self.root_device)

    @property
    def launcher(self) -> Launcher | None:
        before = SubprocessScriptLauncher.latest
        if before is not None and before.is_of_other_job:
            leave_group()
            before.finish()
            self._environment.teardown()
        if self._environment.creates_processes_externally and not self._starts_processes:
            return None
        if self._launcher is None:
            self._launcher = self._new_launcher()
            self._starts_processes = True
        return self._launcher

    def __getstate__(self) -> dict[str, Any]:
        """For a copy in a process that a launcher has started."""
        return {**self.__dict__, "_launcher": None, "_starts_processes": False, "store": None}

    def _new_launcher(self) -> Launcher:
        if self._start_method == "popen":
            return SubprocessScriptLauncher(self._environment, self.num_processes, self.num_nodes)
        from fulmen.strategies.launchers.multiprocessing import MultiProcessingLauncher

        return MultiProcessingLauncher(self._environment, self.num_processes, self.num_nodes, self._start_method)

    # -- the process group --------------------------------------------------------------------------------------------

    def setup_environment(self) -> None:
        super().setup_environment()
        self._environment.validate_settings(self.num_processes, self.num_nodes)
        rank_zero_only.rank = self.global_rank  # type: ignore[attr-defined]
        if not dist.is_initialized():
            self.store = meet(
                self._environment, self.global_rank, self.world_size, self._rendezvous_timeout, self._launcher
            )
            card = interface_to(self._environment.main_address) if self.num_nodes > 1 else None
            if card is not None:
                os.environ.setdefault("GLOO_SOCKET_IFNAME", card)
            dist.init_process_group(
                self.process_group_backend,
                store=PrefixStore("group", self.store),
                rank=self.global_rank,
                world_size=self.world_size,
                timeout=self._timeout,
            )
            atexit.register(leave_group)
        elif dist.get_world_size() != self.world_size:
            raise MisconfigurationException(
                f"this process belongs to a group of {dist.get_world_size()} processes, and the Trainer was asked for "
                f"{self.world_size}. Use the same `devices` and `num_nodes` for all Trainers of a program."
            )
        control = self.control = _control_of_group()
        if control is not None:
            control.is_attended = is_worker_of_ray()
        if control is not None and isinstance(self._launcher, SubprocessScriptLauncher):
            self._launcher.is_told = lambda: control.failure is not None

    def reduce(self, tensor: Any, group: Any = None, reduce_op: str | None = "mean") -> Any:
        if not isinstance(tensor, Tensor):
            tensor = torch.as_tensor(tensor, device=self.root_device)
        result = tensor.detach().clone()
        if reduce_op in ("mean", "avg") and not result.is_floating_point():
            result = result.to(torch.get_default_dtype())
        operation = {"min": dist.ReduceOp.MIN, "max": dist.ReduceOp.MAX}.get(str(reduce_op), dist.ReduceOp.SUM)
        dist.all_reduce(result, op=operation, group=group)
        return result / dist.get_world_size(group) if reduce_op in ("mean", "avg") else result

    def barrier(self, name: str | None = None) -> None:
        if self.root_device.type == "cpu":
            dist.barrier()
        else:
            dist.barrier(device_ids=[self.root_device.index or 0])

    def broadcast(self, obj: T, src: int = 0) -> T:
        if not dist.is_initialized():  # the program that has spawned the processes of a run
            return obj
        objects: list[Any] = [obj]
        dist.broadcast_object_list(objects, src, device=self.root_device)
        return objects[0]

    def gather_objects(self, obj: Any) -> list[Any]:
        objects: list[Any] = [None] * dist.get_world_size()
        dist.all_gather_object(objects, obj)
        return objects

    def all_gather(self, tensor: Tensor, group: Any = None, sync_grads: bool = False) -> Tensor:
        tensor = tensor.contiguous()
        if sync_grads:
            from torch.distributed.nn.functional import all_gather

            return torch.stack(list(all_gather(tensor, group)))  # type: ignore[arg-type]
        gathered = [torch.empty_like(tensor) for _ in range(dist.get_world_size(group))]
        dist.all_gather(gathered, tensor.detach(), group=group)
        return torch.stack(gathered)

    def reduce_boolean_decision(self, decision: bool, all: bool = True) -> bool:
        count = self.reduce(torch.tensor(int(decision), device=self.root_device), reduce_op="sum")
        return int(count) == self.world_size if all else int(count) > 0

    def teardown(self) -> None:
        super().teardown()
        self._environment.teardown()


#: of the process group of this process, which several Trainers may use one after another
_controls: dict[Any, Control] = {}


def _control_of_group() -> Control | None:
    group = dist.group.WORLD
    if dist.get_world_size() == 1:
        return None
    if group not in _controls:
        from fulmen.strategies.control.control import Control

        for control in _controls.values():
            control.close()
        _controls.clear()
        store = dist.distributed_c10d._get_default_store()
        _controls[group] = Control(store, dist.get_rank(), dist.get_world_size())
    return _controls[group]


def leave_group() -> None:
    """Make this process one that works alone."""
    for control in _controls.values():
        control.close()
    _controls.clear()
    if dist.is_initialized():
        dist.destroy_process_group()
