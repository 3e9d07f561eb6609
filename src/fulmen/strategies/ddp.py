"""Every process has the whole model and a share of the data; gradients are averaged."""

from __future__ import annotations

import re
from collections.abc import Callable
from contextlib import AbstractContextManager
from datetime import timedelta
from typing import TYPE_CHECKING, Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from fulmen.strategies.gradient_exchange import GradientExchange
from fulmen.strategies.late import JOINS, Late, Steps, share_of
from fulmen.strategies.parallel import ParallelStrategy, StartMethod
from fulmen.utilities.exceptions import MisconfigurationException
from fulmen.utilities.rank_zero import rank_zero_warn

if TYPE_CHECKING:
    from torch.distributed.algorithms.ddp_comm_hooks.post_localSGD_hook import PostLocalSGDState

    from fulmen.accelerators.accelerator import Accelerator
    from fulmen.core.module import LightningModule
    from fulmen.plugins.environments.cluster_environment import ClusterEnvironment
    from fulmen.plugins.io.checkpoint_plugin import CheckpointIO
    from fulmen.plugins.precision.precision import Precision
    from fulmen.trainer.trainer import Trainer


class DDPStrategy(ParallelStrategy):
    """``DistributedDataParallel`` around the training step.

    In manual optimization, where a step may go backward as often as it likes, nothing is wrapped: gradients are
    averaged at the end of each backward pass.

    Args:
        ddp_comm_state: the state of ``ddp_comm_hook``.
        ddp_comm_hook: how gradients are exchanged, as of ``DistributedDataParallel.register_comm_hook``.
        ddp_comm_wrapper: wraps the hook, as ``fp16_compress_wrapper`` does.
        model_averaging_period: steps between two averages of the parameters, for post-local SGD.
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
        start_method: StartMethod = "popen",
        rendezvous_timeout: float | None = None,
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
            start_method,
            rendezvous_timeout,
        )
        self._comm_state, self._comm_hook, self._comm_wrapper = ddp_comm_state, ddp_comm_hook, ddp_comm_wrapper
        self._model_averaging_period = model_averaging_period
        self._ddp_kwargs = kwargs
        self._module: LightningModule | None = None
        self._exchange: GradientExchange | None = None  # in manual optimization
        self._joining: Tensor | None = None  # what this process goes backward from, as its user has skipped the batch
        self._trained: tuple[int, ...] = ()  # the parameters that were trained when the module was wrapped

    # -- the module ---------------------------------------------------------------------------------------------------

    def setup_module(self, module: LightningModule) -> None:
        super().setup_module(module)
        if not module.trainer.training:  # else the wrapper does it
            self._make_alike(module, with_parameters=True)

    def setup_training(self, module: LightningModule) -> None:
        self._module = module
        if not module.automatic_optimization:
            self._set_up_exchange(module)
        elif any(parameter.requires_grad for parameter in module.parameters()):
            self._wrap(module)
        else:
            self._make_alike(module, with_parameters=True)

    def _wrap(self, module: LightningModule) -> None:
        steps = Steps(module, self.root_device)
        self.model = steps
        self.configure_ddp()
        assert self.model is not None
        steps.finds_unused = bool(getattr(self.model, "find_unused_parameters", False)) and not self._is_static()
        averages = self.world_size > 1 and not getattr(self.model, "_comm_hooks", ())  # no hook that does otherwise
        self.late = steps.late = Late(steps.carry, self.global_rank, self._unused_parameters if averages else None)
        module.trainer.window.late = self.late
        self._trained = _trained_ones(module)

    def wrap_module(self, module: nn.Module, move_to_device: bool = True) -> nn.Module:
        module = super().wrap_module(module, move_to_device)
        if not any(parameter.requires_grad for parameter in module.parameters()):
            self._make_alike(module, with_parameters=True)
            return module
        wrapper = self._setup_model(module)
        self._register_hook(wrapper)
        return wrapper

    def without_sync(self, wrapped: nn.Module) -> AbstractContextManager[Any]:
        return wrapped.no_sync() if isinstance(wrapped, DistributedDataParallel) else super().without_sync(wrapped)

    def _is_static(self) -> bool:
        return bool(getattr(self.model, "static_graph", False))

    def configure_ddp(self) -> None:
        """Wrap ``self.model``, and have gradients exchanged as the user said."""
        assert self.model is not None
        self.model = self._setup_model(self.model)
        self._register_ddp_hooks()

    def _setup_model(self, model: nn.Module) -> DistributedDataParallel:
        return DistributedDataParallel(model, device_ids=self.determine_ddp_device_ids(), **self._ddp_kwargs)

    def _register_ddp_hooks(self) -> None:
        if isinstance(self.model, DistributedDataParallel):
            self._register_hook(self.model)

    def _register_hook(self, wrapper: DistributedDataParallel) -> None:
        if self._comm_hook is not None:
            hook = self._comm_hook if self._comm_wrapper is None else self._comm_wrapper(self._comm_hook)
            wrapper.register_comm_hook(self._comm_state, hook)

    def determine_ddp_device_ids(self) -> list[int] | None:
        """The argument ``device_ids`` of ``DistributedDataParallel``: this process's device; None on the CPU."""
        device = self.root_device
        return None if device.type == "cpu" or device.index is None else [device.index]

    def _set_up_exchange(self, module: LightningModule) -> None:
        self._make_alike(module, with_parameters=True)
        if self._comm_hook is not None:
            rank_zero_warn(
                f"`ddp_comm_hook={getattr(self._comm_hook, '__name__', self._comm_hook)}` is ignored in manual "
                "optimization, where gradients are averaged at the end of each backward pass."
            )
        megabytes = self._ddp_kwargs.get("bucket_cap_mb") or 25
        if any(parameter.is_floating_point() for parameter in module.parameters()):
            self._exchange = GradientExchange(
                module, lambda: module.trainer.progress.total_batches, int(megabytes * 2**20)
            )

    def start_epoch(self) -> None:
        module = self._module
        if module is None or not isinstance(self.model, DistributedDataParallel):
            return
        if self._trained != _trained_ones(module):  # frozen or thawed: the old wrapper would wait for what never comes
            self._wrap(module)

    def teardown(self) -> None:
        if self._exchange is not None:
            self._exchange.remove()
        if self._module is not None:
            self.model = self._module
        self.late = self._module = self._exchange = self._joining = None
        super().teardown()

    # -- steps --------------------------------------------------------------------------------------------------------

    def wrap_step(self, name: str, step: Callable[..., Any]) -> Callable[..., Any]:
        if name != "training_step":
            return step
        if self._exchange is not None:
            return self._manual_step(self._exchange, step)

        def training_step(*args: Any) -> Any:
            wrapper = self.model
            if not isinstance(wrapper, DistributedDataParallel) or self.late is None:
                return step(*args)
            steps: dict[str, Any] = wrapper.module.__dict__
            steps["call"] = step, args
            self.late.begin()
            try:
                output = wrapper()
            except RuntimeError as error:
                if "finished reduction in the prior iteration" in str(error):
                    raise self._unused_parameters(str(error)) from error
                raise
            if steps.pop("joins", False):
                self._joining, output = output[JOINS], None
            return output

        return training_step

    def _manual_step(self, exchange: GradientExchange, step: Callable[..., Any]) -> Callable[..., Any]:
        def training_step(*args: Any) -> Any:
            assert self._module is not None
            if self._ddp_kwargs.get("broadcast_buffers", True):
                self._make_alike(self._module)
            with exchange.weighing(share_of(self._module.trainer.data.group_sizes, self.data_parallel_rank)):
                return step(*args)

        return training_step

    def join_backward(self) -> None:
        if self._joining is not None and self._module is not None:
            loss, self._joining = self._joining, None
            self.precision_plugin.pre_backward(loss, self._module).backward()  # a scaler knows of a loss here, too

    def exchange_gradients(self, announce: Callable[[], None]) -> None:
        wrapper = self.model
        if isinstance(wrapper, DistributedDataParallel) and self.late is not None and self._module is not None:
            touched = [parameter.grad is not None for parameter in self._module.parameters() if parameter.requires_grad]
            if any(touched) and not all(touched) and not wrapper.module.finds_unused:
                raise self._unused_parameters()
            self.wrap_step("training_step", _no_loss)()  # a pass of nothing takes along the gradients that are there
        announce()
        self.join_backward()

    def no_backward_sync(self) -> AbstractContextManager[Any]:
        if isinstance(self.model, DistributedDataParallel):
            return self.model.no_sync()
        if self._exchange is not None:
            return self._exchange.held_back()
        return super().no_backward_sync()

    def _unused_parameters(self, message: str = "") -> Exception:
        """The error for gradients that were not exchanged, as not all of them came."""
        steps = self.model.module if isinstance(self.model, DistributedDataParallel) else None
        named = list(steps.named_parameters()) if steps is not None else []
        named = [(name.removeprefix("module."), one) for name, one in named if one.requires_grad]
        places = re.search(r"did not receive grad for rank \d+: ([\d ]+)", message)
        if places is not None:
            names = [named[int(place)][0] for place in places[1].split() if int(place) < len(named)]
        else:
            names = [name for name, one in named if one.grad is None and one is not getattr(steps, "carry", None)]
        shown = ", ".join(map(repr, names[:8])) + (f" and {len(names) - 8} more" if len(names) > 8 else "")
        return MisconfigurationException(
            f"the loss of rank {self.global_rank} does not depend on {shown or 'some parameters'}, so that no gradient "
            "came and the processes cannot average theirs. Freeze what is not trained, by `requires_grad_(False)`, or "
            "write `Trainer(strategy='ddp_find_unused_parameters_true')`, which looks for such parameters in each step."
        )

    # -- what else must be alike --------------------------------------------------------------------------------------

    def _make_alike(self, module: nn.Module, with_parameters: bool = False) -> None:
        """Give all processes the buffers (and parameters) of rank 0, in few messages."""
        ignored = set(getattr(module, "_ddp_params_and_buffers_to_ignore", ()))
        named = [*module.named_parameters(), *module.named_buffers()] if with_parameters else module.named_buffers()
        tensors = [tensor.detach() for name, tensor in named if name not in ignored]
        if tensors and self.world_size > 1:
            dist._broadcast_coalesced(dist.group.WORLD, tensors, 250 * 2**20, 0)  # type: ignore[arg-type]

    def _before_evaluation(self) -> None:
        if self._module is not None:  # in training each process's own have moved on
            self._make_alike(self._module)

    on_validation_start = on_test_start = on_predict_start = _before_evaluation

    def on_train_start(self) -> None:
        from torch.distributed.algorithms.ddp_comm_hooks.post_localSGD_hook import PostLocalSGDState

        if isinstance(self._comm_state, PostLocalSGDState) and self._module is not None:
            average_periodically(self._module.trainer, self._model_averaging_period, self._comm_state)


