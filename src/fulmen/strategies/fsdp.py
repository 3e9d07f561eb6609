"""The parameters, their gradients and the optimizer's state are spread over all processes."""

from __future__ import annotations

from dataclasses import fields
from datetime import timedelta
from typing import TYPE_CHECKING, Any, Literal

import torch
from torch import nn
from torch.distributed.device_mesh import DeviceMesh, init_device_mesh
from torch.distributed.fsdp import CPUOffloadPolicy, FSDPModule, MixedPrecisionPolicy, OffloadPolicy, fully_shard

from fulmen.strategies.gathered_steps import Root
from fulmen.strategies.sharded import ShardedStrategy
from fulmen.strategies.sharding import Policy, parts_by_hand, parts_of, shard
from fulmen.utilities.exceptions import MisconfigurationException
from fulmen.utilities.rank_zero import rank_zero_info, rank_zero_warn

if TYPE_CHECKING:
    from fulmen.accelerators.accelerator import Accelerator
    from fulmen.core.module import LightningModule
    from fulmen.plugins.environments.cluster_environment import ClusterEnvironment
    from fulmen.plugins.io.checkpoint_plugin import CheckpointIO
    from fulmen.plugins.precision.precision import Precision

_SHARDING = ("FULL_SHARD", "SHARD_GRAD_OP", "HYBRID_SHARD", "_HYBRID_SHARD_ZERO2")

#: by the name of a precision: the type in which parameters are gathered, and that in which gradients are reduced
_TYPES: dict[str, tuple[torch.dtype | None, torch.dtype]] = {
    "16-mixed": (torch.float16, torch.float32),
    "bf16-mixed": (torch.bfloat16, torch.float32),
    "16-true": (None, torch.float32),
    "bf16-true": (None, torch.float32),
}

#: arguments of the older ``FullyShardedDataParallel`` that have no meaning here
_OF_THE_OLDER_ONE = ("use_orig_params", "backward_prefetch", "forward_prefetch", "limit_all_gathers", "device_id")
_OF_FULLY_SHARD = ("reshard_after_forward", "shard_placement_fn", "offload_policy")


