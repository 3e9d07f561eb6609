"""One run from setup to teardown: the order of things, exceptions and signals."""

from __future__ import annotations

import operator
import sys
from collections.abc import Callable, Generator
from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING, Any

import torch

from fulmen.callbacks.callback import Callback
from fulmen.callbacks.checkpoint import Checkpoint
from fulmen.core.module import LightningModule
from fulmen.core.optimizer import LightningOptimizer, NoOptimizer, Schedulers, configured_optimizers
from fulmen.loggers.logger import Logger, tell_all
from fulmen.loops.evaluate import evaluate_loop
from fulmen.loops.plan import written
from fulmen.plugins.layer_sync import LayerSync, TorchSyncBatchNorm
from fulmen.trainer import checkpoint as checkpoints
from fulmen.trainer import metric_objects, replay, together, which_file
from fulmen.trainer.explain import headline
from fulmen.trainer.flags import ordered, refuse_no_callbacks
from fulmen.trainer.hook_checks import check_hooks
from fulmen.trainer.inexact import warn_of_inexact
from fulmen.trainer.opening import Restored
from fulmen.trainer.states import RunningStage, TrainerFn, TrainerStatus
from fulmen.trainer.translation import end_translation, translate
from fulmen.trainer.validation import check_optimizers, check_run, check_shares, explain_no_parameters
from fulmen.utilities.exceptions import MisconfigurationException
from fulmen.utilities.rank_zero import rank_zero_info, rank_zero_warn
from fulmen.utilities.seed import collect_rng_states, draw_apart, isolate_rng

if TYPE_CHECKING:
    from fulmen.trainer.trainer import Trainer

_STAGES = {
    "fit": RunningStage.TRAINING,
    "validate": RunningStage.VALIDATING,
    "test": RunningStage.TESTING,
    "predict": RunningStage.PREDICTING,
}


@contextmanager
def session(
    trainer: Trainer, verb: str, ckpt_path: Any, weights_only: bool | None, is_search: bool = False
) -> Generator[bool, None, None]:
    """Everything around a loop.

    Args:
        is_search: what runs is a search that makes trials (:mod:`fulmen.trainer.trials`), not the loop of ``verb``.

    Yields:
        Whether there is anything to run.
    """
    trainer.state.fn, trainer.state.status = TrainerFn(verb), TrainerStatus.RUNNING
    trainer.state.stage = _STAGES[verb]
    with trainer.signals:
        try:
            _set_up(trainer, verb, ckpt_path, weights_only, is_search)
            if trainer.profiles:
                trainer.profiler.stop("set_up")
            trainer.signals.end_if_asked()
            with _anomaly_detection(trainer, verb):
                yield is_search or verb != "fit" or _ready_to_train(trainer)
            together.end_training(trainer)
            with trainer.profiler.profile("finish_checkpoints"):
                trainer.strategy.checkpoint_io.settle()
            _tear_down(trainer)
            _finish(trainer, verb)
            together.end_run(trainer)
        except KeyboardInterrupt as interrupt:
            if trainer.signals.request is None:
                rank_zero_info("interrupted by Ctrl-C: ending")
            _fail(trainer, interrupt)
            sys.exit(1)
        except BaseException as exception:
            _fail(trainer, exception)
            trainer.state.stage = None
            if isinstance(exception, OSError):
                from fulmen.trainer.unwritten import explain  # which is of use here alone

                explain(trainer, exception, ckpt_path)
            raise
    trainer.state.status, trainer.state.stage = TrainerStatus.FINISHED, None
    trainer.signals.end_of_run()


# -- before -----------------------------------------------------------------------------------------------------------


