"""A mesh of processes in two dimensions: tensor parallel within a group, data parallel between the groups."""

from __future__ import annotations

from collections.abc import Callable, Generator
from contextlib import AbstractContextManager, contextmanager
from datetime import timedelta
from typing import TYPE_CHECKING, Any, Literal

import torch
import torch.distributed as dist
from torch import nn
from torch.distributed.device_mesh import DeviceMesh, init_device_mesh
from torch.distributed.fsdp import FSDPModule, fully_shard

from fulmen.strategies.gathered_steps import Root
from fulmen.strategies.sharded import ShardedStrategy
from fulmen.strategies.sharding import parts_by_hand, shard
from fulmen.utilities.exceptions import MisconfigurationException
from fulmen.utilities.text import a_kind

if TYPE_CHECKING:
    from fulmen.core.module import LightningModule

DATA, TENSOR = "data_parallel", "tensor_parallel"


class ModelParallelStrategy(ShardedStrategy):
    """The module says in ``configure_model`` how it is spread over ``self.device_mesh``, a mesh with the dimensions
    ``"data_parallel"`` and ``"tensor_parallel"``::

        def configure_model(self):
            if self.net is None:
                self.net = Net()
                parallelize_module(self.net, self.device_mesh["tensor_parallel"], {"up": ColwiseParallel(), ...})
                fully_shard(self.net, mesh=self.device_mesh["data_parallel"])

    Processes of one tensor-parallel group get the same batches and the same random numbers. What ``configure_model``
    leaves as it is over ``"data_parallel"`` is sharded there, so that gradients are always those of all groups.

    Args:
        data_parallel_size: groups that work on different batches. ``"auto"``: as many as fit; with both ``"auto"``,
            the number of machines.
        tensor_parallel_size: processes in a group. ``"auto"``: as many as fit; with both ``"auto"``, those of a
            machine.
        save_distributed_checkpoint: checkpoints are folders into which each process writes what it has. False: the
            files that one process writes.
        process_group_backend: of ``torch.distributed``. None: the one for the device, such as ``"gloo"`` for the CPU.
        timeout: how long a collective operation waits for the other processes. None: torch's default.
        parallelize_fn: for Fabric, whose modules have no ``configure_model``: ``parallelize_fn(module, device_mesh)``
            spreads a module that is set up, and returns it. The Trainer does not call it.

    Raises:
        MisconfigurationException: a size is none, or, when the run begins, their product is not the number of
            processes.
        TypeError: when the run begins, the module has no ``configure_model``.
    """

    def __init__(
        self,
        data_parallel_size: Literal["auto"] | int = "auto",
        tensor_parallel_size: Literal["auto"] | int = "auto",
        save_distributed_checkpoint: bool = True,
        process_group_backend: str | None = None,
        timeout: timedelta | None = None,
        *,
        parallelize_fn: Callable[[Any, DeviceMesh], Any] | None = None,
    ) -> None:
        if callable(data_parallel_size):
            raise TypeError(
                "`ModelParallelStrategy` takes its first function by name: write `parallelize_fn="
                f"{getattr(data_parallel_size, '__name__', 'function')}`."
            )
        self._parallelize = parallelize_fn
        super().__init__(process_group_backend=process_group_backend, timeout=timeout)
        for name, size in ((f"{DATA}_size", data_parallel_size), (f"{TENSOR}_size", tensor_parallel_size)):
            if size != "auto" and not (type(size) is int and size > 0):
                raise MisconfigurationException(
                    f"`ModelParallelStrategy({name}={size!r})`: write a number of processes, or 'auto'."
                )
        self._wanted = data_parallel_size, tensor_parallel_size
        self.saves_shards = bool(save_distributed_checkpoint)
        self._mesh: DeviceMesh | None = None

    @property
    def device_mesh(self) -> DeviceMesh:
        """The processes; there from the beginning of a run."""
        if self._mesh is None:
            raise RuntimeError(
                "`device_mesh` is there when the processes are: use it in `configure_model`, not in `__init__`."
            )
        return self._mesh

    @property
    def sizes(self) -> tuple[int, int]:
        """How many groups there are, and how many processes in each."""
        data, tensor = self._wanted
        world = self.world_size
        if data == "auto" and tensor == "auto":
            data, tensor = self.num_nodes, self.num_processes
        elif data == "auto" and isinstance(tensor, int):
            data = world // tensor
        elif tensor == "auto" and isinstance(data, int):
            tensor = world // data
        assert isinstance(data, int)
        assert isinstance(tensor, int)
        if data * tensor != world:
            given = f"data_parallel_size={self._wanted[0]!r}, tensor_parallel_size={self._wanted[1]!r}"
            raise MisconfigurationException(
                f"`ModelParallelStrategy({given})` does not fit {world} processes (`devices={self.num_processes}`, "
                f"`num_nodes={self.num_nodes}`): the product of the two sizes must be {world}. Write sizes that divide "
                "it, or 'auto' for one of them."
            )
        return data, tensor

    @property
    def data_parallel_size(self) -> int:
        return self.sizes[0]

    @property
    def data_parallel_rank(self) -> int:
        return self.global_rank // self.sizes[1]

    @property
    def _data_parallel_size(self) -> Literal["auto"] | int:
        return self._wanted[0]

    @_data_parallel_size.setter
    def _data_parallel_size(self, size: Literal["auto"] | int) -> None:
        self._wanted = size, self._wanted[1]

    @property
    def _tensor_parallel_size(self) -> Literal["auto"] | int:
        return self._wanted[1]

    @_tensor_parallel_size.setter
    def _tensor_parallel_size(self, size: Literal["auto"] | int) -> None:
        self._wanted = self._wanted[0], size

    @property
    def _device_mesh(self) -> DeviceMesh | None:
        return self._mesh

    @_device_mesh.setter
    def _device_mesh(self, mesh: DeviceMesh | None) -> None:
        self._mesh = mesh

    def setup_environment(self) -> None:
        sizes = self.sizes
        super().setup_environment()
        if self._mesh is None:
            self._mesh = init_device_mesh(self.root_device.type, sizes, mesh_dim_names=(DATA, TENSOR))

    def connect(self, module: LightningModule) -> None:
        from fulmen.core.module import LightningModule as Empty

        if type(module).configure_model is Empty.configure_model:
            raise TypeError(
                f"{type(module).__name__} has no `configure_model`, and ModelParallelStrategy does not know how to "
                "spread it. Write `def configure_model(self):`, which makes the layers and spreads them over "
                "`self.device_mesh`, or write `Trainer(strategy='fsdp')`, which needs nothing."
            )
        module.device_mesh = self.device_mesh

    def module_init_context(self, empty_init: bool | None = None) -> AbstractContextManager[Any]:
        return _alike(self, torch.device("meta") if empty_init else self.root_device)

    def shard_module(self, module: LightningModule, root: Root | None) -> None:
        mesh = self.device_mesh[DATA]
        parts = parts_by_hand(module) if root is None and self.data_parallel_size > 1 else []
        parts = [part for part in parts if not isinstance(part, FSDPModule)]

        def spread(part: nn.Module) -> None:
            fully_shard(part, mesh=mesh, reshard_after_forward=False)

        for part in module.modules() if root is not None else ():
            if isinstance(part, FSDPModule):
                root.watch(part)  # type: ignore[union-attr]
        shard(
            root if root is not None else module,
            parts,
            spread,
            self.root_device,
            self.has_weights_to_load,
            as_a_whole=root is not None,
        )

    def shard_whole(self, module: nn.Module) -> nn.Module:
        if self._parallelize is None:
            raise TypeError(
                "ModelParallelStrategy does not know how to spread a module that Fabric sets up. Write "
                "`ModelParallelStrategy(parallelize_fn=spread)` with a function `spread(module, device_mesh)` that "
                "does it and returns the module, or `Fabric(strategy='fsdp')`, which needs nothing."
            )
        spread = self._parallelize(module, self.device_mesh)
        if not isinstance(spread, nn.Module):
            raise TypeError(
                f"`parallelize_fn` returned {a_kind(spread)} instead of the module. Was `return module` forgotten?"
            )

        def over_groups(part: nn.Module) -> None:
            fully_shard(part, mesh=self.device_mesh[DATA], reshard_after_forward=False)

        wanted = self.data_parallel_size > 1 and not isinstance(spread, FSDPModule)
        shard(spread, [], over_groups, self.root_device, as_a_whole=wanted)
        return spread

    def needs_root(self, module: LightningModule) -> bool:
        return self.data_parallel_size > 1 and super().needs_root(module)


@contextmanager
def _alike(strategy: ModelParallelStrategy, device: torch.device) -> Generator[None, None, None]:
    """On ``device``, with the random numbers of the first process on all of them."""
    if dist.is_initialized():
        torch.set_rng_state(strategy.broadcast(torch.get_rng_state()))
    with device:
        yield