class FSDPStrategy(ShardedStrategy):
    """``torch.distributed.fsdp.fully_shard``: each process keeps its share of every parameter, and gathers a part of
    the module when it is run.

    The module stays of the user's class, and its parameters keep their names. They are ``DTensor`` from the moment at
    which optimizers are made, and stay so after the run.

    Args:
        cpu_offload: True, or a policy of torch: keep shards and optimizer state in the memory of the host, and step
            there. None: False.
        mixed_precision: the types in which parameters are gathered and gradients reduced: a ``MixedPrecisionPolicy``,
            or the ``MixedPrecision`` of the older ``FullyShardedDataParallel``. Steps then get their batches in the
            first of them. None: as ``Trainer(precision=...)`` says.
        auto_wrap_policy: which sub-modules are gathered one by one: a set of classes, or a function ``policy(module) ->
            bool``. What is in none of them is gathered as one. None: the members of each ``ModuleList`` or
            ``Sequential`` that has at least two of the same class.
        activation_checkpointing: a class of sub-modules, or a list of them: compute their activations again in the
            backward pass instead of keeping them.
        activation_checkpointing_policy: the same, as a set of classes or a function. Give one of the two.
        sharding_strategy: ``"FULL_SHARD"``: parameters are freed after the forward pass of their part.
            ``"SHARD_GRAD_OP"``: after the backward pass. ``"HYBRID_SHARD"``: sharded within a group of processes (a
            machine, unless ``device_mesh`` says otherwise), with a copy in each group.
        state_dict_type: ``"full"``: checkpoints are the files that one process writes. ``"sharded"``: folders into
            which each process writes what it has, see
            :class:`~fulmen.plugins.io.distributed_plugin.DistributedCheckpointIO`.
        device_mesh: ``(copies, shards)`` for ``"HYBRID_SHARD"``, or a ``DeviceMesh`` with one or two dimensions.
        **kwargs: further arguments of ``fully_shard``: ``reshard_after_forward``, ``shard_placement_fn``,
            ``offload_policy``. Those of the older ``FullyShardedDataParallel`` that have no meaning here are ignored
            with a warning.

    The other arguments are those of :class:`ParallelStrategy`.

    Raises:
        MisconfigurationException: an argument has none of these forms, or two contradict each other.
        TypeError: an argument is not known.
    """

    strategy_name = "fsdp"

    def __init__(
        self,
        accelerator: Accelerator | None = None,
        parallel_devices: list[torch.device] | None = None,
        cluster_environment: ClusterEnvironment | None = None,
        checkpoint_io: CheckpointIO | None = None,
        precision_plugin: Precision | None = None,
        process_group_backend: str | None = None,
        timeout: timedelta | None = None,
        cpu_offload: Any = None,
        mixed_precision: Any = None,
        auto_wrap_policy: Policy | None = None,
        activation_checkpointing: type[nn.Module] | list[type[nn.Module]] | None = None,
        activation_checkpointing_policy: Policy | None = None,
        sharding_strategy: str = "FULL_SHARD",
        state_dict_type: Literal["full", "sharded"] = "full",
        device_mesh: tuple[int, int] | DeviceMesh | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(
            accelerator,
            parallel_devices,
            cluster_environment,
            checkpoint_io,
            precision_plugin,
            process_group_backend,
            timeout,
        )
        self.saves_shards = _is_sharded(state_dict_type)
        self.sharding_strategy = _sharding(sharding_strategy)
        self._policy = _checked_policy("auto_wrap_policy", auto_wrap_policy)
        self._recomputes = _recomputed(activation_checkpointing, activation_checkpointing_policy)
        self._mixed_precision = _policy_of(mixed_precision)
        self._offload = _offload(cpu_offload)
        self._wanted_mesh = _checked_mesh(device_mesh, self.sharding_strategy)
        self._kwargs = _known(kwargs)
        self.casts_batches = mixed_precision is not None
        self._mesh: DeviceMesh | None = None

    @property
    def mixed_precision_policy(self) -> MixedPrecisionPolicy:
        """The types in which parameters are gathered and gradients reduced."""
        if self._mixed_precision is not None:
            return self._mixed_precision
        gathered, reduced = _TYPES.get(str(self.precision_plugin.precision), (None, None))
        return MixedPrecisionPolicy(param_dtype=gathered, reduce_dtype=reduced)

    @property
    def device_mesh(self) -> DeviceMesh:
        """The processes, as ``fully_shard`` takes them; there from the beginning of a run."""
        if self._mesh is None:
            raise RuntimeError("`device_mesh` is there when a run has begun; call `trainer.fit(model)` first.")
        return self._mesh

    def setup_environment(self) -> None:
        super().setup_environment()
        if self._mesh is None:
            self._mesh = self._new_mesh()
        if self.world_size == 1:
            rank_zero_info("fsdp with one process: nothing is spread, and all of it costs as much memory as before")

    def _new_mesh(self) -> DeviceMesh:
        wanted, kind = self._wanted_mesh, self.root_device.type
        if isinstance(wanted, DeviceMesh):
            return wanted
        if wanted is None and not self._is_hybrid:
            return init_device_mesh(kind, (self.world_size,), mesh_dim_names=("shard",))
        copies, shards = wanted if wanted is not None else (self.num_nodes, self.num_processes)
        if copies * shards != self.world_size:
            raise MisconfigurationException(
                f"`FSDPStrategy(device_mesh={wanted})` is of {copies} x {shards} = {copies * shards} processes, and "
                f"this run has {self.world_size}. Write a pair whose product is {self.world_size}."
            )
        return init_device_mesh(kind, (copies, shards), mesh_dim_names=("replicate", "shard"))

    @property
    def _is_hybrid(self) -> bool:
        return "HYBRID" in self.sharding_strategy.upper()

    @property
    def rows_of_carry(self) -> int:
        return self.device_mesh.size(-1)

    def shard_module(self, module: LightningModule, root: Root | None) -> None:
        parts = self._parts(module)
        if root is None:
            parts = list(dict.fromkeys([*parts, *parts_by_hand(module)]))
        self._spread(root if root is not None else module, parts, root)

    def shard_whole(self, module: nn.Module) -> nn.Module:
        if isinstance(module, FSDPModule):  # by hand
            return module
        parts = [part for part in self._parts(module) if not isinstance(part, FSDPModule)]
        self._spread(module, parts, None, as_a_whole=True)
        return module

    def _parts(self, module: nn.Module) -> list[nn.Module]:
        parts = parts_of(module, self._policy)
        if self._recomputes is not None:
            recompute(parts_of(module, self._recomputes))
        return parts

    def _spread(self, whole: nn.Module, parts: list[nn.Module], root: Root | None, as_a_whole: bool = False) -> None:
        """Shard ``parts``, and ``whole`` if that is a root or is to be."""
        as_a_whole = as_a_whole or root is not None
        more: dict[str, Any] = {"mesh": self.device_mesh, "offload_policy": self._offload, **self._kwargs}
        frees = more.pop("reshard_after_forward", self.sharding_strategy in ("FULL_SHARD", "HYBRID_SHARD"))
        types = self.mixed_precision_policy

        def spread(part: nn.Module) -> None:
            # what is in no part is needed during the whole step, also between two calls of the module
            fully_shard(part, reshard_after_forward=False if part is whole else frees, mp_policy=types, **more)
            if root is not None and part is not root:
                root.watch(part)

        device = torch.device("cpu") if isinstance(self._offload, CPUOffloadPolicy) else self.root_device
        if root is not None and types.param_dtype is not None:  # its numbers are not to be rounded
            fully_shard(root.carrier, **more)
        shard(whole, parts, spread, device, self.has_weights_to_load, as_a_whole)


def recompute(chosen: list[nn.Module]) -> None:
    """Let modules compute their activations again in the backward pass; their names stay."""
    from torch.distributed._composable.checkpoint_activation import checkpoint

    for one in chosen:
        checkpoint(one)


# -- arguments --------------------------------------------------------------------------------------------------------


def _is_sharded(state_dict_type: str) -> bool:
    if state_dict_type not in ("full", "sharded"):
        raise MisconfigurationException(
            f"`FSDPStrategy(state_dict_type={state_dict_type!r})`: write 'full' (one file) or 'sharded' (a folder)."
        )
    return state_dict_type == "sharded"


def _sharding(value: Any) -> str:
    name = str(getattr(value, "name", value)).upper()
    if name == "NO_SHARD":
        raise MisconfigurationException(
            f"`FSDPStrategy(sharding_strategy={value!r})` shards nothing. Write `Trainer(strategy='ddp')`, which does "
            "the same and costs less."
        )
    if name not in _SHARDING:
        raise MisconfigurationException(
            f"`FSDPStrategy(sharding_strategy={value!r})` is not known. Write 'FULL_SHARD', 'SHARD_GRAD_OP' or "
            "'HYBRID_SHARD'."
        )
    return name


def _checked_policy(name: str, policy: Any) -> Policy | None:
    if policy is None or callable(policy) or hasattr(policy, "_run_policy"):
        if isinstance(policy, type):
            raise MisconfigurationException(
                f"`FSDPStrategy({name}={policy.__name__})` is a class. Write a set of them: {{{policy.__name__}}}."
            )
        return policy
    if isinstance(policy, (set, frozenset, list, tuple)) and policy:
        wrong = [one for one in policy if not (isinstance(one, type) and issubclass(one, nn.Module))]
        if not wrong:
            return set(policy)
        raise MisconfigurationException(
            f"`FSDPStrategy({name}=...)` has {wrong[0]!r}, which is no class of modules. Write the classes themselves, "
            "as in {torch.nn.TransformerEncoderLayer}."
        )
    raise MisconfigurationException(
        f"`FSDPStrategy({name}={policy!r})`: write a set of classes of modules, or a function `policy(module) -> bool`."
    )


def _recomputed(classes: Any, policy: Any) -> Policy | None:
    if classes is not None and policy is not None:
        raise MisconfigurationException(
            "`FSDPStrategy` was given `activation_checkpointing` and `activation_checkpointing_policy`, which say the "
            "same. Pass one of them."
        )
    if classes is not None:
        return _checked_policy("activation_checkpointing", {classes} if isinstance(classes, type) else classes)
    return _checked_policy("activation_checkpointing_policy", policy)


def _policy_of(given: Any) -> MixedPrecisionPolicy | None:
    if given is None or isinstance(given, MixedPrecisionPolicy):
        return given
    names = {field.name for field in fields(given)} if hasattr(type(given), "__dataclass_fields__") else set()
    if not {"param_dtype", "reduce_dtype"} <= names:
        raise MisconfigurationException(
            f"`FSDPStrategy(mixed_precision={given!r})`: write "
            "`torch.distributed.fsdp.MixedPrecisionPolicy(param_dtype=torch.bfloat16, reduce_dtype=torch.float32)`, or "
            "leave it out and write `Trainer(precision='bf16-mixed')`."
        )
    if getattr(given, "buffer_dtype", None) is not None:
        rank_zero_warn(
            f"`mixed_precision` has `buffer_dtype={given.buffer_dtype}`, which is ignored: buffers keep their type. "
            "Convert them in the module if you want another."
        )
    return MixedPrecisionPolicy(param_dtype=given.param_dtype, reduce_dtype=given.reduce_dtype)


def _offload(given: Any) -> OffloadPolicy:
    if isinstance(given, OffloadPolicy):
        return given
    if given is None or isinstance(given, bool):
        wanted = bool(given)
    else:
        wanted = getattr(given, "offload_params", None)  # torch's of the older one
        if wanted is None:
            raise MisconfigurationException(
                f"`FSDPStrategy(cpu_offload={given!r})`: write True, False, or "
                "`torch.distributed.fsdp.CPUOffloadPolicy()`."
            )
    return CPUOffloadPolicy(pin_memory=torch.accelerator.is_available()) if wanted else OffloadPolicy()


def _checked_mesh(mesh: Any, sharding: str) -> Any:
    if mesh is None or isinstance(mesh, DeviceMesh):
        return mesh
    if not (isinstance(mesh, (tuple, list)) and len(mesh) == 2 and all(type(size) is int for size in mesh)):
        raise MisconfigurationException(
            f"`FSDPStrategy(device_mesh={mesh!r})`: write a pair (copies, shards), or a DeviceMesh."
        )
    if "HYBRID" not in sharding:
        raise MisconfigurationException(
            f"`FSDPStrategy(device_mesh={mesh!r}, sharding_strategy={sharding!r})`: a pair (copies, shards) belongs to "
            "`sharding_strategy='HYBRID_SHARD'`. Write that, or leave the mesh out."
        )
    return tuple(mesh)


def _known(kwargs: dict[str, Any]) -> dict[str, Any]:
    ignored = [name for name in kwargs if name in _OF_THE_OLDER_ONE]
    if ignored:
        rank_zero_warn(
            f"`FSDPStrategy({', '.join(ignored)})`: ignored. They belong to the older `FullyShardedDataParallel`; "
            "parameters always keep their names, and parts are fetched ahead of their use. Leave them out."
        )
    unknown = [name for name in kwargs if name not in (*_OF_THE_OLDER_ONE, *_OF_FULLY_SHARD)]
    if unknown:
        raise TypeError(
            f"`FSDPStrategy({unknown[0]}=...)` is not known. Besides its own arguments it takes those of "
            f"`fully_shard`: {', '.join(_OF_FULLY_SHARD)}."
        )
    return {name: value for name, value in kwargs.items() if name not in _OF_THE_OLDER_ONE}
