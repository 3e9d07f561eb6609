"""The Trainer's properties: windows onto the parts that hold the facts."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

from fulmen.callbacks.checkpoint import Checkpoint
from fulmen.callbacks.early_stopping import EarlyStopping
from fulmen.callbacks.progress.progress_bar import ProgressBar
from fulmen.core.hooks import DataHooks
from fulmen.core.module import LightningModule
from fulmen.loops.plan import written
from fulmen.profilers.base import PassThroughProfiler
from fulmen.trainer import flags
from fulmen.trainer.metrics import to_number
from fulmen.trainer.states import RunningStage
from fulmen.utilities.combined_loader import CombinedLoader

if TYPE_CHECKING:
    from collections.abc import Callable

    from torch import Tensor

    from fulmen.accelerators.accelerator import Accelerator
    from fulmen.callbacks.callback import Callback
    from fulmen.core.datamodule import LightningDataModule
    from fulmen.core.optimizer import LightningOptimizer, LRSchedulerConfig
    from fulmen.loggers.logger import Logger
    from fulmen.loops.progress import Limits, Progress
    from fulmen.plugins.layer_sync import LayerSync
    from fulmen.plugins.precision.precision import Precision
    from fulmen.profilers.profiler import Profiler
    from fulmen.strategies.strategy import Strategy
    from fulmen.trainer.boundary import Boundary
    from fulmen.trainer.data import Data, Loaders
    from fulmen.trainer.metrics import Metrics
    from fulmen.trainer.micro_batches import MicroBatches
    from fulmen.trainer.signals import Signals
    from fulmen.trainer.states import TrainerState
    from fulmen.trainer.translation import Translation


class Inside:
    """A part of Lightning's Trainer as an attribute of ours: see :mod:`fulmen.trainer.views`."""

    def __init__(self, name: str) -> None:
        self._name = name

    def __get__(self, trainer: Any, owner: type | None = None) -> Any:
        if trainer is None:
            return self
        from fulmen.trainer.views import window  # which few programs need

        return window(trainer, self._name)

    def __set__(self, trainer: Any, value: Any) -> None:
        raise AttributeError(
            f"`trainer.{self._name}` cannot be set to {type(value).__name__}: the loops here are functions, and what "
            "happens in them is chosen by hooks of the module, of callbacks and of the strategy. Write a hook; "
            "`print(trainer.plan)` shows which are called, in which order."
        )


#: private ones, by the kinds of Lightning's parts
_INSIDE = ("accelerator", "callback", "checkpoint", "data", "logger", "signal")


