"""The Trainer: its arguments, its verbs, and windows onto the parts that do the work."""

from __future__ import annotations

import math
import os
import weakref
from collections.abc import Callable, Generator, Iterable, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import replace
from datetime import timedelta
from typing import TYPE_CHECKING, Any, Literal

import torch

from fulmen.callbacks.callback import Callback
from fulmen.callbacks.timer import Timer, timer_of_max_time
from fulmen.core.datamodule import LightningDataModule
from fulmen.core.module import LightningModule
from fulmen.loops.accumulation import Window
from fulmen.loops.evaluate import evaluate_loop, no_gradients
from fulmen.loops.fit import fit_loop
from fulmen.loops.plan import Plan, written
from fulmen.loops.predict import predict_loop
from fulmen.loops.progress import Progress
from fulmen.plugins.precision.precision import Precision, WithoutInitialisation
from fulmen.trainer import checkpoint as checkpoints
from fulmen.trainer import flags, hardware, placement
from fulmen.trainer.attributes import Modes
from fulmen.trainer.barebones import refuse_with_barebones
from fulmen.trainer.boundary import Boundary
from fulmen.trainer.compiling import checked_options, compiled_steps, uncompiled
from fulmen.trainer.data import Data
from fulmen.trainer.environment import arguments_from_environment
from fulmen.trainer.explain import evaluation_table, explanation
from fulmen.trainer.measured import measure
from fulmen.trainer.metrics import Metrics
from fulmen.trainer.session import attach_optimizers, session, set_up_optimizers
from fulmen.trainer.shares import Share
from fulmen.trainer.signals import Signals, checkpoint_of_restart
from fulmen.trainer.states import RunningStage, TrainerState
from fulmen.trainer.unfinished import ValidationLeft, may_be_left, state_before
from fulmen.trainer.validation import check_model
from fulmen.trainer.windows import Windows
from fulmen.utilities.argparse import ArgparseOptions
from fulmen.utilities.exceptions import MisconfigurationException
from fulmen.utilities.rank_zero import rank_zero_warn
from fulmen.utilities.seed import restore_rng_states
from fulmen.utilities.text import shown

if TYPE_CHECKING:
    import torch

    from fulmen.accelerators.accelerator import Accelerator
    from fulmen.core.optimizer import Schedulers
    from fulmen.loggers.logger import Logger
    from fulmen.plugins.environments.cluster_environment import ClusterEnvironment
    from fulmen.plugins.environments.requeue import Requeue
    from fulmen.plugins.io.checkpoint_plugin import CheckpointIO
    from fulmen.plugins.layer_sync import LayerSync
    from fulmen.profilers.profiler import Profiler
    from fulmen.strategies.strategy import Strategy

    Plugin = Precision | CheckpointIO | ClusterEnvironment | LayerSync | Requeue | Strategy


