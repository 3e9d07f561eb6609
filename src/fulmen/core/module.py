"""The model and how it is trained: the class that users subclass."""

from __future__ import annotations

import os
from collections.abc import Collection, Generator, Mapping
from contextlib import contextmanager
from typing import IO, TYPE_CHECKING, Any, Literal, Self
from weakref import ref

import torch
from torch import Tensor, nn
from torch._jit_internal import is_scripting

from fulmen.core import export
from fulmen.core.hooks import CheckpointHooks, DataHooks, ModelHooks
from fulmen.core.hparams import HyperparameterOwner
from fulmen.core.optimizer import LightningOptimizer
from fulmen.core.saving import class_only, load_module
from fulmen.utilities.apply_func import apply_to_collection
from fulmen.utilities.enums import GradClipAlgorithmType
from fulmen.utilities.exceptions import MisconfigurationException
from fulmen.utilities.rank_zero import rank_zero_warn
from fulmen.utilities.text import shown

if TYPE_CHECKING:
    from collections.abc import Callable

    from torch.optim import Optimizer

    from fulmen.callbacks.callback import Callback
    from fulmen.loggers.logger import Logger
    from fulmen.trainer.trainer import Trainer
    from fulmen.utilities.types import STEP_OUTPUT, OptimizerLRScheduler

#: spellings that are accepted beside the right one
_OTHER_SPELLINGS = {
    "train_step": "training_step",
    "configure_optimizer": "configure_optimizers",
}


class _ReadOnly(property):
    """A property whose name users like to take for an attribute of their own."""

    def __set__(self, module: Any, value: Any) -> None:
        name = getattr(self.fget, "__name__", "")
        raise AttributeError(
            f"`{type(module).__name__}.{name}` cannot be set to {shown(value)}: it is a property of LightningModule. "
            "Use another name for the attribute."
        )