def _set_up(trainer: Trainer, verb: str, ckpt_path: Any, weights_only: bool | None, is_search: bool) -> None:
    module, datamodule, strategy = trainer.lightning_module, trainer.datamodule, trainer.strategy
    module.trainer = trainer
    if datamodule is not None:
        datamodule.trainer = trainer
    writers = trainer.checkpoint_callbacks  # before the module's own take their place: theirs are the files
    _merge_callbacks(trainer)
    if replay.active is not None:
        ckpt_path = replay.active.enter(trainer, verb, ckpt_path)
    for callback in trainer.callbacks:
        if isinstance(callback, Callback):
            callback.__dict__["log"], callback.__dict__["log_dict"] = module.log, module.log_dict
    translate(trainer, verb)
    check_run(trainer, verb)
    check_hooks(trainer)
    trainer.begin_run()
    strategy.setup_environment()
    if strategy.accelerator is not None:
        strategy.accelerator.setup(trainer)
    check_shares(strategy)
    together.begin_run(trainer)
    which_file.return_to_run(trainer, verb, ckpt_path)
    if trainer.profiles:
        local_rank = strategy.local_rank if strategy.world_size > 1 else None
        trainer.profiler.setup(stage=verb, local_rank=local_rank, log_dir=trainer.log_dir)
        trainer.profiler.start("set_up")
    call = trainer.replan()
    call.prepare_data()
    trainer.signals.end_if_asked()
    for logger in trainer.loggers:
        _make_folder_of(logger)
    call.setup(TrainerFn(verb))
    strategy.lightning_module = module
    strategy.connect(module)
    if written(module, "configure_model", LightningModule) is not None:
        with strategy.module_init_context(), trainer.precision_plugin.module_init_context():
            trainer.quietly("configure_model")
    trainer.precision_plugin.convert_module(module)  # before weights come from a file, which would be rounded
    path = which_file.resolve_path(trainer, verb, ckpt_path, trainer.model_was_given, writers)
    checkpoint = None
    if path is not None:
        with trainer.profiler.profile("load_checkpoint"):
            checkpoint = checkpoints.load(trainer, path, weights_only)
    trainer.loaded_ckpt_path = path
    restored: Restored | None = None
    if checkpoint is not None:
        if ckpt_path == "auto":
            which_file.warn_of_other_hyperparameters(trainer, checkpoint)
        restored = Restored(trainer, checkpoint) if verb == "fit" else None
        checkpoints.restore_model(trainer, checkpoint)
        if restored is not None:
            restored.note_model()
    if verb == "fit" and strategy.world_size > 1 and trainer.layer_sync is not None:
        _share_layers(trainer, trainer.layer_sync)
    strategy.setup_module(module)
    if trainer.profiles:
        trainer.profiler.watch(module)
    if verb == "fit":
        strategy.setup_training(module)
        share_window(trainer)
        if trainer.micro_batches is not None:
            trainer.micro_batches.begin_run(trainer)
        metric_objects.begin(module, will_save=bool(trainer.checkpoint_callbacks))
        set_up_optimizers(trainer)
    strategy.setup(trainer)
    if verb == "fit":
        bar = trainer.progress_bar_callback
        if bar is not None and (bar.is_enabled or trainer.world_size > 1) and not is_search:
            line = headline(trainer)  # on all processes, as the first one tells where files go
            trainer.print(line)
        trainer.replan().on_fit_start()
    _log_hyperparameters(trainer)
    if checkpoint is not None and restored is not None:
        checkpoints.restore_training(trainer, checkpoint, restored)
    torch.nn.Module.zero_grad(module)


def share_window(trainer: Trainer) -> None:
    """Let an accumulation window know what this process's batches count among those of all."""
    strategy, window, data = trainer.strategy, trainer.window, trainer.data
    if strategy.data_parallel_size > 1:
        from fulmen.strategies.late import share_of

        window.share = lambda: share_of(data.group_sizes, strategy.data_parallel_rank)


def _share_layers(trainer: Trainer, layers: LayerSync) -> None:
    """Let layers share their statistics between processes for the length of the run."""
    module, device = trainer.lightning_module, trainer.strategy.root_device
    if isinstance(layers, TorchSyncBatchNorm) and device.type == "cpu":
        raise MisconfigurationException(
            f"`sync_batchnorm=True` on {trainer.strategy.world_size} processes of the CPU: torch's SyncBatchNorm works "
            "on accelerators only. Leave it out, or pass a `LayerSync` of your own: `Trainer(plugins=...)`."
        )
    layers.apply(module)

    def revert() -> None:
        layers.revert(module)

    trainer.when_torn_down(revert)


def _make_folder_of(logger: Any) -> None:
    """Let the logger make its folder now, so that one that cannot be made is told before anything runs."""
    try:
        _ = logger.experiment
    except OSError as error:
        error.add_note(
            f"{type(logger).__name__} cannot make its folder. Choose one that can be written to, by "
            "`Trainer(default_root_dir=...)` or the logger's own argument, or write nothing: `Trainer(logger=False)`."
        )
        raise


