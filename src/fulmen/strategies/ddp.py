"""Every process has the whole model and a share of the data; gradients are averaged."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from datetime import timedelta
from typing import TYPE_CHECKING, Any, Literal

import torch
import torch.distributed as dist
from torch import nn
from torch.nn.parallel import DistributedDataParallel

from fulmen.strategies.parallel import ParallelStrategy

if TYPE_CHECKING:
    from fulmen.accelerators.accelerator import Accelerator
    from fulmen.core.module import LightningModule
    from fulmen.plugins.environments.cluster_environment import ClusterEnvironment
    from fulmen.plugins.io.checkpoint_plugin import CheckpointIO
    from fulmen.plugins.precision.precision import Precision


class DDPStrategy(ParallelStrategy):
    """``DistributedDataParallel`` around the training step.

    Args:
        ddp_comm_state: the state of ``ddp_comm_hook``.
        ddp_comm_hook: how gradients are exchanged, as of ``DistributedDataParallel.register_comm_hook``.
        ddp_comm_wrapper: wraps the hook, as ``fp16_compress_wrapper`` does.
        model_averaging_period: steps between two averages of the parameters, for post-local SGD.
        start_method: how the Trainer starts processes: ``"popen"`` (the program once more for each), ``"spawn"``,
            ``"fork"`` or ``"forkserver"``.
        **kwargs: those of ``DistributedDataParallel``, such as ``find_unused_parameters`` or ``static_graph``.

    The other arguments are those of :class:`ParallelStrategy`.
    """

    def __init__(
        self,
        accelerator: Accelerator | None = None,
        parallel_devices: list[torch.device] | None = None,
        cluster_environment: ClusterEnvironment | None = None,
        checkpoint_io: CheckpointIO | None = None,
        precision_plugin: Precision | None = None,
        ddp_comm_state: object | None = None,
        ddp_comm_hook: Callable[..., Any] | None = None,
        ddp_comm_wrapper: Callable[..., Any] | None = None,
        model_averaging_period: int | None = None,
        process_group_backend: str | None = None,
        timeout: timedelta | None = None,
        start_method: Literal["popen", "spawn", "fork", "forkserver"] = "popen",
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
        self._comm_state, self._comm_hook, self._comm_wrapper = ddp_comm_state, ddp_comm_hook, ddp_comm_wrapper
        self._model_averaging_period = model_averaging_period
        self._start_method = start_method
        self._ddp_kwargs = kwargs

    def setup_module(self, module: LightningModule) -> None:
        super().setup_module(module)
        for tensor in (*module.parameters(), *module.buffers()):
            dist.broadcast(tensor.data, 0)

    def setup_training(self, module: LightningModule) -> None:
        if any(parameter.requires_grad for parameter in module.parameters()):
            devices = None if self.root_device.type == "cpu" else [self.root_device]
            self.model = DistributedDataParallel(_Steps(module), device_ids=devices, **self._ddp_kwargs)
            if self._comm_hook is not None:
                hook = self._comm_hook if self._comm_wrapper is None else self._comm_wrapper(self._comm_hook)
                self.model.register_comm_hook(self._comm_state, hook)

    def wrap_step(self, name: str, step: Callable[..., Any]) -> Callable[..., Any]:
        if name != "training_step" or not isinstance(self.model, DistributedDataParallel):
            return step
        self.model.module.step = step
        return self.model

    def no_backward_sync(self) -> AbstractContextManager[Any]:
        if isinstance(self.model, DistributedDataParallel):
            return self.model.no_sync()
        return super().no_backward_sync()


class _Steps(nn.Module):
    """What is wrapped: calling it is one training step of the module."""

    step: Callable[..., Any]

    def __init__(self, module: nn.Module) -> None:
        super().__init__()
        self.module = module

    def forward(self, *args: Any) -> Any:
        return self.step(*args)