class LightningModule(HyperparameterOwner, ModelHooks, DataHooks, CheckpointHooks, nn.Module):
    """A ``torch.nn.Module`` that also says how it is trained, validated, tested and used.

    Write at least ``training_step`` and ``configure_optimizers`` and hand the module to a
    :class:`~fulmen.trainer.trainer.Trainer`::

        class Classifier(LightningModule):
            def __init__(self, width=64, lr=1e-3):
                super().__init__()
                self.save_hyperparameters()
                self.net = nn.Sequential(nn.Linear(64, width), nn.ReLU(), nn.Linear(width, 10))

            def training_step(self, batch, batch_idx):
                x, y = batch
                return nn.functional.cross_entropy(self.net(x), y)

            def configure_optimizers(self):
                return torch.optim.Adam(self.parameters(), lr=self.hparams.lr)
    """

    CHECKPOINT_HYPER_PARAMS_KEY = "hyper_parameters"
    CHECKPOINT_HYPER_PARAMS_NAME = "hparams_name"
    CHECKPOINT_HYPER_PARAMS_TYPE = "hparams_type"

    __jit_unused_properties__ = [
        "_current_fx_name",
        "_device",
        "_device_mesh",
        "_runs_it",
        "_steps_schedulers",
        "automatic_optimization",
        "current_epoch",
        "device",
        "device_mesh",
        "dtype",
        "example_input_array",
        "fabric",
        "global_rank",
        "global_step",
        "hparams",
        "hparams_initial",
        "local_rank",
        "logger",
        "loggers",
        "on_gpu",
        "strict_loading",
        "trainer",
    ]

    # class-level defaults: they live outside of nn.Module's own bookkeeping
    _trainer: Trainer | None = None
    _fabric: Callable[[], Any] | None = None
    _automatic_optimization: bool = True
    _strict_loading: bool | None = None
    _example_input_array: Tensor | tuple[Any, ...] | dict[str, Any] | None = None
    _compiled_logs: list[tuple[str, Any, dict[str, Any]]] | None = None
    _toggled: dict[Tensor, bool] | None = None
    _compiler_ctx: dict[str, Any] | None = None  #: packages ask for it, which know it from Lightning
    _automatic_schedulers: bool | None = None  #: None: as the optimization is
    _translated: Collection[str] = ()  #: attributes that are there for the length of a run, and in no copy
    device_mesh: Any = None  #: set by strategies that shard over a mesh of devices

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        for other, right in _OTHER_SPELLINGS.items():
            if other in cls.__dict__ and right not in cls.__dict__:
                setattr(cls, right, cls.__dict__[other])

    # -- where it is, and who trains it -------------------------------------------------------------------------------

    @property
    def trainer(self) -> Trainer:
        """The trainer that runs this module.

        Raises:
            RuntimeError: no trainer does.
        """
        if self._trainer is None and not is_scripting():
            if self.fabric is not None:
                return self.fabric.as_trainer
            raise RuntimeError(
                f"{type(self).__name__} is not attached to a Trainer. "
                "`self.trainer` is there from `setup` on, once `trainer.fit(model)` or another verb was called."
            )
        return self._trainer  # type: ignore[return-value]

    @trainer.setter
    def trainer(self, trainer: Trainer | None) -> None:
        for module in self.modules():
            if isinstance(module, LightningModule):
                module.__dict__["_trainer"] = trainer

    @property
    def fabric(self) -> Any:
        """The :class:`~fulmen.fabric.fabric.Fabric` that set this module up; None if none did. It is not kept alive."""
        return None if self._fabric is None else self._fabric()

    @fabric.setter
    def fabric(self, fabric: Any) -> None:
        for module in self.modules():
            if isinstance(module, LightningModule):
                module.__dict__["_fabric"] = None if fabric is None else ref(fabric)

    @property
    def _runs_it(self) -> Any:
        """Who runs this module, a Trainer or a Fabric; None if nobody does."""
        return self.fabric if self._trainer is None else self._trainer

    @_ReadOnly
    def device(self) -> torch.device:
        """Where the parameters are (the first of them; the CPU if there are none)."""
        for tensor in self.parameters():
            return tensor.device
        for tensor in self.buffers():
            return tensor.device
        return torch.device("cpu")

    @_ReadOnly
    def dtype(self) -> torch.dtype:
        """The type of the first floating-point parameter or buffer; torch's default type if there is none."""
        for tensor in (*self.parameters(), *self.buffers()):
            if tensor.is_floating_point():
                return tensor.dtype
        return torch.get_default_dtype()

    @_ReadOnly
    def on_gpu(self) -> bool:
        return self.device.type == "cuda"

    @_ReadOnly
    def current_epoch(self) -> int:
        """Completed epochs; 0 without a trainer."""
        return 0 if self._trainer is None else self._trainer.current_epoch

    @_ReadOnly
    def global_step(self) -> int:
        """Optimizer steps made; 0 without a trainer."""
        return 0 if self._trainer is None else self._trainer.global_step

    @_ReadOnly
    def global_rank(self) -> int:
        return 0 if self._runs_it is None else self._runs_it.global_rank

    @_ReadOnly
    def local_rank(self) -> int:
        return 0 if self._runs_it is None else self._runs_it.local_rank

    @_ReadOnly
    def logger(self) -> Logger | None:
        """The first logger, or None."""
        return None if self._runs_it is None else self._runs_it.logger

    @_ReadOnly
    def loggers(self) -> list[Logger]:
        return [] if self._runs_it is None else self._runs_it.loggers

    @property
    def automatic_optimization(self) -> bool:
        """True (the default): the trainer calls backward and steps. False: ``training_step`` does, with
        ``self.optimizers()`` and ``self.manual_backward(loss)``."""
        return self._automatic_optimization

    @automatic_optimization.setter
    def automatic_optimization(self, automatic: bool) -> None:
        self.__dict__["_automatic_optimization"] = automatic

    @property
    def _steps_schedulers(self) -> bool:
        """Whether the trainer steps the schedulers: in automatic optimization, unless it was said otherwise."""
        return self.automatic_optimization if self._automatic_schedulers is None else self._automatic_schedulers

    @property
    def strict_loading(self) -> bool:
        """Whether a checkpoint must have exactly this module's keys (default True)."""
        return True if self._strict_loading is None else self._strict_loading

    @strict_loading.setter
    def strict_loading(self, strict: bool) -> None:
        self.__dict__["_strict_loading"] = strict

    @property
    def example_input_array(self) -> Tensor | tuple[Any, ...] | dict[str, Any] | None:
        """An input of ``forward`` for the model summary, the logged graph and export: a tensor, a tuple of positional
        arguments or a dict of keyword arguments. None: not known."""
        return self._example_input_array

    @example_input_array.setter
    def example_input_array(self, example: Tensor | tuple[Any, ...] | dict[str, Any] | None) -> None:
        self.__dict__["_example_input_array"] = example

    # what programs know of the inside of Lightning's

    @property
    def _device(self) -> torch.device:
        return self.device

    @property
    def _device_mesh(self) -> Any:
        return self.device_mesh

    @_device_mesh.setter
    def _device_mesh(self, mesh: Any) -> None:
        self.device_mesh = mesh

    @property
    def _current_fx_name(self) -> str | None:
        """The hook that is being called, or None."""
        return None if self._trainer is None else self._trainer.metrics.hook or None

    def __getstate__(self) -> dict[str, Any]:
        left_out = {"_trainer", "_fabric", "_compiled_logs", "_translated", *self._translated}
        return {name: value for name, value in self.__dict__.items() if name not in left_out}

    # -- what users write ---------------------------------------------------------------------------------------------

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        """What the module computes from an input; ``self(x)`` calls it."""
        raise NotImplementedError(
            f"{type(self).__name__} was called, but has no `forward`. Define `forward(self, x)`, or call its layers."
        )

    def training_step(self, *args: Any, **kwargs: Any) -> STEP_OUTPUT:
        """Compute the loss of one training batch: ``training_step(self, batch, batch_idx)``.

        Returns:
            In automatic optimization the loss as a tensor with one element; a dict with the key ``loss``; a dict with
            ``loss_sum`` and ``weight``, to divide by the sum of the weights over the accumulation window; or None to
            skip the batch. In manual optimization anything of these, it is only passed on to ``on_train_batch_end``.
        """
        raise NotImplementedError(_missing(self, "training_step(self, batch, batch_idx)", "fit"))

    def validation_step(self, *args: Any, **kwargs: Any) -> STEP_OUTPUT:
        """Work on one validation batch: ``validation_step(self, batch, batch_idx)``, with several loaders also
        ``dataloader_idx``. What it returns goes to ``on_validation_batch_end``."""
        raise NotImplementedError(_missing(self, "validation_step(self, batch, batch_idx)", "validate"))

    def test_step(self, *args: Any, **kwargs: Any) -> STEP_OUTPUT:
        """Work on one test batch; like :meth:`validation_step`."""
        raise NotImplementedError(_missing(self, "test_step(self, batch, batch_idx)", "test"))

    def predict_step(self, *args: Any, **kwargs: Any) -> Any:
        """Predict one batch: ``predict_step(self, batch, batch_idx, dataloader_idx=0)``. The default is
        ``self(batch)``.
        """
        batch = kwargs.get("batch", args[0] if args else None)
        return self(batch)

    def configure_optimizers(self) -> OptimizerLRScheduler:
        """Choose optimizers and learning-rate schedulers.

        Returns:
            One optimizer; a list of them (manual optimization only); ``([optimizers], [schedulers])``; a dict with
            ``optimizer`` and ``lr_scheduler``, the latter a scheduler or a dict with ``scheduler``, ``interval``
            (``"epoch"``, ``"step"`` or, say, ``"100step"``), ``frequency``, ``monitor``, ``strict``, ``name``; a list
            of such dicts; or None to train without an optimizer.
        """
        raise NotImplementedError(_missing(self, "configure_optimizers(self)", "fit"))

    def configure_callbacks(self) -> list[Callback] | Callback:
        """Callbacks of this module's own: added to the trainer's, in place of those of the same class."""
        return []

    # -- logging ------------------------------------------------------------------------------------------------------

    def log(
        self,
        name: str,
        value: Any,
        prog_bar: bool = False,
        logger: bool | None = None,
        on_step: bool | None = None,
        on_epoch: bool | None = None,
        reduce_fx: str | Callable[..., Any] = "mean",
        enable_graph: bool = False,
        sync_dist: bool = False,
        sync_dist_group: Any = None,
        add_dataloader_idx: bool = True,
        batch_size: int | None = None,
        metric_attribute: str | None = None,
        rank_zero_only: bool = False,
    ) -> None:
        """Log one value under ``name``.

        Args:
            name: its name; ``/`` groups names in some loggers.
            value: a number, a tensor with one element, or a metric (``update``, ``compute``, ``reset``). Its graph is
                dropped.
            prog_bar: show it in the progress bar.
            logger: send it to the loggers. None: if there are any.
            on_step: send each step's value. None: yes in training, no in evaluation.
            on_epoch: reduce over the epoch and send that value. None: no in training, yes in evaluation and in the
                hooks of an epoch. With both, the names are ``name_step`` and ``name_epoch``.
            reduce_fx: how an epoch's values become one: ``"mean"`` (weighted by the batch size), ``"sum"``, ``"min"``,
                ``"max"``.
            enable_graph: ignored with a warning if True; a logged value never keeps its graph.
            sync_dist: reduce each step's value over all processes. Values of an epoch always are.
            sync_dist_group: the process group to reduce over. None: all processes.
            add_dataloader_idx: with several evaluation loaders, add ``/dataloader_idx_<i>`` to the name.
            batch_size: the weight in the mean. None: the number of samples in the batch.
            metric_attribute: the name of the attribute that holds the metric. None: it is found.
            rank_zero_only: log on the first process only; nothing is reduced over processes.

        Raises:
            MisconfigurationException: the hook does not allow it, or the arguments differ from those of an earlier call
                with this name from this hook.
            ValueError: ``value`` is not one number.
        """
        if torch.compiler.is_compiling():  # noted in the graph, logged after the compiled step has run
            if self._compiled_logs is not None:
                options = {"prog_bar": prog_bar, "logger": logger, "on_step": on_step, "on_epoch": on_epoch}
                options |= {"reduce_fx": reduce_fx, "sync_dist": sync_dist and not rank_zero_only}
                options |= {"rank_zero_only": rank_zero_only, "sync_dist_group": sync_dist_group}
                options |= {"add_dataloader_idx": add_dataloader_idx, "batch_size": batch_size}
                options |= {"metric_attribute": metric_attribute}
                if isinstance(value, Tensor):  # of its own: the step may go on to change the tensor in place
                    value = value.detach().clone()
                self._compiled_logs.append((name, value, options))
            return
        trainer = self._trainer
        if trainer is None:
            if self.fabric is not None:
                self.fabric.log_of_module(name, value, logger)
                return
            rank_zero_warn(
                f"`self.log({name!r}, ...)` was called, but {type(self).__name__} is not attached to a Trainer: "
                "ignored."
            )
            return
        if rank_zero_only and not trainer.is_global_zero:
            return
        if enable_graph:
            rank_zero_warn(f"`self.log({name!r}, enable_graph=True)`: ignored, a logged value never keeps its graph.")
        trainer.metrics.log(
            name,
            value,
            prog_bar,
            logger,
            on_step,
            on_epoch,
            reduce_fx,
            sync_dist and not rank_zero_only,
            add_dataloader_idx,
            batch_size,
            metric_attribute,
            rank_zero_only,
            sync_dist_group,
        )

    def log_dict(
        self,
        dictionary: Mapping[str, Any],
        prog_bar: bool = False,
        logger: bool | None = None,
        on_step: bool | None = None,
        on_epoch: bool | None = None,
        reduce_fx: str | Callable[..., Any] = "mean",
        enable_graph: bool = False,
        sync_dist: bool = False,
        sync_dist_group: Any = None,
        add_dataloader_idx: bool = True,
        batch_size: int | None = None,
        rank_zero_only: bool = False,
    ) -> None:
        """Log each item of ``dictionary`` (or each metric of a torchmetrics ``MetricCollection``) as :meth:`log`."""
        if not hasattr(dictionary, "items"):
            raise TypeError(
                f"`self.log_dict({shown(dictionary)})`: must be a dict of names and values. "
                "For one value write `self.log('name', value)`."
            )
        items = dictionary.items(keep_base=False) if hasattr(dictionary, "compute_groups") else dictionary.items()  # type: ignore[call-arg]
        for name, value in items:
            self.log(
                name,
                value,
                prog_bar=prog_bar,
                logger=logger,
                on_step=on_step,
                on_epoch=on_epoch,
                reduce_fx=reduce_fx,
                enable_graph=enable_graph,
                sync_dist=sync_dist,
                add_dataloader_idx=add_dataloader_idx,
                batch_size=batch_size,
                rank_zero_only=rank_zero_only,
            )

    def print(self, *args: Any, **kwargs: Any) -> None:
        """Print once per job, above the progress bar."""
        if self._runs_it is not None:
            self._runs_it.print(*args, **kwargs)
        else:
            print(*args, **kwargs)

    def all_gather(self, data: Any, group: Any = None, sync_grads: bool = False) -> Any:
        """Collect tensors (at any depth of ``data``) from all processes: a new first dimension of size ``world_size``.
        With one process ``data`` is returned as it is."""
        if self._runs_it is None or self._runs_it.world_size == 1:
            return data
        strategy = self._runs_it.strategy
        return apply_to_collection(data, Tensor, strategy.all_gather, group=group, sync_grads=sync_grads)

    # -- optimization -------------------------------------------------------------------------------------------------

    def optimizers(self, use_pl_optimizer: bool = True) -> Any:
        """The optimizers from ``configure_optimizers``: the one, or the list of them.

        Args:
            use_pl_optimizer: True: wrapped, so that a step goes through the precision plugin. False: torch's own.
        """
        wrapped = self.trainer.wrapped_optimizers if use_pl_optimizer else self.trainer.optimizers
        return wrapped[0] if len(wrapped) == 1 else list(wrapped)

    def lr_schedulers(self) -> Any:
        """The schedulers from ``configure_optimizers``: None, the one, or the list of them. Step them in manual
        optimization."""
        schedulers = [config.scheduler for config in self.trainer.lr_scheduler_configs]
        return None if not schedulers else schedulers[0] if len(schedulers) == 1 else schedulers

    def manual_backward(self, loss: Tensor, *args: Any, **kwargs: Any) -> None:
        """Go backward from ``loss``, in manual optimization, instead of ``loss.backward()``: with the loss scaling of
        the precision in use and the hooks around it.
        """
        if self._trainer is None and self.fabric is not None:
            self.fabric.backward(loss, *args, model=self, **kwargs)
            return
        if self.automatic_optimization:
            raise MisconfigurationException(
                "`self.manual_backward` was called in automatic optimization, where the trainer goes backward by "
                "itself. Return the loss from `training_step`, or set `self.automatic_optimization = False` in "
                "`__init__`."
            )
        call = self.trainer.plan
        call.on_before_backward(loss)
        call.backward(loss, *args, **kwargs)
        call.on_after_backward()

    def backward(self, loss: Tensor, *args: Any, **kwargs: Any) -> None:
        """Compute gradients. Write it to go backward in a way of your own."""
        loss.backward(*args, **kwargs)

    def optimizer_step(
        self,
        epoch: int,
        batch_idx: int,
        optimizer: Optimizer | LightningOptimizer,
        optimizer_closure: Callable[[], Any] | None = None,
    ) -> None:
        """Step the optimizer. Write it to step in a way of your own; it must call ``optimizer_closure``, which does the
        forward and the backward of the batch, or give it to ``optimizer.step``."""
        optimizer.step(closure=optimizer_closure)  # type: ignore[arg-type]

    def optimizer_zero_grad(self, epoch: int, batch_idx: int, optimizer: Optimizer) -> None:
        """Free the gradients before the first backward of an accumulation window."""
        optimizer.zero_grad()

    def lr_scheduler_step(self, scheduler: Any, metric: Any | None) -> None:
        """Step a scheduler; ``metric`` is the monitored value of one on a plateau, else None."""
        if metric is None:
            scheduler.step()
        else:
            scheduler.step(metric)

    def clip_gradients(
        self,
        optimizer: Optimizer,
        gradient_clip_val: int | float | None = None,
        gradient_clip_algorithm: str | None = None,
    ) -> None:
        """Clip the gradients of the optimizer's parameters.

        Args:
            gradient_clip_val: the largest norm, or the largest absolute value of an element. None: the Trainer's; 0:
                off.
            gradient_clip_algorithm: ``"norm"`` or ``"value"``. None: the Trainer's, or ``"norm"``.
        """
        given_val, given_algorithm = self.trainer.gradient_clip_val, self.trainer.gradient_clip_algorithm
        for name, value, given in (
            ("gradient_clip_val", gradient_clip_val, given_val),
            ("gradient_clip_algorithm", gradient_clip_algorithm, given_algorithm),
        ):
            if value is not None and given is not None and value != given:
                raise MisconfigurationException(
                    f"`clip_gradients({name}={value!r})` contradicts `Trainer({name}={given!r})`. Give it in one place."
                )
        value = gradient_clip_val if gradient_clip_val is not None else given_val or 0.0
        algorithm = gradient_clip_algorithm or given_algorithm or "norm"
        if not isinstance(value, (int, float)):
            raise TypeError(f"`gradient_clip_val` must be a number, not {value!r}.")
        kind = GradClipAlgorithmType.from_str(str(algorithm))
        if kind is None:
            raise MisconfigurationException(
                f"`gradient_clip_algorithm` is {algorithm!r}; allowed are 'norm' and 'value'."
            )
        if self._trainer is None and self.fabric is not None and value > 0:
            limit = "clip_val" if kind == GradClipAlgorithmType.VALUE else "max_norm"
            self.fabric.clip_gradients(self, optimizer, error_if_nonfinite=False, **{limit: value})
            return
        self.trainer.precision_plugin.clip_gradients(optimizer, value, kind)

    def configure_gradient_clipping(
        self,
        optimizer: Optimizer,
        gradient_clip_val: int | float | None = None,
        gradient_clip_algorithm: str | None = None,
    ) -> None:
        """Clip before each step. Write it to clip in a way of your own."""
        self.clip_gradients(optimizer, gradient_clip_val, gradient_clip_algorithm)

    def toggle_optimizer(self, optimizer: Optimizer | LightningOptimizer) -> None:
        """Let only this optimizer's parameters require gradients, until :meth:`untoggle_optimizer`."""
        before = dict(self._toggled or {})
        for other in self.trainer.optimizers:
            for parameter in _parameters_of(other):
                before.setdefault(parameter, parameter.requires_grad)
                parameter.requires_grad = False
        for parameter in _parameters_of(optimizer):
            parameter.requires_grad = before[parameter]
        self.__dict__["_toggled"] = before

    def untoggle_optimizer(self, optimizer: Optimizer | LightningOptimizer) -> None:
        """Give back what :meth:`toggle_optimizer` took from the other optimizers' parameters."""
        for parameter, requires_grad in (self._toggled or {}).items():
            parameter.requires_grad = requires_grad
        self.__dict__["_toggled"] = None

    @contextmanager
    def toggled_optimizer(self, optimizer: Optimizer | LightningOptimizer) -> Generator[None, None, None]:
        """:meth:`toggle_optimizer` for the length of a ``with``."""
        self.toggle_optimizer(optimizer)
        try:
            yield
        finally:
            self.untoggle_optimizer(optimizer)

    # -- the finished model -------------------------------------------------------------------------------------------

    def freeze(self) -> LightningModule:
        """Switch off all gradients and go into evaluation mode."""
        self.requires_grad_(False)
        return self.eval()

    def unfreeze(self) -> LightningModule:
        """Switch on all gradients and go into training mode."""
        self.requires_grad_(True)
        return self.train()

    @class_only
    def load_from_checkpoint(
        cls,
        checkpoint_path: str | os.PathLike[str] | IO[bytes],
        map_location: Any = None,
        hparams_file: str | os.PathLike[str] | None = None,
        strict: bool | None = None,
        weights_only: bool | None = None,
        **kwargs: Any,
    ) -> Self:
        """Make a module from a checkpoint; see :func:`fulmen.core.saving.load_module`."""
        return load_module(cls, checkpoint_path, map_location, hparams_file, strict, weights_only, **kwargs)

    def to_onnx(self, file_path: Any = None, input_sample: Any = None, **kwargs: Any) -> Any:
        """Save as ONNX; see :func:`fulmen.core.export.to_onnx`."""
        return export.to_onnx(self, file_path, input_sample, **kwargs)

    def to_torchscript(
        self,
        file_path: Any = None,
        method: Literal["script", "trace"] = "script",
        example_inputs: Any = None,
        **kwargs: Any,
    ) -> Any:
        """Compile to TorchScript; see :func:`fulmen.core.export.to_torchscript`."""
        return export.to_torchscript(self, file_path, method, example_inputs, **kwargs)

    def to_tensorrt(self, file_path: str | IO[bytes] | None = None, input_sample: Any = None, **kwargs: Any) -> Any:
        """Compile for TensorRT; see :func:`fulmen.core.export.to_tensorrt`."""
        return export.to_tensorrt(self, file_path, input_sample, **kwargs)

    def to_exported_program(self, input_sample: Any = None, **kwargs: Any) -> Any:
        """Export ``forward`` with ``torch.export``; see :func:`fulmen.core.export.to_exported_program`."""
        return export.to_exported_program(self, input_sample, **kwargs)


def _parameters_of(optimizer: Any) -> list[Tensor]:
    return [parameter for group in optimizer.param_groups for parameter in group["params"]]


def _missing(module: LightningModule, signature: str, verb: str) -> str:
    name = signature.partition("(")[0]
    return f"`trainer.{verb}` needs {type(module).__name__}.{name}. Define `def {signature}:`."