def _merge_callbacks(trainer: Trainer) -> None:
    """Add the module's own callbacks, in place of those of the same class (or of a class that they derive from)."""
    own = trainer.lightning_module.configure_callbacks()
    own = list(own) if isinstance(own, (list, tuple)) else [own]
    if not own:
        return
    refuse_no_callbacks(f"`{type(trainer.lightning_module).__name__}.configure_callbacks` returned", own)
    classes = [type(callback) for callback in own]
    kept = [
        callback
        for callback in trainer.callbacks
        if type(callback) is Callback or not any(issubclass(kind, type(callback)) for kind in classes)
    ]
    replaced = [type(callback).__name__ for callback in trainer.callbacks if callback not in kept]
    if replaced:
        rank_zero_info("the module's own callbacks take the place of the Trainer's: %s", ", ".join(replaced))
    trainer.callbacks[:] = ordered(kept + own)


def set_up_optimizers(trainer: Trainer) -> None:
    """Ask the module for its optimizers and schedulers."""
    module = trainer.lightning_module
    trainer.before_optimizers = collect_rng_states(), set(trainer.data.loaders)
    try:
        returned = trainer.quietly("configure_optimizers")
    except ValueError as error:
        explain_no_parameters(module, error)
        raise
    optimizers, schedulers = configured_optimizers(module, returned)
    _, trainer.optimizers, trainer.lr_scheduler_configs = trainer.precision_plugin.connect(
        module, optimizers, schedulers
    )
    check_optimizers(trainer)
    trainer.progress.counts_own_steps = module.automatic_optimization
    attach_optimizers(trainer)
    trainer.strategy.setup_optimizers(trainer)


def attach_optimizers(trainer: Trainer) -> None:
    """Make what steps the optimizers and schedulers of the trainer, anew when a callback has put others there."""
    module, attached = trainer.lightning_module, [*trainer.optimizers, None, *trainer.lr_scheduler_configs]
    same = len(attached) == len(trainer.attached) and all(map(operator.is_, attached, trainer.attached))
    if same and trainer.schedulers is not None:
        return
    before, trainer.attached = trainer.attached, attached
    trainer.wrapped_optimizers = [LightningOptimizer(optimizer) for optimizer in trainer.optimizers]
    for wrapped in trainer.wrapped_optimizers:
        wrapped.attach(module, trainer.precision_plugin, trainer.strategy)
    automatic = module.automatic_optimization
    trainer.schedulers = Schedulers(
        trainer.lr_scheduler_configs if module._steps_schedulers else [],
        lambda scheduler, metric: trainer.plan.lr_scheduler_step(scheduler, metric),
        lambda: trainer.callback_metrics,
    )
    for optimizer, wrapped in zip(trainer.optimizers, trainer.wrapped_optimizers):
        if not automatic and not trainer.precision_plugin.steps_alone:
            _report_steps(trainer, optimizer, wrapped)
        if any(optimizer is one for one in before) or isinstance(optimizer, NoOptimizer):
            continue
        if not automatic:
            _count_steps(trainer, optimizer)
        if trainer.profiles and hasattr(optimizer, "register_step_pre_hook"):
            _profile_steps(trainer, optimizer)


def _profile_steps(trainer: Trainer, optimizer: Any) -> None:
    """Measure the optimizer's steps."""
    profiler, action = trainer.profiler, f"[Optimizer]{type(optimizer).__name__}.step"
    depth = 0  # a derived class may call the step that it is derived from, which torch announces, too

    def before(*args: Any) -> None:
        nonlocal depth
        depth += 1
        if depth == 1:
            profiler.start(action)

    def after(*args: Any) -> None:
        nonlocal depth
        depth -= 1
        if depth == 0:
            profiler.stop(action)

    trainer.when_torn_down(optimizer.register_step_pre_hook(before).remove)
    trainer.when_torn_down(optimizer.register_step_post_hook(after).remove)


def _report_steps(trainer: Trainer, optimizer: Any, wrapped: LightningOptimizer) -> None:
    """Let an optimizer in manual optimization report its steps also where the precision leaves one out: it counts all
    the same.
    """
    progress = trainer.progress

    def after() -> None:
        progress.step += 1

    reporting = ExitStack()
    reporting.enter_context(wrapped.announcing(lambda: trainer.plan.on_before_optimizer_step(optimizer), after))
    trainer.when_torn_down(reporting.close)


