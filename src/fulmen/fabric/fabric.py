"""Fabric: devices, processes, precision, checkpoints and loggers for a loop that its user writes."""

from __future__ import annotations

import inspect
import os
import weakref
from collections.abc import Callable, Generator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from functools import cached_property, partial
from typing import TYPE_CHECKING, Any, TypeVar

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from fulmen.core.module import LightningModule
from fulmen.fabric.arguments import from_environment, is_started_by_command
from fulmen.fabric.attached import FabricAsTrainer
from fulmen.fabric.processes import Processes
from fulmen.fabric.shares import Batches, divided
from fulmen.fabric.state import checked_filters, dumped, give_back, has_promises, plain, put_back
from fulmen.fabric.wrappers import (
    _FabricDataLoader,
    _FabricModule,
    _FabricOptimizer,
    _uncompiled,
    going_backward,
    is_wrapped,
)
from fulmen.plugins.precision.precision import WithoutInitialisation
from fulmen.trainer import flags, hardware, placement
from fulmen.trainer.sources import refuse_no_loader
from fulmen.utilities.apply_func import (
    convert_tensors_to_scalars,
)
from fulmen.utilities.grads import clip_grad_norm, clip_grad_value
from fulmen.utilities.rank_zero import rank_zero_warn
from fulmen.utilities.seed import seed_everything
from fulmen.utilities.text import a_kind, shown

if TYPE_CHECKING:
    from fulmen.accelerators.accelerator import Accelerator
    from fulmen.loggers.logger import Logger
    from fulmen.strategies.strategy import Strategy

T = TypeVar("T")
_DEFAULTS: dict[str, Any] = {
    "accelerator": "auto",
    "strategy": "auto",
    "devices": "auto",
    "num_nodes": 1,
    "precision": None,
}


