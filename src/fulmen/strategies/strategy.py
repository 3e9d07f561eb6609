"""Where a run happens and how its processes work together: the open class of all strategies."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import TYPE_CHECKING, Any, TypeVar

import torch
from torch import Tensor

from fulmen.core.saving import load_weights
from fulmen.plugins.io.torch_plugin import TorchCheckpointIO
from fulmen.plugins.precision.precision import Precision
from fulmen.utilities.exceptions import MisconfigurationException
from fulmen.utilities.internals import warn_of_uncalled

if TYPE_CHECKING:
    from torch import nn
    from torch.optim import Optimizer

    from fulmen.accelerators.accelerator import Accelerator
    from fulmen.core.module import LightningModule
    from fulmen.core.optimizer import LRSchedulerConfig
    from fulmen.plugins.io.checkpoint_plugin import CheckpointIO
    from fulmen.strategies.control.control import Control
    from fulmen.strategies.late import Late
    from fulmen.strategies.launchers.launcher import Launcher
    from fulmen.trainer.trainer import Trainer

T = TypeVar("T")

#: what Lightning calls of a strategy and Fulmen does not, and what to write in its place
NOT_CALLED = {
    "_configure_launcher": "`launcher`, a property",
    "_setup_distributed": "`setup_environment`",
    "_setup_model": "`setup_training(module)`, which wraps `self.model`",
    "backward": "the module's `backward`, or a Precision's",
    "batch_to_device": "the module's `transfer_batch_to_device`",
    "configure_ddp": "`setup_training(module)`, which wraps `self.model`",
    "load_optimizer_state_dict": "`own_parts`",
    "model_to_device": "`setup_module(module)`",
    "optimizer_step": "the module's `optimizer_step`, or a Precision's",
    "post_backward": "the module's or a callback's `on_after_backward`",
    "pre_backward": "the module's or a callback's `on_before_backward`",
    "process_dataloader": "the module's or the datamodule's `train_dataloader`",
}
_NOTHING = nullcontext()


class Strategy(ABC):
    """Puts the module on its devices, and does everything that processes must do together.

    Args:
        accelerator: the kind of device. None: the Trainer's.
        checkpoint_io: how checkpoint files are written. None: :class:`TorchCheckpointIO`.
        precision_plugin: how numbers are kept. None: the Trainer's.

    Attributes:
        allows_inference_mode: False: evaluation runs in ``torch.no_grad`` whatever the Trainer was told.
        forward_is_collective: every process must make the same number of forward passes. Those that have no batch of
            their own at the end of the data then run another one, whose results are thrown away.
        restores_optimizers: the state of the optimizers is in a checkpoint as this strategy puts it there, and it takes
            it back itself.
        saves_open_windows: the gradients of an accumulation window can be saved to the last bit. False: a run ends, and
            is saved, when the window is over.
        control: how the processes agree and hear of failures, from :meth:`setup_environment` on; None for one process.
        gradients_are_common: those of an open accumulation window are the same on all processes, or parts of one whole.
        late: what each process knows only at the end of an accumulation window, on its way to all. None: one process,
            or no gradients that it could ride on.
    """

    allows_inference_mode: bool = True
    forward_is_collective: bool = False
    restores_optimizers: bool = False
    saves_open_windows: bool = True
    control: Control | None = None
    gradients_are_common: bool = False
    late: Late | None = None
    lightning_module: LightningModule | None = None  #: of this run or the last one

    def __init__(
        self,
        accelerator: Accelerator | None = None,
        checkpoint_io: CheckpointIO | None = None,
        precision_plugin: Precision | None = None,
    ) -> None:
        self.accelerator = accelerator
        self.checkpoint_io: CheckpointIO = checkpoint_io or TorchCheckpointIO()
        self.precision_plugin: Precision = precision_plugin or Precision()
        self.model: nn.Module | None = None
        self.steps: dict[
            str, Callable[..., Any]
        ] = {}  #: of the module, during a run, where this class has written its own

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        warn_of_uncalled(cls, NOT_CALLED)

    # -- who and where ------------------------------------------------------------------------------------------------

    @property
    def precision(self) -> Precision:
        """Another name of :attr:`precision_plugin`."""
        return self.precision_plugin

    @precision.setter
    def precision(self, precision: Precision) -> None:
        self.precision_plugin = precision

    @property
    @abstractmethod
    def root_device(self) -> torch.device:
        """This process's device."""

    @property
    def world_size(self) -> int:
        return 1

    @property
    def global_rank(self) -> int:
        return 0

    @property
    def local_rank(self) -> int:
        return 0

    @property
    def node_rank(self) -> int:
        return 0

    @property
    def is_global_zero(self) -> bool:
        return self.global_rank == 0

    @property
    def data_parallel_size(self) -> int:
        """Into how many shares the data is split: the number of processes, unless several work on one share."""
        return self.world_size

    @property
    def data_parallel_rank(self) -> int:
        """Which share of the data is this process's, from 0."""
        return self.global_rank

    @property
    def launcher(self) -> Launcher | None:
        """What starts the processes; None where all are there."""
        return None

    # -- the module ---------------------------------------------------------------------------------------------------

    def choose_precision(self, numbers: Precision) -> None:
        """Keep numbers as the Trainer was told, unless this strategy was given a precision.

        Raises:
            MisconfigurationException: both were.
        """
        if type(self.precision_plugin) is Precision:
            self.precision_plugin = numbers
        elif type(numbers) is not Precision:
            raise MisconfigurationException(
                f"{type(self).__name__} already has the precision {self.precision_plugin.precision!r}, and the "
                f"Trainer was given {numbers.precision!r}. Give one of them."
            )

    def connect(self, module: LightningModule) -> None:
        """Get to know the module, when the processes are there, and before its ``configure_model``."""
        self.lightning_module = module

    def setup_environment(self) -> None:
        """Prepare the device (and, with several processes, their group)."""
        if self.accelerator is not None:
            self.accelerator.setup_device(self.root_device)

    def setup_module(self, module: LightningModule) -> None:
        """Put the module onto its device, and wrap it if this strategy does."""
        module.to(self.root_device)
        self.model = module

    def setup_training(self, module: LightningModule) -> None:
        """Wrap the module for training, if this strategy does; its weights are those to begin with by now, and
        optimizers are made after it.
        """

    def setup_optimizers(self, trainer: Trainer) -> None:
        """The optimizers of the run are there, and their state is not restored yet."""

    def start_epoch(self) -> None:
        """An epoch of training begins: parameters may have been frozen, or thawed, since the last one."""

    def wrap_step(self, name: str, step: Callable[..., Any]) -> Callable[..., Any]:
        """What the loop calls instead of ``step``, the method ``name`` of the module, so that it passes through what
        the module is wrapped in.
        """
        return step

    def wrap_module(self, module: nn.Module, move_to_device: bool = True) -> nn.Module:
        """For a loop that its user writes, by :class:`~fulmen.fabric.fabric.Fabric`: what to call in place of
        ``module``, so that its gradients are those of all processes. Optimizers are to step what are its
        parameters after that.

        Args:
            move_to_device: put it onto this process's device before.
        """
        return module.to(self.root_device) if move_to_device else module

    def without_sync(self, wrapped: nn.Module) -> AbstractContextManager[Any]:
        """What the backward passes of a loop that its user writes run in that make no step.

        Args:
            wrapped: what :meth:`wrap_module` gave.
        """
        return _NOTHING

    def teardown(self) -> None:
        """Bring the module back to the CPU and let it go."""
        if self.model is not None and self.root_device.type != "cpu":
            self.model.cpu()
        self.model = None
        self.precision_plugin.teardown()
        self.checkpoint_io.teardown()
        if self.accelerator is not None:
            self.accelerator.teardown()

    def module_init_context(self, empty_init: bool | None = None) -> AbstractContextManager[Any]:
        """What layers are made in: on this process's device.

        Args:
            empty_init: their values come from a checkpoint.
        """
        return torch.device(self.root_device)

    def before_backward(self, loss: Tensor) -> Tensor:
        """In manual optimization: what to go backward from instead of ``loss``."""
        return loss

    def no_backward_sync(self) -> AbstractContextManager[Any]:
        """What the backward passes run in that make no step: without exchanging gradients."""
        return _NOTHING

    def join_backward(self) -> None:
        """Take part in the backward pass of the other processes, at the end of an accumulation window in which this one
        has no loss: its user skipped the batch, or there was none.
        """

    def exchange_gradients(self, announce: Callable[[], None]) -> None:
        """At the end of an accumulation window whose backward passes were made without this strategy's wrapper, in
        another number on each process: exchange the gradients that are there. A strategy for several processes that
        cannot do so has no method of its own here.

        Args:
            announce: to be called when what the processes know of the window (:attr:`late`) can ride along.
        """
        announce()

    def lightning_module_state_dict(self, module: LightningModule | None = None) -> dict[str, Any]:
        """The whole ``state_dict`` of the module, under its own names. It may also be written without ``module``.

        Args:
            module: None: that of this run.
        """
        return self.the_module(module).state_dict()

    def the_module(self, module: LightningModule | None = None) -> LightningModule:
        """``module``, or that of this run.

        Raises:
            RuntimeError: there is none yet.
        """
        module = module if module is not None else self.lightning_module
        if module is None:
            raise RuntimeError(
                f"{type(self).__name__} knows no module yet: it gets to know one in `trainer.fit(model)` or another "
                "verb."
            )
        return module

    def under_own_names(self, state: dict[str, Any]) -> dict[str, Any]:
        """A ``state_dict`` of :attr:`model`, under the names of the module itself."""
        return state

    def load_model_state_dict(self, checkpoint: Mapping[str, Any], strict: bool = True) -> None:
        """Give the module the weights in ``checkpoint["state_dict"]``, as Lightning's strategies do. One that is
        written is called in the place of :meth:`load_model_state`.
        """
        self.load_model_state(self.the_module(), checkpoint["state_dict"], strict, "the checkpoint")

    def optimizer_state(self, optimizer: Optimizer) -> dict[str, Any]:
        """The state of an optimizer, as it goes into a checkpoint."""
        return self.gathered(optimizer.state_dict())

    @property
    def optimizers(self) -> list[Any]:
        """The optimizers of this run, which are the trainer's; another list takes their place at the next epoch."""
        return self._trainer.optimizers if self._trainer is not None else []

    @optimizers.setter
    def optimizers(self, optimizers: list[Any]) -> None:
        self.the_module().trainer.optimizers = optimizers

    @property
    def lr_scheduler_configs(self) -> list[LRSchedulerConfig]:
        """The schedulers of this run, which are the trainer's; another list takes their place at the next epoch."""
        return self._trainer.lr_scheduler_configs if self._trainer is not None else []

    @lr_scheduler_configs.setter
    def lr_scheduler_configs(self, configs: list[LRSchedulerConfig]) -> None:
        self.the_module().trainer.lr_scheduler_configs = configs

    # -- what Lightning's strategies may write ------------------------------------------------------------------------

    def setup(self, trainer: Trainer) -> None:
        """The module is on its device, and in training the optimizers are made. Nothing is done here."""

    def training_step(self, *args: Any, **kwargs: Any) -> Any:
        """Run the step. One that is written, as the three below, is called in the place of the module's, and calls
        this one.
        """
        return self.steps["training_step"](*args, **kwargs)

    def validation_step(self, *args: Any, **kwargs: Any) -> Any:
        """See :meth:`training_step`."""
        return self.steps["validation_step"](*args, **kwargs)

    def test_step(self, *args: Any, **kwargs: Any) -> Any:
        """See :meth:`training_step`."""
        return self.steps["test_step"](*args, **kwargs)

    def predict_step(self, *args: Any, **kwargs: Any) -> Any:
        """See :meth:`training_step`."""
        return self.steps["predict_step"](*args, **kwargs)

    @property
    def distributed_sampler_kwargs(self) -> dict[str, Any]:
        """Into how many shares the data is split, and which one is this process's. It cannot say anything else than
        :attr:`data_parallel_size` and :attr:`data_parallel_rank`.
        """
        return {"num_replicas": self.data_parallel_size, "rank": self.data_parallel_rank}

    @property
    def _trainer(self) -> Trainer | None:
        return self.lightning_module._trainer if self.lightning_module is not None else None

    def load_model_state(self, module: LightningModule, state_dict: Any, strict: bool, source: str) -> None:
        """Give the module the weights of a checkpoint; called before :meth:`setup_module`.

        Args:
            strict: they must be exactly those that the module has.
            source: the file, for messages.
        """
        self.load_into(module, state_dict, strict, source)

    def load_into(self, module: nn.Module, state_dict: Any, strict: bool, source: str) -> None:
        """Give a module that is set up the weights of a checkpoint; arguments as of :meth:`load_model_state`."""
        load_weights(module, state_dict, strict, source)

    def settle_weights(self, module: LightningModule) -> None:
        """Between two steps: bring the parameters to where they can be read, and be given other values."""

    def gathered(self, state: Any) -> Any:
        """A part of the state of a run, as it goes into a checkpoint: with whole tensors where processes have parts of
        them; to be called on all of them.
        """
        return state

    def own_parts(self, pairs: Sequence[tuple[Any, Tensor]]) -> list[Any]:
        """What this process keeps of values in a checkpoint, each of which belongs to the tensor beside it."""
        return [value for value, _ in pairs]

    def own_state(self, optimizer: Optimizer, state: dict[str, Any]) -> dict[str, Any]:
        """What of the state of an optimizer in a checkpoint belongs to what this process has of its parameters."""
        parameters = dict(enumerate(parameter for group in optimizer.param_groups for parameter in group["params"]))
        saved = state.get("state")
        if not isinstance(saved, dict) or not all(isinstance(of_one, dict) for of_one in saved.values()):
            return state  # which is told by who takes it back
        places = [
            (number, name)
            for number, of_one in saved.items()
            for name, value in of_one.items()
            if isinstance(value, Tensor) and number in parameters
        ]
        parts = self.own_parts([(saved[number][name], parameters[number]) for number, name in places])
        fresh = {number: dict(of_one) for number, of_one in saved.items()}
        for (number, name), part in zip(places, parts):
            fresh[number][name] = part
        return {**state, "state": fresh}

    def settle_gradients(self) -> None:
        """Bring the gradients of an open accumulation window to where they can be read."""

    # -- working together ---------------------------------------------------------------------------------------------

    @abstractmethod
    def reduce(self, tensor: Any, group: Any = None, reduce_op: str | None = "mean") -> Any:
        """Reduce a tensor over all processes; ``reduce_op`` is ``"mean"`` or ``"sum"``."""

    @abstractmethod
    def barrier(self, name: str | None = None) -> None:
        """Wait until all processes are here."""

    @abstractmethod
    def broadcast(self, obj: T, src: int = 0) -> T:
        """The object of process ``src``, on all of them."""

    @abstractmethod
    def all_gather(self, tensor: Tensor, group: Any = None, sync_grads: bool = False) -> Tensor:
        """The tensors of all processes, stacked."""

    def gather_objects(self, obj: Any) -> list[Any]:
        """The objects of all processes, by rank; to be called on all of them."""
        return [obj]

    def reduce_boolean_decision(self, decision: bool, all: bool = True) -> bool:
        """Whether ``decision`` is True on all processes (or, with ``all=False``, on any)."""
        return decision

    # -- files --------------------------------------------------------------------------------------------------------

    def save_checkpoint(self, checkpoint: dict[str, Any], filepath: Any, storage_options: Any = None) -> None:
        """Write a checkpoint, once per job."""
        if self.is_global_zero:
            self.checkpoint_io.save_checkpoint(checkpoint, filepath, storage_options=storage_options)

    def load_checkpoint(self, checkpoint_path: Any, weights_only: bool | None = None) -> dict[str, Any]:
        """Read a checkpoint, to the CPU."""
        return self.checkpoint_io.load_checkpoint(checkpoint_path, weights_only=weights_only)

    def remove_checkpoint(self, filepath: Any) -> None:
        """Delete a checkpoint, once per job."""
        if self.is_global_zero:
            self.checkpoint_io.remove_checkpoint(filepath)

    # -- what it may listen to ----------------------------------------------------------------------------------------

    def on_train_start(self) -> None:
        """Called when training begins, after callbacks and module."""

    def on_train_end(self) -> None:
        """Called when training has ended."""

    def on_train_batch_start(self, batch: Any, batch_idx: int) -> None:
        """Called before each training batch."""

    def on_validation_start(self) -> None:
        """Called when validation begins."""

    def on_validation_end(self) -> None:
        """Called when validation has ended."""

    def on_test_start(self) -> None:
        """Called when testing begins."""

    def on_test_end(self) -> None:
        """Called when testing has ended."""

    def on_predict_start(self) -> None:
        """Called when predicting begins."""

    def on_predict_end(self) -> None:
        """Called when predicting has ended."""

    def on_exception(self, exception: BaseException) -> None:
        """Called when an exception ends the run."""