class Windows:
    """What can be read (and here and there set) of a trainer. Each fact lives in one of the parts below."""

    # the parts
    strategy: Strategy
    progress: Progress
    metrics: Metrics
    micro_batches: MicroBatches | None  #: what runs a batch in parts
    data: Data = None  # type: ignore[assignment]  # before the first run
    state: TrainerState
    profiler: Profiler
    optimizers: list[Any] = []
    wrapped_optimizers: list[LightningOptimizer] = []
    lr_scheduler_configs: list[LRSchedulerConfig] = []
    datamodule: LightningDataModule | None = None
    _source_of_data: LightningDataModule | None = None
    default_root_dir: str
    detect_anomaly: bool
    loaded_ckpt_path: Any = None
    ckpt_was_chosen: bool = False  #: it was found by the trainer (``"auto"``, ``"last"``), not named by the user
    _module: LightningModule | None = None
    _callbacks: list[Callback]
    _loggers: list[Logger]
    _limits: Limits
    _log_every: int
    _data_flags: flags.DataFlags
    _given_loaders: dict[str, Any]
    boundary: Boundary
    _ckpt_path: Any = None
    _former: dict[str, Any] = {}  #: what an argument of Lightning 1 says, and a verb is told now
    signals: Signals
    _translation: Translation | None = None  #: what of this run was written for another version
    _device_indices: list[int]
    layer_sync: LayerSync | None  #: what lets layers share their statistics between processes
    _num_nodes: int

    @property
    def lightning_module(self) -> LightningModule:
        """The module of this run or the last one; None before the first."""
        return self._module  # type: ignore[return-value]

    @property
    def model(self) -> Any:
        """The module, wrapped if the strategy wraps it."""
        return self.strategy.model if self.strategy.model is not None else self._module

    @property
    def accelerator(self) -> Accelerator:
        return self.strategy.accelerator  # type: ignore[return-value]

    @property
    def precision_plugin(self) -> Precision:
        return self.strategy.precision_plugin

    @property
    def precision(self) -> str:
        return self.precision_plugin.precision

    @property
    def scaler(self) -> Any:
        """The gradient scaler of the precision plugin, or None."""
        return getattr(self.precision_plugin, "scaler", None)

    @property
    def optimizer(self) -> Any:
        """The one optimizer of automatic optimization; None in manual optimization."""
        return self.optimizers[0] if self.optimizers and self.lightning_module.automatic_optimization else None

    @property
    def wrapped_optimizer(self) -> Any:
        """The same, as users see it."""
        return self.wrapped_optimizers[0]

    @property
    def callbacks(self) -> list[Callback]:
        """The callbacks, in calling order; may be changed at any time."""
        return self._callbacks

    @callbacks.setter
    def callbacks(self, callbacks: list[Callback]) -> None:
        self._callbacks = list(callbacks)

    @property
    def loggers(self) -> list[Logger]:
        return self._loggers

    @loggers.setter
    def loggers(self, loggers: list[Logger] | None) -> None:
        self._loggers[:] = loggers or []

    @property
    def logger(self) -> Logger | None:
        """The first logger, or None."""
        return self._loggers[0] if self._loggers else None

    @logger.setter
    def logger(self, logger: Logger | None) -> None:
        self._loggers[:] = [logger] if logger is not None else []

    @property
    def log_dir(self) -> str | None:
        """Where the first logger writes; without a logger ``default_root_dir``."""
        if not self._loggers:
            return self.default_root_dir
        first = self._loggers[0]
        return self.strategy.broadcast(first.log_dir if first.log_dir is not None else first.save_dir)

    @property
    def profiles(self) -> bool:
        """Whether a profiler measures."""
        return not isinstance(self.profiler, PassThroughProfiler)

    def _listeners(self, kind: type) -> list[Any]:
        return [callback for callback in self._callbacks if isinstance(callback, kind)]

    @property
    def checkpoint_callbacks(self) -> list[Checkpoint]:
        return self._listeners(Checkpoint)

    @property
    def checkpoint_callback(self) -> Checkpoint | None:
        return next(iter(self.checkpoint_callbacks), None)

    @property
    def early_stopping_callbacks(self) -> list[EarlyStopping]:
        return self._listeners(EarlyStopping)

    @property
    def early_stopping_callback(self) -> EarlyStopping | None:
        return next(iter(self.early_stopping_callbacks), None)

    @property
    def progress_bar_callback(self) -> ProgressBar | None:
        return next(iter(self._listeners(ProgressBar)), None)

    # the clock

    @property
    def current_epoch(self) -> int:
        """Completed epochs: 0 in the first one."""
        return self.progress.epoch

    @property
    def global_step(self) -> int:
        """Optimizer steps made, of all optimizers."""
        return self.progress.step

    @property
    def is_last_batch(self) -> bool:
        return self.progress.is_last_batch

    @property
    def time_to_log(self) -> bool:
        """Whether the values of this step are due at the loggers."""
        return self.progress.time_to_log

    @property
    def should_stop(self) -> bool:
        """Set it to True to end training after the current batch, once the minimum of epochs and steps is reached. Of
        several processes some may set it: all of them end after the same batch, a little later.
        """
        return self.progress.should_stop

    @should_stop.setter
    def should_stop(self, should_stop: bool) -> None:
        if should_stop:
            self.boundary.ask_to_stop(self.progress)
        else:
            self.progress.should_stop = False

    @property
    def max_epochs(self) -> int:
        return self.progress.limits.max_epochs

    @max_epochs.setter
    def max_epochs(self, max_epochs: int) -> None:
        self.progress.limits.max_epochs = self._limits.max_epochs = flags.whole_number("max_epochs", max_epochs, -1)

    @property
    def min_epochs(self) -> int:
        return self.progress.limits.min_epochs

    @property
    def max_steps(self) -> int:
        return self.progress.limits.max_steps

    @max_steps.setter
    def max_steps(self, max_steps: int) -> None:
        self.progress.limits.max_steps = self._limits.max_steps = flags.whole_number("max_steps", max_steps, -1)

    @property
    def min_steps(self) -> int:
        return self.progress.limits.min_steps

    @property
    def accumulate_grad_batches(self) -> int:
        return self.progress.accumulate_grad_batches

    @accumulate_grad_batches.setter
    def accumulate_grad_batches(self, number: int) -> None:
        self.progress.accumulate_grad_batches = flags.whole_number("accumulate_grad_batches", number, 1)

    @property
    def micro_batch_size(self) -> int | None:
        """The most samples of a training batch that are run at once now; None: whole batches."""
        return None if self.micro_batches is None else self.micro_batches.size

    @property
    def log_every_n_steps(self) -> int:
        return self.progress.log_every_n_steps

    @log_every_n_steps.setter
    def log_every_n_steps(self, number: int) -> None:
        self.progress.log_every_n_steps = self._log_every = flags.whole_number("log_every_n_steps", number, 0)

    @property
    def estimated_stepping_batches(self) -> int | float:
        """How many optimizer steps this run makes; ``inf`` when nothing limits it. Asks for the training loader."""
        limits = self.progress.limits
        if limits.max_epochs == -1:
            return math.inf if limits.max_steps == -1 else limits.max_steps
        if self.data is None:
            raise RuntimeError(
                "`estimated_stepping_batches` is known once a run has begun, in `configure_optimizers` say."
            )
        self.data.request("train")
        num_batches = self.data.num_training_batches
        if math.isinf(num_batches):
            return math.inf if limits.max_steps == -1 else limits.max_steps
        steps = math.ceil(num_batches / self.accumulate_grad_batches) * max(limits.max_epochs, 1)
        return steps if limits.max_steps == -1 else min(steps, limits.max_steps)

    # what was logged

    @property
    def callback_metrics(self) -> dict[str, Tensor]:
        """Everything that was logged, by name: the newest value of each."""
        self.metrics.collect()
        return self.metrics.callback

    @property
    def logged_metrics(self) -> dict[str, Tensor]:
        """What goes to the loggers."""
        self.metrics.collect()
        return self.metrics.logged

    @property
    def progress_bar_metrics(self) -> dict[str, float]:
        """What the progress bar shows, as numbers. Waits for the device."""
        self.metrics.collect()
        return {name: to_number(value) for name, value in self.metrics.progress_bar.items()}

    # the data

    def defines_loader(self, stage: str) -> bool:
        """Whether there are loaders for ``stage`` (``"train"``, ``"validate"``, ``"test"``, ``"predict"``)."""
        if self._given_loaders.get(stage) is not None:
            return True
        hook = {"train": "train", "validate": "val"}.get(stage, stage) + "_dataloader"
        return any(
            owner is not None and written(owner, hook, DataHooks) is not None
            for owner in (self._source_of_data, self.lightning_module)
        )

    @property
    def enable_validation(self) -> bool:
        """Whether ``fit`` validates: there is a step, there is data, and it is not limited to nothing."""
        limit = self._data_flags.overfit_batches or self._data_flags.limits["validate"]
        return (
            limit > 0
            and self.defines_loader("validate")
            and written(self.lightning_module, "validation_step", LightningModule) is not None
        )

    def _loaders(self, stage: str) -> Loaders | None:
        return self.data.loaders.get(stage) if self.data is not None else None

    def _given(self, stage: str) -> Any:
        loaders = self._loaders(stage)
        return (
            None
            if loaders is None
            else loaders.given.iterables
            if isinstance(loaders.given, CombinedLoader)
            else loaders.given
        )

    @property
    def train_dataloader(self) -> Any:
        """What ``fit`` trains on, as the user gave it; None before it was asked for."""
        return self._given("train")

    @property
    def val_dataloaders(self) -> Any:
        return self._given("validate")

    @property
    def test_dataloaders(self) -> Any:
        return self._given("test")

    @property
    def predict_dataloaders(self) -> Any:
        return self._given("predict")

    @property
    def num_training_batches(self) -> int | float:
        """Batches in an epoch, limits applied; ``inf`` when unknown."""
        return self.data.num_training_batches if self.data is not None else math.inf

    def _num_batches(self, stage: str) -> list[int | float]:
        loaders = self._loaders(stage)
        return [] if loaders is None else list(loaders.num_batches)

    @property
    def num_val_batches(self) -> list[int | float]:
        return self._num_batches("validate")

    @property
    def num_sanity_val_batches(self) -> list[int | float]:
        if self.state.fn != "fit":
            return []
        steps = self._data_flags.num_sanity_val_steps
        return [min(number, math.inf if steps == -1 else steps) for number in self._num_batches("validate")]

    @property
    def num_sanity_val_steps(self) -> int | float:
        return math.inf if self._data_flags.num_sanity_val_steps == -1 else self._data_flags.num_sanity_val_steps

    @property
    def num_test_batches(self) -> list[int | float]:
        return self._num_batches("test")

    @property
    def num_predict_batches(self) -> list[int | float]:
        return self._num_batches("predict")

    @property
    def limit_train_batches(self) -> int | float:
        return self._data_flags.overfit_batches or self._data_flags.limits["train"]

    @property
    def limit_val_batches(self) -> int | float:
        return self._data_flags.overfit_batches or self._data_flags.limits["validate"]

    @property
    def limit_test_batches(self) -> int | float:
        return self._data_flags.limits["test"]

    @property
    def limit_predict_batches(self) -> int | float:
        return self._data_flags.limits["predict"]

    @property
    def overfit_batches(self) -> int | float:
        return self._data_flags.overfit_batches

    @property
    def reload_dataloaders_every_n_epochs(self) -> int:
        return self._data_flags.reload_dataloaders_every_n_epochs

    # files

    @property
    def ckpt_path(self) -> Any:
        """The file that the last run began from. Set it to begin the next runs from a file."""
        return self._ckpt_path if self._ckpt_path is not None else self.loaded_ckpt_path

    @ckpt_path.setter
    def ckpt_path(self, path: Any) -> None:
        self._ckpt_path = path

    # the stage

    @property
    def training(self) -> bool:
        return self.state.stage == RunningStage.TRAINING

    @training.setter
    def training(self, value: bool) -> None:
        self._set_stage(value, RunningStage.TRAINING)

    @property
    def validating(self) -> bool:
        return self.state.stage == RunningStage.VALIDATING

    @validating.setter
    def validating(self, value: bool) -> None:
        self._set_stage(value, RunningStage.VALIDATING)

    @property
    def testing(self) -> bool:
        return self.state.stage == RunningStage.TESTING

    @testing.setter
    def testing(self, value: bool) -> None:
        self._set_stage(value, RunningStage.TESTING)

    @property
    def predicting(self) -> bool:
        return self.state.stage == RunningStage.PREDICTING

    @predicting.setter
    def predicting(self, value: bool) -> None:
        self._set_stage(value, RunningStage.PREDICTING)

    @property
    def sanity_checking(self) -> bool:
        return self.state.stage == RunningStage.SANITY_CHECKING

    @sanity_checking.setter
    def sanity_checking(self, value: bool) -> None:
        self._set_stage(value, RunningStage.SANITY_CHECKING)

    def _set_stage(self, value: bool, stage: RunningStage) -> None:
        self.state.stage = stage if value else None

    @property
    def evaluating(self) -> bool:
        return self.state.stage is not None and self.state.stage.evaluating

    @property
    def interrupted(self) -> bool:
        return self.state.status == "interrupted"

    @property
    def received_sigterm(self) -> bool:
        """Whether the process was asked to end."""
        return self.signals.request is not None and self.signals.request.name != "SIGINT"

    # the processes

    @property
    def global_rank(self) -> int:
        return self.strategy.global_rank

    @property
    def local_rank(self) -> int:
        return self.strategy.local_rank

    @property
    def node_rank(self) -> int:
        return self.strategy.node_rank

    @property
    def world_size(self) -> int:
        return self.strategy.world_size

    @property
    def num_nodes(self) -> int:
        return self._num_nodes

    @property
    def num_devices(self) -> int:
        return len(self._device_indices)

    @property
    def device_ids(self) -> list[int]:
        return list(self._device_indices)

    @property
    def is_global_zero(self) -> bool:
        return self.strategy.is_global_zero

    @property
    def distributed_sampler_kwargs(self) -> dict[str, Any] | None:
        """What a DistributedSampler needs; None with one process."""
        strategy = self.strategy
        if strategy.data_parallel_size == 1:
            return None
        return {"num_replicas": strategy.data_parallel_size, "rank": strategy.data_parallel_rank}

    # the inside, for those who know Lightning's: see fulmen.trainer.views

    fit_loop = Inside("fit_loop")
    validate_loop = Inside("validate_loop")
    test_loop = Inside("test_loop")
    predict_loop = Inside("predict_loop")
    _evaluation_loop = Inside("_evaluation_loop")
    _results = Inside("_results")
    opened_checkpoint: dict[str, Any] = {}  #: what is put back piece by piece through the views
    results_printer: Callable[[list[dict[str, Any]], str], None] | None = None  #: prints results in the trainer's place

    @property
    def _default_root_dir(self) -> str:
        return self.default_root_dir

    @_default_root_dir.setter
    def _default_root_dir(self, folder: str) -> None:
        self.default_root_dir = folder

    @property
    def _detect_anomaly(self) -> bool:
        return self.detect_anomaly


for _name in (f"_{kind}_connector" for kind in _INSIDE):
    setattr(Windows, _name, Inside(_name))
