"""Several devices of torch_xla, each with a process of its own. The package is imported when it is used.

There was no machine to run several on: with one device this was run on PJRT's CPU.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, TypeVar

import torch
from torch import Tensor

from fulmen.plugins.io.xla_plugin import XLACheckpointIO
from fulmen.plugins.precision.precision import Precision
from fulmen.plugins.precision.xla import XLAPrecision
from fulmen.strategies.launchers.launcher import Launcher
from fulmen.strategies.parallel import ParallelStrategy
from fulmen.strategies.single_xla import chosen_precision, sent_at_its_end
from fulmen.strategies.strategy import Strategy
from fulmen.utilities.exceptions import MisconfigurationException
from fulmen.utilities.imports import require
from fulmen.utilities.rank_zero import rank_zero_only

if TYPE_CHECKING:
    from torch import nn

    from fulmen.accelerators.accelerator import Accelerator
    from fulmen.core.module import LightningModule
    from fulmen.plugins.io.checkpoint_plugin import CheckpointIO

T = TypeVar("T")


class XLAStrategy(ParallelStrategy):
    """Each process has the whole model on one XLA device and a share of the data; gradients are averaged before a step.

    The processes are started by ``torch_xla.launch``, one for each device of the machine. ``training_step`` returns a
    mean loss for every batch.

    Args:
        parallel_devices: left to torch_xla.
        debug: keep the names of operations in the programs, so that those that are slow can be found.
        sync_module_states: begin with the weights of the first process on all of them.

    Raises:
        ModuleNotFoundError: ``torch_xla`` is not installed.
        TypeError: the precision is not that of XLA.
    """

    strategy_name = "xla"

    allows_inference_mode = False
    forward_is_collective = True

    def __init__(
        self,
        accelerator: Accelerator | None = None,
        parallel_devices: list[torch.device] | None = None,
        checkpoint_io: CheckpointIO | None = None,
        precision_plugin: XLAPrecision | None = None,
        debug: bool = False,
        sync_module_states: bool = True,
    ) -> None:
        require("torch_xla", "XLAStrategy")
        if precision_plugin is not None and not isinstance(precision_plugin, XLAPrecision):
            raise TypeError(
                f"XLAStrategy(precision_plugin={type(precision_plugin).__name__}): XLA has a precision of its own. "
                "Write `XLAPrecision('32-true')`."
            )
        super().__init__(accelerator, parallel_devices, None, checkpoint_io or XLACheckpointIO(), precision_plugin)
        self.debug, self.sync_module_states = debug, sync_module_states
        self._module: LightningModule | None = None

    def choose_precision(self, numbers: Precision) -> None:
        self.precision_plugin = chosen_precision(self, numbers)

    # -- who and where ------------------------------------------------------------------------------------------------

    @property
    def _has_several(self) -> bool:
        return self.num_processes * self.num_nodes > 1

    @property
    def world_size(self) -> int:
        return _runtime().world_size() if self._has_several and _is_started() else self.num_processes * self.num_nodes

    @property
    def global_rank(self) -> int:
        return _runtime().global_ordinal() if self._has_several and _is_started() else 0

    @property
    def local_rank(self) -> int:
        return _runtime().local_ordinal() if self._has_several and _is_started() else 0

    @property
    def node_rank(self) -> int:
        return _runtime().host_index() if self._has_several and _is_started() else 0

    @property
    def root_device(self) -> torch.device:
        import torch_xla  # type: ignore[import-not-found]

        return torch_xla.device()

    @property
    def launcher(self) -> Launcher | None:
        if not self._has_several or _is_started():
            return None
        if os.environ.get("PJRT_DEVICE", "").startswith("CPU"):
            raise MisconfigurationException(
                f"`devices={self.num_processes}` with PJRT_DEVICE=CPU: torch_xla drives the devices of a CPU by the "
                "threads of one process, and a run needs a process for each. Write `devices=1`, or "
                "`Trainer(accelerator='cpu', strategy='ddp')`."
            )
        from fulmen.strategies.launchers.xla import XLALauncher

        return XLALauncher(self._environment, self.num_processes, self.num_nodes)

    def setup_environment(self) -> None:
        if self.debug:
            os.environ["PT_XLA_DEBUG"] = "1"
        Strategy.setup_environment(self)
        rank_zero_only.rank = self.global_rank  # type: ignore[attr-defined]

    # -- the module ---------------------------------------------------------------------------------------------------

    def setup_module(self, module: LightningModule) -> None:
        super().setup_module(module)
        self._module = module
        import torch_xla  # type: ignore[import-not-found]

        if self._has_several and self.sync_module_states:
            _model().broadcast_master_param(module)
        torch_xla.sync()

    def wrap_module(self, module: nn.Module, move_to_device: bool = True) -> nn.Module:
        if self.world_size > 1:
            raise MisconfigurationException(
                "several devices of torch_xla are run by the Trainer only. Write `Fabric(devices=1)`, or "
                "`Trainer(strategy='xla')`."
            )
        return super().wrap_module(module, move_to_device)

    def setup_training(self, module: LightningModule) -> None:
        if self._has_several and isinstance(self.precision_plugin, XLAPrecision):
            self.precision_plugin.exchange = self._average

    def _average(self, optimizer: Any) -> None:
        assert self._module is not None
        window = self._module.trainer.window
        if window.weight is not None or window.missing or window.short:
            raise MisconfigurationException(
                "XLAStrategy averages the gradients of mean losses: return one for each batch, not `loss_sum` and "
                "`weight`, and give loaders with a length where `accumulate_grad_batches` is not 1."
            )
        _model().reduce_gradients(optimizer)

    def wrap_step(self, name: str, step: Callable[..., Any]) -> Callable[..., Any]:
        return step if name == "training_step" else sent_at_its_end(step)

    def join_backward(self) -> None:
        if self._has_several:
            raise MisconfigurationException(
                f"there is no loss on rank {self.global_rank}: `training_step` returned None, or the data has fewer "
                "batches than there are processes. XLAStrategy needs one for every batch; return a loss of zero, as "
                "`self(inputs).sum() * 0`."
            )

    def teardown(self) -> None:
        self._module = None
        if isinstance(self.precision_plugin, XLAPrecision):
            self.precision_plugin.exchange = None
        super().teardown()

    # -- working together ---------------------------------------------------------------------------------------------

    def gather_objects(self, obj: Any) -> list[Any]:
        return list(_model().mesh_reduce("objects", obj, list)) if self._has_several else [obj]

    def broadcast(self, obj: T, src: int = 0) -> T:
        return self.gather_objects(obj)[src]

    def barrier(self, name: str | None = None) -> None:
        if self._has_several:
            _model().rendezvous(name or "barrier")

    def reduce(self, tensor: Any, group: Any = None, reduce_op: str | None = "mean") -> Any:
        value = torch.as_tensor(tensor).detach()
        every = torch.stack(self.gather_objects(value.cpu()))
        if reduce_op in ("mean", "avg"):
            every = every if every.is_floating_point() else every.to(torch.get_default_dtype())
            return every.mean(0).to(value.device)
        found = {"min": every.amin, "max": every.amax}.get(str(reduce_op), every.sum)(0)
        return found.to(value.device)

    def all_gather(self, tensor: Tensor, group: Any = None, sync_grads: bool = False) -> Tensor:
        if sync_grads:
            from torch_xla.core.functions import all_gather  # type: ignore[import-not-found]

            return all_gather(tensor.unsqueeze(0))
        return torch.stack([one.to(tensor.device) for one in self.gather_objects(tensor.detach().cpu())])

    def reduce_boolean_decision(self, decision: bool, all: bool = True) -> bool:
        votes = self.gather_objects(bool(decision))
        return sum(votes) == len(votes) if all else any(votes)


def _model() -> Any:
    from torch_xla.core import xla_model  # type: ignore[import-not-found]

    return xla_model


def _runtime() -> Any:
    from torch_xla import runtime  # type: ignore[import-not-found]

    return runtime


def _is_started() -> bool:
    """Whether this process is one of those that torch_xla has started."""
    from fulmen.strategies.launchers.xla import STARTED

    return STARTED in os.environ