class Trainer(Windows, ArgparseOptions):
    """Runs a :class:`~fulmen.core.module.LightningModule`: ``fit``, ``validate``, ``test`` and ``predict``.

    ``trainer.explain()`` says what a run with these arguments will do. Every argument may also come from the
    environment, as ``PL_TRAINER_<ARGUMENT>``; what is written in the program wins.

    Args:
        accelerator: the kind of device: ``"auto"``, ``"cpu"``, ``"gpu"``, ``"cuda"``, ``"mps"``, ``"tpu"``, ``"xla"``,
            a name registered with AcceleratorRegistry, or an Accelerator.
        strategy: ``"auto"``, ``"single_device"``, or a Strategy.
        devices: how many devices of each machine, or a list of their numbers; -1: all. On the CPU it is the number of
            processes. ``"auto"``: all, and one process on the CPU.
        num_nodes: how many machines.
        precision: ``"32-true"``, ``"64-true"``, ``"bf16-mixed"``, ``"16-mixed"``, ``"bf16-true"``, ``"16-true"``,
            ``"transformer-engine"``, ``"transformer-engine-float16"``; also 64, 32, 16, ``"bf16"``, or a type such as
            ``torch.bfloat16`` for all numbers in it. None: ``"32-true"``.
        logger: a Logger or several; True: TensorBoard where installed, else CSV; False: none. None: True.
        callbacks: a Callback or a list of them.
        fast_dev_run: run this many batches of each stage (True: one) and write nothing, to see whether it works at all.
        max_epochs: stop after so many epochs; -1: no limit. None: 1000, if nothing else limits the run.
        min_epochs: do not stop early before so many epochs.
        max_steps: stop after so many optimizer steps; -1: no limit.
        min_steps: do not stop early before so many optimizer steps.
        max_time: stop after so long: ``"DD:HH:MM:SS"``, ``"30min"``, a timedelta or a dict of its arguments.
        limit_train_batches: use this fraction (float) or number (int) of batches. None: all. 1 is one batch, 1.0 all.
        limit_val_batches: the same for validation.
        limit_test_batches: the same for testing.
        limit_predict_batches: the same for prediction.
        overfit_batches: train and validate on this fraction or number of batches, without shuffling; 0.0: off.
        val_check_interval: validate after this fraction of an epoch (float), so many batches (int), ``"500step"``,
            ``"2epoch"``, or so long (``"30min"``, a timedelta). None: 1.0.
        check_val_every_n_epoch: validate in every n-th epoch. None: epochs do not matter, batches are counted on.
        num_sanity_val_steps: validation batches before training, to find errors early; -1: all, 0: none. None: 2.
        log_every_n_steps: send the values of steps to the loggers so often; 0: never. None: 50. The first and the last
            step are always sent.
        enable_checkpointing: save checkpoints, by a ModelCheckpoint if none is given. None: True.
        enable_progress_bar: show how far a run is. None: True.
        enable_model_summary: show the layers and their sizes before training. None: True.
        accumulate_grad_batches: make one optimizer step from the gradients of so many batches.
        gradient_clip_val: clip gradients to this before each step. None or 0: not.
        gradient_clip_algorithm: ``"norm"`` or ``"value"``. None: ``"norm"``.
        deterministic: use torch's deterministic algorithms; ``"warn"``: warn where there is none. None: leave it.
        benchmark: let cuDNN try which algorithm is fastest. None: leave it.
        inference_mode: evaluate in ``torch.inference_mode`` instead of ``torch.no_grad``.
        use_distributed_sampler: give each process its share of the batches; False: what each loader gives is a share.
        profiler: ``"time"``, ``"simple"``, ``"advanced"``, ``"pytorch"``, ``"xla"`` or a Profiler. None: nothing is
            measured, at no cost.
        detect_anomaly: find the operation that made a NaN in backward; slow.
        barebones: switch off everything that costs time, to measure the rest.
        plugins: a Precision, a CheckpointIO, a ClusterEnvironment, a LayerSync, a Strategy, a Requeue such as
            SLURMEnvironment, or a list of them, at most one of each kind.
        sync_batchnorm: share the statistics of batch norms between processes, by TorchSyncBatchNorm; with one process
            it does nothing.
        reload_dataloaders_every_n_epochs: ask for the loaders anew so often; 0: never.
        default_root_dir: where files go, a folder or a URL. None: the working directory.
        enable_autolog_hparams: send hyperparameters to the loggers when a run begins.
        model_registry: accepted for compatibility; ignored with a warning.
        compile: True, or a dict of arguments of ``torch.compile``: compile the steps of the module. None: not.
        micro_batch_size: run each training batch forward and backward in parts of at most so many samples, with the
            gradients, and the one optimizer step, of the whole batch. ``"auto"``: begin with whole batches, and halve
            the size whenever memory is not enough. None: not.
    """

    # what the last run left
    has_begun: bool = False  #: a run is under way
    _trained: weakref.ref[LightningModule] | None = None

    @arguments_from_environment
    def __init__(
        self,
        *,
        # of a text the command line makes the first kind that it can be
        accelerator: Accelerator | str = "auto",
        strategy: Strategy | str = "auto",
        devices: list[int] | int | str = "auto",
        num_nodes: int = 1,
        precision: int | torch.dtype | str | None = None,
        logger: Logger | Iterable[Logger] | bool | None = None,
        callbacks: list[Callback] | Callback | None = None,
        fast_dev_run: int | bool = False,
        max_epochs: int | None = None,
        min_epochs: int | None = None,
        max_steps: int = -1,
        min_steps: int | None = None,
        max_time: str | timedelta | dict[str, int] | None = None,
        limit_train_batches: int | float | None = None,
        limit_val_batches: int | float | None = None,
        limit_test_batches: int | float | None = None,
        limit_predict_batches: int | float | None = None,
        overfit_batches: int | float = 0.0,
        val_check_interval: int | float | str | timedelta | dict[str, int] | None = None,
        check_val_every_n_epoch: int | None = 1,
        num_sanity_val_steps: int | None = None,
        log_every_n_steps: int | None = None,
        enable_checkpointing: bool | None = None,
        enable_progress_bar: bool | None = None,
        enable_model_summary: bool | None = None,
        accumulate_grad_batches: int = 1,
        gradient_clip_val: int | float | None = None,
        gradient_clip_algorithm: str | None = None,
        deterministic: bool | Literal["warn"] | None = None,
        benchmark: bool | None = None,
        inference_mode: bool = True,
        use_distributed_sampler: bool = True,
        profiler: Profiler | str | None = None,
        detect_anomaly: bool = False,
        barebones: bool = False,
        plugins: Plugin | list[Plugin] | None = None,
        sync_batchnorm: bool = False,
        reload_dataloaders_every_n_epochs: int = 0,
        default_root_dir: str | os.PathLike[str] | None = None,
        enable_autolog_hparams: bool = True,
        model_registry: str | None = None,
        compile: bool | dict[str, Any] | None = None,
        micro_batch_size: int | Literal["auto"] | None = None,
    ) -> None:
        if barebones:
            refuse_with_barebones(locals())
            logger, num_sanity_val_steps, log_every_n_steps = False, 0, 0
            enable_checkpointing = enable_progress_bar = enable_model_summary = False
        self.barebones = flags.truth("barebones", barebones, False)
        self.default_root_dir = flags.root_dir(default_root_dir)
        self.state = TrainerState()

        # where it runs
        self._plugins = hardware.plugin_list(plugins)
        self._strategy_asked_for = chosen = hardware.chosen_strategy(strategy, self._plugins)
        kind = hardware.accelerator(accelerator, chosen)
        self._num_nodes = flags.nodes(num_nodes)
        self._device_indices = hardware.device_indices(devices, kind)
        numbers = hardware.precision(precision, self._plugins, kind.device(self._device_indices[0]).type)
        self.strategy = placement.strategy(chosen, kind, self._device_indices, self._num_nodes, numbers, self._plugins)
        self.layer_sync = hardware.layer_sync(sync_batchnorm, self._plugins)
        self.use_distributed_sampler = flags.truth("use_distributed_sampler", use_distributed_sampler, True)
        flags.warn_of_ignored(sync_batchnorm and self.strategy.world_size == 1, model_registry)

        # how much
        self.fast_dev_run: bool | int = flags.fast_dev_run(fast_dev_run)
        few = int(self.fast_dev_run)
        if few:
            max_epochs, max_steps, min_epochs, min_steps = 1, few, None, None
            val_check_interval, check_val_every_n_epoch = 1.0, 1
        given_callbacks = callbacks if isinstance(callbacks, (list, tuple)) else [callbacks]
        timer = timer_of_max_time(flags.duration(max_time)) if max_time is not None else None
        has_timer = timer is not None or any(isinstance(callback, Timer) for callback in given_callbacks)
        self._limits, self._unlimited = flags.limits(max_epochs, min_epochs, max_steps, min_steps, has_timer)
        self._data_flags = flags.data_flags(
            dict(
                train=limit_train_batches,
                validate=limit_val_batches,
                test=limit_test_batches,
                predict=limit_predict_batches,
            ),
            overfit_batches,
            num_sanity_val_steps,
            reload_dataloaders_every_n_epochs,
            few,
        )
        if check_val_every_n_epoch is not None:
            flags.whole_number("check_val_every_n_epoch", check_val_every_n_epoch, 1)
        self.check_val_every_n_epoch = check_val_every_n_epoch
        self.val_check_interval = 1.0 if val_check_interval is None else val_check_interval
        self._validation_interval = flags.validation_interval(val_check_interval, check_val_every_n_epoch)
        self._accumulate = flags.whole_number("accumulate_grad_batches", accumulate_grad_batches, 1)
        self._log_every = (
            50 if log_every_n_steps is None else flags.whole_number("log_every_n_steps", log_every_n_steps, 0)
        )
        self.gradient_clip_val, self.gradient_clip_algorithm = flags.clipping(
            gradient_clip_val, gradient_clip_algorithm
        )

        # how
        self.inference_mode = flags.truth("inference_mode", inference_mode, True)
        self.detect_anomaly = flags.truth("detect_anomaly", detect_anomaly, False)
        self.enable_autolog_hparams = flags.truth("enable_autolog_hparams", enable_autolog_hparams, True)
        self._compile, self.micro_batches = checked_options(compile), flags.micro_batches(micro_batch_size)
        flags.set_determinism(deterministic, benchmark)
        self.profiler = flags.profiler(profiler)

        # who listens
        self._loggers = flags.loggers(logger, self.default_root_dir)
        if self.fast_dev_run:
            self._loggers = flags.dummy_loggers(self._loggers)
        self._callbacks = flags.callbacks(
            callbacks,
            checkpointing=flags.truth("enable_checkpointing", enable_checkpointing, True),
            timer=timer,
            progress_bar=flags.truth("enable_progress_bar", enable_progress_bar, True),
            summary=flags.truth("enable_model_summary", enable_model_summary, True),
            given={"enable_checkpointing": enable_checkpointing, "enable_progress_bar": enable_progress_bar},
        )
        self.boundary = Boundary()  #: where checkpoints are written and requests to end are served
        self.signals = Signals(self.boundary, flags.requeue(self._plugins))
        self._forget_run()
        self.progress = self._new_progress()
        self.metrics = Metrics(LightningModule(), self.progress, [], ignore=True)

    @classmethod
    def _former_arguments(cls) -> dict[str, tuple[tuple[type, ...], Any]]:
        if cls.__init__ is not Trainer.__init__:  # a subclass has the arguments that it says
            return {}
        from fulmen.trainer.removed_arguments import OPTIONS

        return OPTIONS

    # -- verbs --------------------------------------------------------------------------------------------------------

    def fit(
        self,
        model: LightningModule,
        train_dataloaders: Any = None,
        val_dataloaders: Any = None,
        datamodule: LightningDataModule | None = None,
        ckpt_path: str | os.PathLike[str] | None = None,
        weights_only: bool | None = None,
    ) -> None:
        """Train ``model``.

        Args:
            model: the module; also one that ``torch.compile`` returned.
            train_dataloaders: a loader, any iterable, or a list or dict of them; also a datamodule. None: the module's
                own.
            val_dataloaders: the same for validation.
            datamodule: holds all loaders; not together with loaders.
            ckpt_path: go on from this file. ``"auto"``: from the newest whole checkpoint of this run, in its log
                directory, or begin it: the same program, started again and again, finishes the run. ``"last"`` or
                ``"best"``: one that the callbacks wrote. ``"hpc"``: what a run left when a signal ended it.
            weights_only: None or True: read nothing but tensors and plain data from it. False: also run code that it
                names, which only a trusted file should be allowed.
        """
        loaders = {"train": train_dataloaders, "validate": val_dataloaders}
        first_path = self._former.pop("resume_from_checkpoint", None)  # as the constructor of Lightning 1 was told
        ckpt_path = ckpt_path or first_path
        return self._run("fit", fit_loop, model, loaders, datamodule, ckpt_path, weights_only)

    def validate(
        self,
        model: LightningModule | None = None,
        dataloaders: Any = None,
        ckpt_path: str | os.PathLike[str] | None = None,
        verbose: bool = True,
        datamodule: LightningDataModule | None = None,
        weights_only: bool | None = None,
    ) -> list[dict[str, float]]:
        """Run the validation set once.

        Args:
            model: None: the module of the last run.
            verbose: print the results.

        Returns:
            What was logged per epoch: a dict for each loader.
        """
        self._verbose = verbose
        return self._run("validate", _validate, model, {"validate": dataloaders}, datamodule, ckpt_path, weights_only)

    def test(
        self,
        model: LightningModule | None = None,
        dataloaders: Any = None,
        ckpt_path: str | os.PathLike[str] | None = None,
        verbose: bool = True,
        datamodule: LightningDataModule | None = None,
        weights_only: bool | None = None,
    ) -> list[dict[str, float]]:
        """Run the test set once; arguments and result as in :meth:`validate`."""
        self._verbose = verbose
        return self._run("test", _test, model, {"test": dataloaders}, datamodule, ckpt_path, weights_only)

    def predict(
        self,
        model: LightningModule | None = None,
        dataloaders: Any = None,
        datamodule: LightningDataModule | None = None,
        return_predictions: bool | None = None,
        ckpt_path: str | os.PathLike[str] | None = None,
        weights_only: bool | None = None,
    ) -> list[Any] | None:
        """Predict all batches.

        Args:
            return_predictions: False: keep nothing in memory, as a callback writes it. None: True.

        Returns:
            What ``predict_step`` returned, tensors on the CPU: a list of batches, or one such list for each of several
            loaders; None if nothing is kept.
        """
        self.keeps_predictions = flags.truth("return_predictions", return_predictions, True)
        return self._run("predict", predict_loop, model, {"predict": dataloaders}, datamodule, ckpt_path, weights_only)

    def _run(
        self,
        verb: str,
        loop: Callable[[Trainer], Any],
        model: Any,
        loaders: dict[str, Any],
        datamodule: LightningDataModule | None,
        ckpt_path: Any,
        weights_only: bool | None,
        is_search: bool = False,
    ) -> Any:
        if self.has_begun:
            raise RuntimeError(
                f"`trainer.{verb}` was called while `{self.state.fn}` is running on this Trainer, which does one thing "
                f"at a time. Call it when `{self.state.fn}` has returned, or use another Trainer."
            )
        launcher = self.strategy.launcher
        if launcher is not None and launcher.spawns:
            self._take_inputs(verb, model, dict(loaders), datamodule)
            arguments = (verb, loop, model, loaders, datamodule, ckpt_path, weights_only, is_search)
            return launcher.run(self, self._run, *arguments)
        if launcher is not None:
            launcher.start()
        self._take_inputs(verb, model, loaders, datamodule)
        compiled = compiled_steps(self, model, self._compile)
        path = ckpt_path or self._ckpt_path if not is_search else None
        if verb == "fit" and not is_search:
            path = checkpoint_of_restart(self.signals.requeue, path)
        grads = torch.set_grad_enabled(verb == "fit" or torch.is_grad_enabled())  # a generator may have left them off
        with grads, compiled, session(self, verb, path, weights_only, is_search) as ready:
            return loop(self) if ready else None

    def answer_of(self, result: Any) -> dict[str, Any]:
        """What the process that has asked for a run in new processes needs of it."""
        from fulmen.trainer.answers import answer_of

        return answer_of(self, result)

    def take_answer(self, answer: dict[str, Any]) -> Any:
        """Take over what :meth:`answer_of` gave in the first of those processes; returns what the verb did."""
        from fulmen.trainer.answers import take_answer

        return take_answer(self, answer)

    def hear_of_ctrl_c(self) -> None:
        """It came to the process that waits for this one; called from another thread."""
        self.signals.hear_of_ctrl_c()

    def _take_inputs(
        self, verb: str, model: Any, loaders: dict[str, Any], datamodule: LightningDataModule | None
    ) -> None:
        """Check what a verb was given and remember it for the run."""
        self.model_was_given = model is not None
        module = check_model(uncompiled(model) if model is not None else self._module, verb)
        name, first = next(iter(loaders.items()))
        if isinstance(first, LightningDataModule):
            if datamodule is not None:
                raise MisconfigurationException(f"`trainer.{verb}` was given two datamodules. Pass one.")
            datamodule, loaders[name] = first, None
        if datamodule is not None and not isinstance(datamodule, LightningDataModule):
            argument = "train_dataloaders" if verb == "fit" else "dataloaders"
            advice = f"For a loader write `trainer.{verb}(model, {argument}=...)`."
            if isinstance(datamodule, type):
                advice = f"Write `{datamodule.__name__}(...)`."
            raise TypeError(
                f"`trainer.{verb}` got {shown(datamodule)} as datamodule, which must be a LightningDataModule. {advice}"
            )
        if datamodule is not None and any(given is not None for given in loaders.values()):
            raise MisconfigurationException(
                f"`trainer.{verb}` was given loaders and a datamodule, which both say what the data is. Pass one of "
                "them."
            )
        self._module = module
        loaders_were_given = any(given is not None for given in loaders.values())
        self.datamodule = datamodule if datamodule is not None else self.datamodule
        self._source_of_data = None if loaders_were_given else self.datamodule  # an earlier one's hooks still run
        self._given_loaders = loaders
        if verb == "fit":
            if self._trained is None or self._trained() is not module:  # another model starts at zero; the same goes on
                self.progress = self._new_progress()
                self.micro_batches = self.micro_batches and self.micro_batches.anew()
                self._trained = weakref.ref(module)
                self.datamodule = datamodule  # not that of the one before
            self.progress.should_stop = self.progress.out_of_time = False
            self.progress.forget_unfinished_epoch()
            if self._unlimited and self.progress.limits.max_epochs == 1000:
                rank_zero_warn(
                    "`max_epochs` was not set: training stops after 1000 epochs. Write `Trainer(max_epochs=...)`; -1 "
                    "means no limit."
                )

    def __getstate__(self) -> dict[str, Any]:
        """For a copy in another process, which may go on with the same model."""
        trained = None if self._trained is None else self._trained()
        return {**self.__dict__, "_trained": trained}

    def __setstate__(self, state: dict[str, Any]) -> None:
        trained = state["_trained"]
        self.__dict__.update(state, _trained=None if trained is None else weakref.ref(trained))

    # -- one run ------------------------------------------------------------------------------------------------------

    def _new_progress(self) -> Progress:
        limits = replace(self._limits)
        return Progress(
            limits=limits,
            accumulate_grad_batches=self._accumulate,
            log_every_n_steps=1 if self.fast_dev_run else self._log_every,
        )

    def begin_run(self) -> None:
        """Make the parts that live for one run."""
        self._forget_run()
        self.has_begun = True
        module = self.lightning_module
        convert = written(self.precision_plugin, "convert_input", Precision)
        self.metrics = Metrics(module, self.progress, self._loggers, ignore=self.barebones)
        self.data = Data(
            module,
            self._source_of_data,
            self._given_loaders,
            self._data_flags,
            self.progress,
            self.strategy.root_device,
            convert,
            self.signals,
            self.metrics.quiet,
            self._callbacks,
            Share(self.strategy),
            not self.use_distributed_sampler,
        )
        self.metrics.batch_size_of = self.data.batch_size
        self.metrics.share, self.metrics.group_is_whole = self.data.share, self.data.is_group_whole
        self.metrics.loaders_with_batches = self.data.loaders_with_batches
        self.data.keeps_ghost = self.strategy.forward_is_collective or not module.automatic_optimization
        if self.profiles:
            measure(self)
        self.strategy.checkpoint_io.report_to(self.boundary.defer)

    def _forget_run(self) -> None:
        self._plan: Plan | None = None
        self._undo: list[Callable[[], None]] = []
        self.window = Window()
        self.modes = Modes()
        self.schedulers: Schedulers = None  # type: ignore[assignment]  # while nothing is trained
        self.predictions: list[Any] | None = None
        self.attached: list[Any] = []  # optimizers and schedulers that the run steps
        #: the random numbers, and the stages whose loaders were there, when the optimizers were made
        self.before_optimizers: tuple[dict[str, Any], set[str]] = ({}, set())

    def when_torn_down(self, action: Callable[[], None]) -> None:
        """Remember something to undo at the end of the run."""
        self._undo.append(action)

    def end_run(self) -> None:
        """Undo what lives for one run only, and let go of everybody who knows this trainer."""
        for action in self._undo:
            action()
        self._undo = []
        self.strategy.checkpoint_io.report_to(None)
        self.strategy.steps.clear()
        self._plan = None
        self.schedulers = None  # type: ignore[assignment]
        self.boundary.forget()
        self.has_begun = False

    @property
    def plan(self) -> Plan:
        """Who is called at each event, in which order; ``print(trainer.plan)`` shows it. Made anew when a callback came
        or went.
        """
        if self._plan is None or self._plan.callbacks != self._callbacks:
            return self.replan()
        return self._plan

    def _trial(self, verb: str, count: int, callbacks: Sequence[Callback] = ()) -> Any:
        """A short run within this one, on parts of its own: see :func:`fulmen.trainer.trials.trial`."""
        from fulmen.trainer.trials import trial  # which needs what is imported here

        return trial(self, verb, count, callbacks)

    def _pass_over_training_data(self) -> None:
        """See :func:`fulmen.trainer.statistics.pass_over_training_data`."""
        from fulmen.trainer.statistics import pass_over_training_data  # which is of use at the end of few runs

        pass_over_training_data(self)

    def _configure_anew(self) -> None:
        """Make the optimizers and schedulers of a run that begins once more, as if nobody had made them yet: what they
        are made with has changed.
        """
        random, loaded = self.before_optimizers
        restore_rng_states(random)
        for stage in self.data.loaders.keys() - loaded:
            del self.data.loaders[stage]
        self.optimizers, self.lr_scheduler_configs = [], []
        set_up_optimizers(self)
        self.replan()

    def replan(self) -> Plan:
        """Find out anew who listens."""
        if self._module is None:
            raise RuntimeError(
                "there is no plan yet: it belongs to a module. Call `trainer.fit(model)` or another verb first."
            )
        if self.has_begun and self.schedulers is not None:
            attach_optimizers(self)
        plan = Plan(self, self._callbacks)
        if self.has_begun:
            self._plan = plan
        return plan

    def quietly(self, name: str) -> Any:
        """Call a hook of the module in which nothing can be logged."""
        return self.metrics.quiet(name, getattr(self.lightning_module, name))()

    def validate_within_fit(self) -> None:
        """The validation that is due after a training batch."""
        self.boundary.reach_validation(self)
        before = state_before(self)
        self.signals.may_leave_validation = may_be_left(self)
        if not self.progress.accumulating:
            self.plan.on_validation_model_zero_grad()
        self.state.stage = RunningStage.VALIDATING
        self.data.moment = before  # what is saved meanwhile goes on from here, and does the whole validation again
        try:
            with self.profiler.profile("validation"):
                evaluate_loop(self, "validate")
        except ValidationLeft:
            self.metrics.begin_training()
            self.signals.save_and_end(self)
        self.data.moment = None
        self.state.stage = RunningStage.TRAINING
        self.progress.validation.restart_clock()

    def finish_batch(self) -> None:
        """What belongs to a batch after its hooks: for a run that goes on from a file that a hook has written."""
        self.metrics.finish_batch()
        if self.progress.time_to_validate:
            self.validate_within_fit()
        self.schedulers.step_on_plateau(self.progress)
        self.progress.count_logger_step()
        boundary = self.boundary
        if boundary.waiting or self.progress.total_batches + boundary.evaluated >= boundary.limit:
            boundary.reach(self)

    def set_validation_rhythm(self) -> None:
        """Work out how often this run validates, now that the number of training batches is known."""
        rhythm, given = self.progress.validation, self._validation_interval
        num_batches = self.data.num_training_batches
        rhythm.enabled = self.enable_validation
        rhythm.every_n_epochs = self.check_val_every_n_epoch
        rhythm.every_n_batches = rhythm.every_n_steps = rhythm.every_n_seconds = None
        rhythm.at_end_of_epoch = False
        rhythm.restart_clock()
        if given.interval is not None:
            count = given.interval.count
            if given.interval.unit == "second":
                rhythm.every_n_seconds = float(count)
            elif given.interval.unit == "step":
                rhythm.every_n_steps, rhythm.every_n_epochs = int(count), None
            else:
                rhythm.every_n_epochs, rhythm.at_end_of_epoch = int(count), True
        elif given.batches is not None:
            rhythm.every_n_batches = given.batches
            if rhythm.enabled and rhythm.every_n_epochs is not None and given.batches > num_batches:
                raise ValueError(
                    f"`val_check_interval={given.batches}` is more than the {num_batches} training batches of an "
                    "epoch, so it would never validate. Write a smaller number, or `check_val_every_n_epoch=None` to "
                    "count batches over epochs."
                )
        elif given.fraction == 1.0:
            rhythm.at_end_of_epoch = True
        elif math.isinf(num_batches):
            raise MisconfigurationException(
                f"`val_check_interval={given.fraction}` is a fraction of the epoch, but the training loader has no "
                "length. Write a number of batches, such as `val_check_interval=1000`."
            )
        else:
            rhythm.every_n_batches = max(1, int(num_batches * (given.fraction or 1.0)))

    @contextmanager
    def without_gradients(self) -> Generator[None, None, None]:
        """What evaluation runs in: inference mode outside of ``fit`` if the Trainer was told so, else ``no_grad``."""
        # shards that are gathered in inference mode could not be trained afterwards
        allowed = self.strategy.allows_inference_mode and not self.strategy.forward_is_collective
        with no_gradients(self.inference_mode and allowed and self.state.fn != "fit"):
            yield

    def compiled_logs_drain(self, step: str) -> Callable[[], None] | None:
        """What brings the values that the compiled ``step`` logged to the metrics; None if it is not compiled."""
        logs = self.lightning_module._compiled_logs
        if logs is None or step not in self.lightning_module.__dict__:
            return None

        def drain() -> None:
            for name, value, options in logs:
                self.metrics.log(name, value, **options)
            logs.clear()

        return drain

    # -- what users call besides the verbs ----------------------------------------------------------------------------

    def save_checkpoint(
        self, filepath: str | os.PathLike[str], weights_only: bool | None = None, storage_options: Any = None
    ) -> None:
        """Write the whole state of this run to ``filepath``; to be called on all processes.

        Args:
            weights_only: the weights and hyperparameters only.

        Raises:
            AttributeError: there is no model yet.
        """
        if self._module is None:
            raise AttributeError(
                "`trainer.save_checkpoint` needs a model, and this Trainer has not run one yet. Call "
                "`trainer.fit(model)` first."
            )
        with self.profiler.profile("save_checkpoint"):
            checkpoint = checkpoints.dump(self, bool(weights_only))
            self.strategy.save_checkpoint(checkpoint, filepath, storage_options=storage_options)
            if not self.has_begun:  # there is no step boundary to come at which a failure would be told
                self.strategy.checkpoint_io.settle()
            self.strategy.barrier("save_checkpoint")

    def print(self, *args: Any, **kwargs: Any) -> None:
        """Print once per job, above the progress bar."""
        if not self.is_global_zero:
            return
        bar = self.progress_bar_callback
        if bar is not None and self.has_begun:
            bar.print(*args, **kwargs)
        else:
            print(*args, **kwargs)

    @contextmanager
    def init_module(self, empty_init: bool | None = None) -> Generator[None, None, None]:
        """Make the layers of a module on the device and in the precision that it will be trained in.

        Args:
            empty_init: leave the parameters uninitialised, as when a checkpoint is loaded anyway.
        """
        with (
            self.strategy.module_init_context(empty_init),
            self.precision_plugin.module_init_context(),
            WithoutInitialisation() if empty_init else nullcontext(),
        ):
            yield

    def tune(self, model: LightningModule, *args: Any, **kwargs: Any) -> dict[str, Any]:
        """Search as Lightning 1 did; arguments as in :func:`fulmen.trainer.removed_arguments.tune`. Today it is the
        :class:`~fulmen.tuner.tuning.Tuner` that searches.
        """
        from fulmen.trainer.removed_arguments import tune

        return tune(self, model, *args, **kwargs)

    def explain(self) -> None:
        """Say what a run with these arguments does: where, in which precision, when it validates, logs, saves and
        stops, and who is called. Prints it.
        """
        self.print(explanation(self))


def _validate(trainer: Trainer) -> list[dict[str, float]]:
    return _evaluated(trainer, "validate")


def _test(trainer: Trainer) -> list[dict[str, float]]:
    return _evaluated(trainer, "test")


def _evaluated(trainer: Trainer, stage: str) -> list[dict[str, float]]:
    results = evaluate_loop(trainer, stage)
    if trainer._verbose and results and trainer.is_global_zero:
        if trainer.results_printer is not None:
            trainer.results_printer(results, stage)
        else:
            trainer.print(evaluation_table(stage, results))
    return results