def _count_steps(trainer: Trainer, optimizer: Any) -> None:
    """Let an optimizer in manual optimization report its steps, also when the user steps it directly."""
    if not hasattr(optimizer, "register_step_pre_hook"):
        return
    progress = trainer.progress

    def reports_itself() -> bool:
        return any(one.is_stepping and one.optimizer is optimizer for one in trainer.wrapped_optimizers)

    def before(optimizer: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        if reports_itself():
            return None
        closure = args[1] if len(args) > 1 else kwargs.get("closure")
        if closure is None:
            trainer.plan.on_before_optimizer_step(optimizer)
            return None

        def closure_and_hook() -> Any:  # gradients are there only after the closure
            result = closure()
            trainer.plan.on_before_optimizer_step(optimizer)
            return result

        if len(args) > 1:
            return (args[0], closure_and_hook, *args[2:]), kwargs
        return args, {**kwargs, "closure": closure_and_hook}

    def after(optimizer: Any, args: Any, kwargs: Any) -> None:
        if not reports_itself():
            progress.step += 1

    trainer.when_torn_down(optimizer.register_step_pre_hook(before).remove)
    trainer.when_torn_down(optimizer.register_step_post_hook(after).remove)


def _log_hyperparameters(trainer: Trainer) -> None:
    if not trainer.enable_autolog_hparams or not trainer.loggers:
        return
    merged: dict[str, Any] = {}
    for owner in (trainer.datamodule, trainer.lightning_module):
        if owner is None or not getattr(owner, "_log_hyperparams", False):
            continue
        for name, value in owner.hparams_initial.items():
            if name in ("_class_path", "_instantiator"):  # how the command line made it
                continue
            if name in merged and (type(merged[name]) is not type(value) or not _same(merged[name], value)):
                raise RuntimeError(
                    f"the hyperparameter {name!r} is {merged[name]!r} in the datamodule and {value!r} in the module, "
                    "so it cannot be logged under one name. Rename one, or write "
                    "`self.save_hyperparameters(logger=False)`."
                )
            merged[name] = value

    def log(logger: Logger) -> None:
        if merged:
            logger.log_hyperparams(merged)
        logger.log_graph(trainer.lightning_module)
        logger.save()

    tell_all(trainer.loggers, log)


def _same(one: Any, other: Any) -> bool:
    try:
        return bool(one == other)
    except (RuntimeError, ValueError, TypeError):  # arrays, which compare element by element
        return one is other


def _ready_to_train(trainer: Trainer) -> bool:
    """The sanity check and the first look at the data; False if there is nothing to train."""
    progress, data = trainer.progress, trainer.data
    if trainer.ckpt_was_chosen and trainer.loaded_ckpt_path is not None and progress.done and not progress.in_epoch:
        if which_file.is_finished(trainer):
            rank_zero_info(
                "nothing to train: this run is finished, with %d epochs and %d steps", progress.epoch, progress.step
            )
            return False
        data.request("train")
        return True  # only its last hooks, and files that belong to its end, are still to come
    if trainer.enable_validation and data.flags.num_sanity_val_steps and not progress.in_epoch:
        _sanity_check(trainer)
    trainer.state.stage = RunningStage.TRAINING
    if data.flags.limits["train"] == 0:
        return False
    data.request("train")
    if progress.done and not progress.ends_within_epoch:
        _explain_nothing_to_do(trainer)
        # a run that was told to stop, and killed before its last hooks: its last row is still to be logged
        stopped = progress.was_stopping and not progress.limit_is_reached and not progress.out_of_time
        return stopped and not which_file.is_finished(trainer)
    if any(isinstance(callback, Checkpoint) for callback in trainer.callbacks) and not trainer.fast_dev_run:
        warn_of_inexact(data.loaders["train"].sources, "train_dataloader")
    if data.num_training_batches == 0:
        rank_zero_info("nothing to train: the training loader has no batches")
        return False
    trainer.set_validation_rhythm()
    if trainer.enable_validation and progress.validation.every_n_epochs in (1, None):
        data.request("validate")
    asleep = [name for name, child in trainer.lightning_module.named_modules() if name and not child.training]
    if asleep:
        rank_zero_info("%d sub-modules are in evaluation mode when training starts, %s first", len(asleep), asleep[0])
    draw_apart(trainer.strategy.data_parallel_rank)
    trainer.metrics.begin_training()
    trainer.modes.note(trainer.lightning_module)
    trainer.signals.end_if_asked()
    trainer.signals.begin_training()
    together.begin_training(trainer)
    if progress.total_batches and trainer.loaded_ckpt_path is None:
        rank_zero_info(
            "the same model goes on: %d epoch%s and %d step%s are done; its optimizers and schedulers are made anew. "
            "To begin at zero, use another Trainer; to go on exactly, `fit(ckpt_path=...)`",
            progress.epoch,
            "s" * (progress.epoch != 1),
            progress.step,
            "s" * (progress.step != 1),
        )
    return True


def _explain_nothing_to_do(trainer: Trainer) -> None:
    progress = trainer.progress
    limits = progress.limits
    if limits.max_epochs == 0 or limits.max_steps == 0:
        return
    if not progress.limit_is_reached:
        if progress.was_stopping:
            rank_zero_warn(
                f"nothing to train: `trainer.should_stop` was set in the run that {trainer.ckpt_path} is of, so it has "
                "ended. To train on, change what made it stop (more patience for an EarlyStopping, more time for a "
                "Timer, which `max_time` is, too); if you set it yourself, write "
                "`checkpoint['resume'].pop('should_stop', None)` in `on_load_checkpoint` of the module."
            )
            return
        rank_zero_warn(
            "nothing to train: `trainer.should_stop` was set before training began, as by a Timer whose time is used "
            "up, which `max_time` is, too. Give it more time, or set it later."
        )
        return
    rank_zero_warn(
        f"nothing to train: {progress.epoch} epochs and {progress.step} steps are done, and the limits are "
        f"max_epochs={limits.max_epochs}, max_steps={limits.max_steps}. Set `trainer.max_epochs` to more, "
        "or make a new Trainer."
    )


def _sanity_check(trainer: Trainer) -> None:
    trainer.state.stage = RunningStage.SANITY_CHECKING
    call = trainer.plan
    with isolate_rng():
        call.on_sanity_check_start()
        with trainer.profiler.profile("sanity_check"):
            evaluate_loop(trainer, "sanity_check")
        call.on_sanity_check_end()
        trainer.metrics.forget()


@contextmanager
def _anomaly_detection(trainer: Trainer, verb: str) -> Generator[None, None, None]:
    if verb == "fit" and trainer.detect_anomaly:
        with torch.autograd.set_detect_anomaly(True):
            yield
    else:
        yield


# -- after ------------------------------------------------------------------------------------------------------------


def _tear_down(trainer: Trainer) -> None:
    """Let go of the devices; after this the module is on the CPU."""
    trainer.strategy.teardown()
    for optimizer in trainer.optimizers:
        _optimizer_to_cpu(optimizer)
    trainer.metrics.to_host()
    if trainer.data is not None:  # the run came that far
        trainer.data.close()


def _optimizer_to_cpu(optimizer: Any) -> None:
    for state in optimizer.state.values():
        if isinstance(state, dict):
            for name, value in state.items():
                if isinstance(value, torch.Tensor) and value.device.type != "cpu":
                    state[name] = value.cpu()


def _finish(trainer: Trainer, verb: str) -> None:
    call = trainer.replan()
    if verb == "fit":
        call.on_fit_end()
    call.teardown(TrainerFn(verb))
    tell_all(trainer.loggers, lambda logger: logger.finalize("success"))
    progress = trainer.progress
    if verb == "fit" and progress.done and not progress.out_of_time and not trainer.fast_dev_run:
        which_file.mark_finished(trainer)
    if trainer.profiles:
        trainer.profiler.describe()
    _let_go(trainer)


def _fail(trainer: Trainer, exception: BaseException) -> None:
    """Tell everybody, and lose nothing: an error in one of them does not keep the others from hearing."""
    trainer.state.status = TrainerStatus.INTERRUPTED
    exception = together.fail(trainer, exception)

    def attempt(action: Callable[[], Any]) -> None:
        try:
            action()
        except Exception as error:  # the first exception is the one that matters
            rank_zero_warn(f"while ending after {type(exception).__name__}: {type(error).__name__}: {error}")

    try:
        if trainer.has_begun:
            attempt(lambda: setattr(trainer.metrics, "hook", "on_exception"))
            told = trainer.plan.listeners("on_exception") if replay.active is None else []  # or they would write
            for _, listener in told:
                attempt(lambda listener=listener: listener(exception))
            attempt(trainer.strategy.checkpoint_io.settle)
            for logger in trainer.loggers:
                attempt(lambda logger=logger: logger.finalize("failed"))
            attempt(lambda: _tear_down(trainer))
            if trainer.profiles:
                attempt(trainer.profiler.describe)  # what was measured until then
    finally:  # also if Ctrl-C is pressed again meanwhile
        _let_go(trainer)
    together.leave(trainer)


def _let_go(trainer: Trainer) -> None:
    """From here on only the module, the datamodule and the caller know the trainer."""
    for callback in trainer.callbacks:
        if isinstance(callback, Callback):
            callback.__dict__.pop("log", None)
            callback.__dict__.pop("log_dict", None)
    end_translation(trainer)
    trainer.end_run()