class Fabric(Processes):
    """Runs a loop that its user writes on any device, by any strategy and in any precision of the Trainer::

        fabric = Fabric(accelerator="cpu", devices=2, strategy="ddp")
        fabric.launch()
        model, optimizer = fabric.setup(model, optimizer)
        loader = fabric.setup_dataloaders(loader)
        for inputs, targets in loader:
            optimizer.zero_grad()
            loss = torch.nn.functional.cross_entropy(model(inputs), targets)
            fabric.backward(loss)
            optimizer.step()

    The first five arguments may also come from the environment, as ``LT_<ARGUMENT>``, where ``fulmen run`` leaves them;
    what is written in the program wins.

    Args:
        accelerator: the kind of device, as of :class:`~fulmen.trainer.trainer.Trainer`.
        strategy: ``"auto"``, a name such as ``"ddp"`` or ``"fsdp"``, or a Strategy.
        devices: how many devices of each machine, or a list of their numbers, as of the Trainer.
        num_nodes: how many machines.
        precision: ``"32-true"``, ``"bf16-mixed"`` and so on, as of the Trainer. None: ``"32-true"``.
        plugins: a Precision, a CheckpointIO, a ClusterEnvironment or a Strategy, or a list of them.
        callbacks: objects whose methods :meth:`call` calls by name, or one.
        loggers: where :meth:`log` sends values: a Logger or several. None: nowhere.

    Raises:
        ValueError: an argument has a value that is not known.
        MisconfigurationException: arguments contradict each other, or this machine lacks what is asked for.
    """

    def __init__(
        self,
        *,
        accelerator: str | Accelerator = "auto",
        strategy: str | Strategy = "auto",
        devices: list[int] | str | int = "auto",
        num_nodes: int = 1,
        precision: int | str | torch.dtype | None = None,
        plugins: Any = None,
        callbacks: list[Any] | Any | None = None,
        loggers: Logger | list[Logger] | None = None,
    ) -> None:
        written = dict(
            accelerator=accelerator, strategy=strategy, devices=devices, num_nodes=num_nodes, precision=precision
        )
        given = from_environment(written, _DEFAULTS)
        chosen_plugins = hardware.plugin_list(plugins)
        chosen = hardware.chosen_strategy(given["strategy"], chosen_plugins)
        kind = hardware.accelerator(given["accelerator"], chosen)
        indices = hardware.device_indices(given["devices"], kind)
        numbers = hardware.precision(given["precision"], chosen_plugins, kind.device(indices[0]).type)
        nodes = flags.nodes(given["num_nodes"])
        self._strategy = placement.strategy(chosen, kind, indices, nodes, numbers, chosen_plugins)
        self._callbacks = list(callbacks) if isinstance(callbacks, (list, tuple)) else [callbacks]
        self._callbacks = [callback for callback in self._callbacks if callback is not None]
        self._loggers = flags.loggers(False if loggers is None else loggers, os.getcwd())
        self._modules: list[_FabricModule] = []
        self.optimizers_set_up: list[_FabricOptimizer] = []  #: in the order in which they were
        self._replaced: list[weakref.ref[Tensor]] = []  # parameters in whose place others are trained
        self._is_ready = self._is_launched = False
        if type(self).run is not Fabric.run:
            self.run = partial(self._launch_run, self.run)
        if is_started_by_command():  # all processes are there
            self._begin()
            self._watch()

    @cached_property
    def as_trainer(self) -> FabricAsTrainer:
        """What a LightningModule that was set up has as its ``trainer``."""
        return FabricAsTrainer(self)

    # -- setting up ---------------------------------------------------------------------------------------------------

    def setup(
        self,
        module: nn.Module,
        *optimizers: Optimizer,
        scheduler: Any = None,
        move_to_device: bool = True,
        _reapply_compile: bool = True,
    ) -> Any:
        """Set up a module and its optimizers.

        Args:
            module: the module. One that ``torch.compile`` returned is compiled around what the strategy makes of it.
            optimizers: of its parameters, whenever they were made.
            scheduler: a learning-rate scheduler of an optimizer; comes back as it is.
            move_to_device: put the module onto the device.

        Returns:
            What behaves as the module and calls it through the strategy, in the precision; with optimizers a tuple of
            it and of theirs (and the scheduler).

        Raises:
            ValueError: one of them was set up before.
            TypeError: one is no module, or no optimizer.
            RuntimeError: there are several processes, and they were not launched.
        """
        self._check_optimizers(optimizers)
        if scheduler is not None and not optimizers:
            raise TypeError(
                "`fabric.setup(module, scheduler=...)`: a scheduler needs its optimizer beside it. Pass both."
            )
        wrapped = self._setup_module(module, optimizers, move_to_device, _reapply_compile)
        if not optimizers:
            return wrapped
        return (wrapped, *self._wrapped(optimizers), *([] if scheduler is None else [scheduler]))

    def setup_module(self, module: nn.Module, move_to_device: bool = True, _reapply_compile: bool = True) -> Any:
        """Set up a module without optimizers; see :meth:`setup`."""
        return self._setup_module(module, (), move_to_device, _reapply_compile)

    def _setup_module(self, module: nn.Module, optimizers: Any, move_to_device: bool, compiles: bool) -> _FabricModule:
        if is_wrapped(module):
            raise ValueError("`fabric.setup` was given a module that it has set up already. Set it up once.")
        if not isinstance(module, nn.Module):
            raise TypeError(f"`fabric.setup({shown(module)})`: must be a `torch.nn.Module`, not {a_kind(module)}.")
        self._require_processes("setup")
        plain_module = _uncompiled(module)
        precision, strategy = self._strategy.precision_plugin, self._strategy
        before = dict(plain_module.named_parameters())
        _check_parameters(plain_module, optimizers)
        own = precision.convert_module(plain_module)
        forward_module = strategy.wrap_module(own, move_to_device)
        if not any(inside is own for inside in forward_module.modules()):
            own = forward_module
        self._follow(before, dict(own.named_parameters()), optimizers)
        compiled = None
        if plain_module is not module and compiles:
            again: Any = module
            compiled = type(again)(forward_module, again.dynamo_ctx)
        wrapped = _FabricModule(forward_module, strategy, own, compiled)
        self._modules.append(wrapped)
        if isinstance(own, LightningModule):
            own.fabric = self
            if not any(callback is own for callback in self._callbacks):
                self._callbacks.append(own)
        return wrapped

    def _follow(self, before: dict[str, Any], after: dict[str, Any], optimizers: tuple[Optimizer, ...]) -> None:
        """Let optimizers that were made before step the parameters that have come in the place of others."""
        replaced = {id(one): after[name] for name, one in before.items() if name in after and after[name] is not one}
        self._replaced += [weakref.ref(one) for one in before.values() if id(one) in replaced]
        for optimizer in optimizers if replaced else ():
            for group in optimizer.param_groups:
                group["params"] = [replaced.get(id(one), one) for one in group["params"]]
            for one in [one for one in optimizer.state if id(one) in replaced]:
                new, state = replaced[id(one)], optimizer.state.pop(one)
                names = [name for name, value in state.items() if isinstance(value, Tensor)]
                parts = self._strategy.own_parts([(state[name], new) for name in names])
                optimizer.state[new] = {**state, **dict(zip(names, parts))}

    def setup_optimizers(self, *optimizers: Optimizer) -> Any:
        """Set up optimizers of modules that are set up; see :meth:`setup`.

        Returns:
            The one, or a tuple of all.
        """
        if not optimizers:
            raise ValueError("`fabric.setup_optimizers()` was given no optimizer. Pass at least one.")
        self._check_optimizers(optimizers)
        self._require_processes("setup_optimizers")
        gone = {id(one) for ref in self._replaced if (one := ref()) is not None}
        for optimizer in optimizers:
            if any(id(one) in gone for group in optimizer.param_groups for one in group["params"]):
                raise RuntimeError(
                    f"{type(optimizer).__name__} was made before `fabric.setup_module(model)`, which has put others in "
                    "the place of the parameters that it steps. Make it of `model.parameters()` after that, or write "
                    "`fabric.setup(model, optimizer)`."
                )
        wrapped = self._wrapped(optimizers)
        return wrapped[0] if len(wrapped) == 1 else tuple(wrapped)

    def _check_optimizers(self, optimizers: tuple[Any, ...]) -> None:
        for optimizer in optimizers:
            if is_wrapped(optimizer):
                raise ValueError("`fabric.setup` was given an optimizer that it has set up already. Set it up once.")
            if not isinstance(optimizer, Optimizer):
                raise TypeError(
                    f"`fabric.setup(..., {shown(optimizer)})`: must be a `torch.optim.Optimizer`, not "
                    f"{a_kind(optimizer)}."
                )

    def _wrapped(self, optimizers: tuple[Optimizer, ...]) -> list[_FabricOptimizer]:
        precision = self._strategy.precision_plugin
        earlier: list[Any] = [one.optimizer for one in self.optimizers_set_up]
        precision.teardown()  # it looks at all of them together
        first: Any = self._modules[0].module if self._modules else nn.Module()
        _, known, _ = precision.connect(first, [*earlier, *optimizers], [])
        wrapped = [_FabricOptimizer(one, self._strategy, self._callbacks) for one in known[len(earlier) :]]
        self.optimizers_set_up += wrapped
        return wrapped

    def setup_dataloaders(
        self, *dataloaders: Any, use_distributed_sampler: bool = True, move_to_device: bool = True
    ) -> Any:
        """Set up loaders. They are not changed, nor made anew.

        Args:
            dataloaders: loaders, or other iterables.
            use_distributed_sampler: of several processes each gets its own batches: of each group of as many batches as
                there are processes, one. False, or where a sampler or data set knows its rank: all of its loader's.
            move_to_device: put batches onto the device.

        Returns:
            The one, or a list of all.

        Raises:
            ValueError: there is none, or one was set up before.
            TypeError: one cannot be iterated over.
            RuntimeError: there are several processes, and they were not launched.
        """
        if not dataloaders:
            raise ValueError("`fabric.setup_dataloaders()` was given no loader. Pass at least one.")
        for loader in dataloaders:
            if is_wrapped(loader):
                raise ValueError("`fabric.setup_dataloaders` was given a loader that it has set up. Set it up once.")
            refuse_no_loader("`fabric.setup_dataloaders`: its user", loader)
            if not hasattr(loader, "__iter__"):
                raise TypeError(
                    f"`fabric.setup_dataloaders({shown(loader)})`: {a_kind(loader)} cannot be iterated over. Give a "
                    "`torch.utils.data.DataLoader`."
                )
        self._require_processes("setup_dataloaders")
        all_ = divided(list(dataloaders), self._strategy) if use_distributed_sampler else map(Batches, dataloaders)
        device = self.device if move_to_device else None
        wrapped = [_FabricDataLoader(batches.loader, device, batches) for batches in all_]
        return wrapped[0] if len(wrapped) == 1 else wrapped

    # -- a step -------------------------------------------------------------------------------------------------------

    def backward(self, tensor: Tensor, *args: Any, model: Any = None, **kwargs: Any) -> None:
        """``tensor.backward(*args, **kwargs)``, and what the precision does around it.

        Args:
            model: the module that the loss is of, for precisions that ask. None: the one that was set up first.

        Raises:
            RuntimeError: nothing was set up; or, on several processes, the loss is of a module that the others do not
                hear of, as none that ``setup`` returned has run.
        """
        if not self._modules and model is None:
            raise RuntimeError(
                "`fabric.backward` was called before `fabric.setup(model, optimizer)`, so that neither the precision "
                "nor the other processes would hear of it. Set up the model first, and call what `setup` returned."
            )
        if self.world_size > 1 and self._modules and not any(module._has_run for module in self._modules):
            raise RuntimeError(
                "`fabric.backward(loss)`: no module that `fabric.setup` returned has run, so that the loss is of the "
                "module as it was before, and each process would train its own. Call what `setup` returned: "
                "`model, optimizer = fabric.setup(model, optimizer)`."
            )
        precision = self._strategy.precision_plugin
        with going_backward():
            if precision.goes_backward_alone:
                tensor.backward(*args, **kwargs)
                return
            module: Any = plain(model) if model is not None else self._modules[0].module
            tensor = precision.pre_backward(tensor, module)
            precision.backward(tensor, module, None, *args, **kwargs)
            precision.post_backward(tensor, module)

    def clip_gradients(
        self,
        module: nn.Module,
        optimizer: Optimizer,
        clip_val: float | int | None = None,
        max_norm: float | int | None = None,
        norm_type: float | int = 2.0,
        error_if_nonfinite: bool = True,
    ) -> Tensor | None:
        """Clip the gradients of what the optimizer steps.

        Args:
            module: the module.
            optimizer: the optimizer.
            clip_val: limit each element to ``[-clip_val, clip_val]``.
            max_norm: scale all together so that their norm is at most this. Give one of the two.
            norm_type: the p of the norm.
            error_if_nonfinite: raise if the norm is NaN or infinite; not where a gradient scaler (``"16-mixed"``) is to
                leave out the step anyway.

        Returns:
            The norm before, with ``max_norm``.

        Raises:
            ValueError: none of ``clip_val`` and ``max_norm`` is given, or both.
            RuntimeError: the norm is not finite; or the optimizer unscales gradients in its step only.
        """
        if (clip_val is None) == (max_norm is None):
            raise ValueError(
                f"`fabric.clip_gradients(clip_val={clip_val!r}, max_norm={max_norm!r})`: give one of the two."
            )
        precision, own = self._strategy.precision_plugin, plain(optimizer)
        precision.prepare_clipping(own)
        parameters = precision.main_params(own)
        if max_norm is None:
            assert clip_val is not None
            clip_grad_value(parameters, float(clip_val))
            return None
        error_if_nonfinite = error_if_nonfinite and precision.goes_backward_alone
        return clip_grad_norm(parameters, float(max_norm), float(norm_type), error_if_nonfinite)

    def autocast(self) -> AbstractContextManager[Any]:
        """What forward passes run in, for parts of a loop that call no module."""
        return self._strategy.precision_plugin.forward_context()

    def no_backward_sync(self, module: Any, enabled: bool = True) -> AbstractContextManager[Any]:
        """Run forward and backward passes in it that make no step: gradients are not exchanged.

        Args:
            module: what :meth:`setup` gave.
            enabled: False: do nothing.

        Raises:
            TypeError: ``module`` was not set up.
        """
        wrapped = _uncompiled(module)
        if not isinstance(wrapped, _FabricModule):
            raise TypeError(
                f"`fabric.no_backward_sync({type(module).__name__})`: give the module that `fabric.setup` returned."
            )
        return self._strategy.without_sync(wrapped._forward_module) if enabled else nullcontext()

    # -- making modules and tensors -----------------------------------------------------------------------------------

    def sharded_model(self) -> AbstractContextManager[Any]:
        """What older programs make modules in that are to be sharded; today :meth:`setup` does all of it."""
        return nullcontext()

    @contextmanager
    def init_tensor(self) -> Generator[None, None, None]:
        """Make tensors on the device, in the precision."""
        with torch.device(self.device), self._strategy.precision_plugin.tensor_init_context():
            yield

    @contextmanager
    def init_module(self, empty_init: bool | None = None) -> Generator[None, None, None]:
        """Make a module on the device, in the precision.

        Args:
            empty_init: leave its parameters without values, as when a checkpoint is loaded into them.
        """
        self._require_processes("init_module")
        with (
            self._strategy.module_init_context(empty_init),
            self._strategy.precision_plugin.module_init_context(),
            WithoutInitialisation() if empty_init else nullcontext(),
        ):
            yield

    # -- files --------------------------------------------------------------------------------------------------------

    def save(
        self,
        path: str | os.PathLike[str],
        state: dict[str, Any],
        filter: dict[str, Callable[[str, Any], bool]] | None = None,
    ) -> None:
        """Write a checkpoint; to be called on all processes.

        Args:
            path: a file (a folder, where a strategy writes shards).
            state: modules, optimizers, whatever has ``state_dict`` and ``load_state_dict``, and plain values, by name.
            filter: functions by the names of entries: only what ``function(name, value)`` is true for is written.

        Raises:
            TypeError: ``filter`` is no dict of functions.
            ValueError: ``filter`` names an entry that ``state`` has not.
            OSError: the file could not be written; what was at ``path`` is as it was.
        """
        self._require_processes("save")
        checkpoint = dumped(state, checked_filters(filter, state), self._strategy)
        self._strategy.save_checkpoint(checkpoint, path)
        self.barrier()

    def load(
        self,
        path: str | os.PathLike[str],
        state: dict[str, Any] | None = None,
        strict: bool = True,
        *,
        weights_only: bool | None = None,
    ) -> dict[str, Any]:
        """Read a checkpoint of :meth:`save`; to be called on all processes.

        Args:
            path: the file, or folder.
            state: what is to be restored: modules, optimizers and the like get their state back, plain values are
                replaced in the dict. None: nothing.
            strict: all entries of ``state``, and all weights of modules, must be there.
            weights_only: False: unpickle any Python object, which may run any code; only for files that you trust.
                None, True: nothing that the file names is imported or called.

        Returns:
            What of the checkpoint is not in ``state``.

        Raises:
            KeyError: ``strict``, and an entry is missing.
            FileNotFoundError: there is no such file.
        """
        self._require_processes("load")
        self._strategy.checkpoint_io.settle()
        if not state:
            return self._strategy.checkpoint_io.load_checkpoint(path, weights_only=weights_only)
        checkpoint = self._strategy.load_checkpoint(path, weights_only=weights_only)
        left = put_back(checkpoint, state, strict, self._strategy, str(path))
        if has_promises(left):  # shards that nobody has asked for yet
            whole = self._strategy.checkpoint_io.load_checkpoint(path, weights_only=weights_only)
            left = {name: whole[name] for name in left}
        self.barrier()
        return left

    def load_raw(
        self, path: str | os.PathLike[str], obj: Any, strict: bool = True, *, weights_only: bool | None = None
    ) -> None:
        """Give a module or an optimizer the state in a file that holds nothing else, as ``torch.save`` wrote it.

        Args:
            path: the file.
            obj: the module or optimizer.
            strict: all weights of a module must be there.
            weights_only: as of :meth:`load`.
        """
        self._require_processes("load_raw")
        saved = self._strategy.checkpoint_io.load_checkpoint(path, weights_only=weights_only)
        give_back(obj, saved, strict, self._strategy, str(path))

    # -- who listens --------------------------------------------------------------------------------------------------

    def call(self, hook_name: str, *args: Any, **kwargs: Any) -> None:
        """Call a method of that name of all callbacks that have one, and of LightningModules that were set up.

        Args:
            kwargs: a method gets those that it takes.
        """
        for callback in self._callbacks:
            method = getattr(callback, hook_name, None)
            if method is None:
                continue
            if not callable(method):
                rank_zero_warn(
                    f"`fabric.call({hook_name!r})`: `{type(callback).__name__}.{hook_name}` cannot be called, and is "
                    "skipped."
                )
                continue
            method(*args, **_accepted(method, kwargs))

    def log(self, name: str, value: Any, step: int | None = None) -> None:
        """Send a value to all loggers.

        Args:
            step: its place on the x axis. None: as the loggers do it.
        """
        self.log_dict({name: value}, step)

    def log_dict(self, metrics: Mapping[str, Any], step: int | None = None) -> None:
        """Send values to all loggers; see :meth:`log`."""
        if not self._loggers:
            return
        self._require_processes("log_dict")
        numbers = convert_tensors_to_scalars(dict(metrics))
        for logger in self._loggers:
            logger.log_metrics(metrics=numbers, step=step)

    def log_of_module(self, name: str, value: Any, logger: bool | None) -> None:
        """``self.log`` of a LightningModule that was set up.

        Raises:
            ValueError: ``value`` is a dict.
        """
        if isinstance(value, dict):
            raise ValueError(f"`self.log({name!r}, ...)` got a dict. Write `self.log_dict` with one level of names.")
        if logger is not False:
            self.log(name, value.compute() if hasattr(value, "compute") else value)

    @staticmethod
    def seed_everything(seed: int | None = None, workers: bool | None = None, verbose: bool = True) -> int:
        """:func:`~fulmen.utilities.seed.seed_everything`.

        Args:
            workers: None: True.
        """
        return seed_everything(seed, workers=workers is not False, verbose=verbose)


def _accepted(method: Callable[..., Any], kwargs: dict[str, Any]) -> dict[str, Any]:
    parameters = inspect.signature(method).parameters
    if any(parameter.kind is inspect.Parameter.VAR_KEYWORD for parameter in parameters.values()):
        return kwargs
    return {name: value for name, value in kwargs.items() if name in parameters}


def _check_parameters(module: nn.Module, optimizers: tuple[Optimizer, ...]) -> None:
    """Warn of an optimizer that steps no parameter of the module."""
    own = {id(parameter) for parameter in module.parameters()}
    for optimizer in optimizers:
        if own and not any(id(one) in own for group in optimizer.param_groups for one in group["params"]):
            rank_zero_warn(
                f"`fabric.setup(model, optimizer)`: {type(optimizer).__name__} has no parameter of "
                f"{type(module).__name__}, which it will not train. Make it of `model.parameters()`, or set up "
                "optimizers of other modules by `fabric.setup_optimizers(optimizer)`."
            )