def average_periodically(trainer: Trainer, period: int | None, state: PostLocalSGDState) -> None:
    """Average the parameters over all processes after every ``period`` steps, once post-local SGD is local.

    Raises:
        ValueError: there is no period, or an optimizer shares out its state itself.
    """
    from torch.distributed.algorithms.model_averaging.averagers import PeriodicModelAverager
    from torch.distributed.optim import PostLocalSGDOptimizer, ZeroRedundancyOptimizer

    if period is None:
        raise ValueError(
            "DDPStrategy: post-local SGD needs `model_averaging_period`, the number of steps between two averages of "
            "the parameters. Write `DDPStrategy(..., model_averaging_period=8)`."
        )
    averager = PeriodicModelAverager(period=period, warmup_steps=state.start_localSGD_iter)
    averager.step = trainer.progress.step  # a run that goes on does so here, too
    state.iter = max(state.iter, trainer.progress.step)
    for optimizer in trainer.optimizers:
        if isinstance(optimizer, (PostLocalSGDOptimizer, ZeroRedundancyOptimizer)):
            raise ValueError(
                f"DDPStrategy: post-local SGD cannot average the parameters of a {type(optimizer).__name__}, which is "
                "distributed itself. Return a plain optimizer from `configure_optimizers`."
            )

        def average(optimizer: Any, args: Any, kwargs: Any) -> None:
            averager.average_parameters(optimizer.param_groups)

        trainer.when_torn_down(optimizer.register_step_post_hook(average).remove)


def _no_loss() -> None:
    """A step that gives no loss."""


def _trained_ones(module: nn.Module) -> tuple[int, ...]:
    return tuple(id(parameter) for parameter in module.parameters() if parameter.requires_grad)
