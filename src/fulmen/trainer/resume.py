"""The middle of things: what a checkpoint holds beyond weights and counters, so that a run goes on bit for bit.

It stands under ``checkpoint["resume"]``, as plain data:

- ``random``: the state of every random number generator of the process;
- ``data``: where each training loader stands (:meth:`fulmen.trainer.sources.Source.mark`);
- ``generators``, ``modes``: what objects keep as attributes (:mod:`fulmen.trainer.attributes`);
- ``window``, ``gradients``: an accumulation window that is open;
- ``metrics``, ``module_metrics``: what was logged in the epoch so far, and what metric objects have seen of it;
- ``loggers``: how far each logger had written;
- ``micro_batch_size``: what ``Trainer(micro_batch_size="auto")`` has found, None as long as batches are whole;
- ``ranks``: with several processes, what each has of this (:mod:`fulmen.trainer.processes`);
- ``should_stop``: the run was asked to stop, by ``"callback"`` if a callback asked that asks again, else by ``"user"``.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

from fulmen.callbacks.early_stopping import EarlyStopping, EarlyStoppingReason
from fulmen.callbacks.timer import Timer
from fulmen.core.module import LightningModule
from fulmen.loops.plan import written
from fulmen.trainer import attributes, loop_counters, metric_objects, processes
from fulmen.trainer.checkpoint_checks import fitting, take_back
from fulmen.utilities.cloud_io import is_remote
from fulmen.utilities.rank_zero import rank_zero_warn
from fulmen.utilities.seed import collect_rng_states, restore_rng_states

if TYPE_CHECKING:
    from torch import Tensor

    from fulmen.trainer.opening import Restored
    from fulmen.trainer.trainer import Trainer


def gather(trainer: Trainer, save_loggers: bool = True) -> dict[str, Any]:
    """The state of this moment. The loggers have written all that it counts when this returns.

    Args:
        save_loggers: False: the state may not be needed, so that loggers are only asked where they are.
    """
    if trainer.data.moment is not None:
        return trainer.data.moment
    loggers = _state_of_loggers(trainer, save_loggers)
    state: dict[str, Any] = {
        "random": collect_rng_states(),
        "data": trainer.data.at_rest or trainer.data.state_dict(),
        "metrics": trainer.metrics.state_dict(),
        "module_metrics": metric_objects.state_of(trainer.lightning_module),
        "loggers": loggers,
        **attributes.gather(trainer),
    }
    if trainer.micro_batches is not None and trainer.micro_batches.is_automatic:
        state["micro_batch_size"] = trainer.micro_batches.size
    if trainer.should_stop:
        state["should_stop"] = "callback" if _asks_again_to_stop(trainer) else "user"
    if trainer.progress.window_is_open:
        state["window"] = trainer.window.state_dict()
    gradients = _gradients(trainer)
    if gradients:
        state["gradients"] = gradients
    ranks = processes.gather(trainer, state)
    return state if ranks is None else {**state, "ranks": ranks}


def _gradients(trainer: Trainer) -> dict[str, Tensor]:
    """The gradients that the next step adds to. Where the user says when they are cleared, all that are there."""
    module = trainer.lightning_module
    asks_user = not module.automatic_optimization or any(
        written(module, name, LightningModule) is not None for name in ("optimizer_step", "optimizer_zero_grad")
    )
    if not asks_user and not trainer.progress.window_is_open:
        return {}
    trainer.strategy.settle_gradients()
    found = {name: parameter.grad for name, parameter in module.named_parameters() if parameter.grad is not None}
    return trainer.strategy.gathered(found)


def _state_of_loggers(trainer: Trainer, save: bool) -> list[dict[str, Any]]:
    for logger in trainer.loggers if save else ():
        logger.save()  # all of them first: several may write into one folder
    return [
        {"class": type(logger).__qualname__, "state": logger.state_dict() if hasattr(logger, "state_dict") else {}}
        for logger in trainer.loggers
    ]


def _asks_again_to_stop(trainer: Trainer) -> bool:
    """Whether a callback that has ended this run does so again when it is resumed, if nothing has changed."""
    for callback in trainer.callbacks:
        if isinstance(callback, EarlyStopping) and callback.stopping_reason is not EarlyStoppingReason.NOT_STOPPED:
            return True
        remaining = callback.time_remaining() if isinstance(callback, Timer) else None
        if remaining is not None and remaining <= 0:
            return True
    return False


def prepare(trainer: Trainer, checkpoint: dict[str, Any], restored: Restored) -> None:
    """Have the data call :func:`go_on` when the hooks that open the run, or the epoch, have been called.

    Args:
        restored: what there was before those hooks.
    """
    data, in_epoch = trainer.data, trainer.progress.in_epoch
    asked_to_stop = checkpoint.get("resume", {}).get("should_stop")
    trainer.progress.was_stopping = asked_to_stop is not None
    if asked_to_stop == "user":
        trainer.should_stop = True
    data.prepare(checkpoint.get("resume", {}).get("data"))

    def once() -> None:
        data.go_on = None
        _go_back(trainer, checkpoint, restored)
        go_on(trainer, checkpoint, in_epoch)
        if trainer.progress.done and not in_epoch:
            data.at_rest = processes.of_this(trainer, checkpoint.get("resume", {})).get("data")
        if trainer.ckpt_was_chosen and "progress" in checkpoint["loops"]:
            _complete_saves(trainer, checkpoint)

    data.go_on = once


def _complete_saves(trainer: Trainer, checkpoint: dict[str, Any]) -> None:
    """Have the files written that were due at the moment of the checkpoint, and that a process that was killed did not
    come to: they are what they would have been.
    """
    progress, saved = trainer.progress, checkpoint["loops"]["progress"]
    before = progress.state_dict()
    progress.load_state_dict(saved)
    if checkpoint["epoch"] < saved["epoch"]:  # saved by one of those that watch the end of the epoch
        progress.epoch, progress.epoch_is_closed = checkpoint["epoch"], True
    trainer.data.moment = checkpoint.get("resume")
    try:
        for writer in trainer.checkpoint_callbacks:
            writer.catch_up(trainer)
    finally:
        trainer.data.moment, progress.epoch_is_closed = None, False
        progress.load_state_dict(before)


def _go_back(trainer: Trainer, checkpoint: dict[str, Any], restored: Restored) -> None:
    """Take back what the hooks that open a run have done and logged: they did so in the run that goes on here."""
    restored.put_back()
    state = processes.of_this(trainer, checkpoint.get("resume", {}))
    device, source = trainer.strategy.root_device, trainer.loaded_ckpt_path
    if "module_metrics" in state:
        with fitting("what metrics have seen", source):
            metric_objects.restore(trainer.lightning_module, state["module_metrics"], device)
    if "metrics" in state:
        with fitting("what was logged", source):
            trainer.metrics.load_state_dict(state["metrics"], device)
    waiting: dict[str, list[Any]] = {}
    for logger in trainer.loggers:  # the second of a class is the second of that class
        waiting.setdefault(type(logger).__qualname__, []).append(logger)
    for saved in state.get("loggers", ()):
        same_class = waiting.get(saved["class"])
        if same_class:
            logger = same_class.pop(0)
            if saved["state"]:
                take_back(logger, _where_it_is_now(saved["state"], checkpoint, source), source)


def _where_it_is_now(state: dict[str, Any], checkpoint: dict[str, Any], source: Any) -> dict[str, Any]:
    """The state of a logger; if the directory of the run was moved or copied, with its directory as it is now.

    The checkpoint lay in a known place beside it, and lies there still.
    """
    directory, path = state.get("directory"), str(source)
    for callback in checkpoint.get("callbacks", {}).values():
        file = callback.get("file") if isinstance(callback, dict) else None
        before, name = (callback.get("dirpath"), file.get("path")) if isinstance(file, dict) else (None, None)
        if not (isinstance(directory, str) and isinstance(before, str) and isinstance(name, str)):
            continue
        if is_remote(directory) or is_remote(before) or is_remote(path) or not os.path.realpath(path).endswith(name):
            continue
        now = os.path.realpath(path).removesuffix(name)
        return {**state, "directory": os.path.normpath(os.path.join(now, os.path.relpath(directory, before)))}
    return state


def go_on(trainer: Trainer, checkpoint: dict[str, Any], in_epoch: bool) -> None:
    """Bring a run to the very moment at which ``checkpoint`` was made. Everything else is restored, and the hooks that
    open a run have been called.

    Args:
        in_epoch: the run goes on in the middle of an epoch.
    """
    processes.say_other_number(trainer, checkpoint.get("resume", {}))
    state = processes.of_this(trainer, checkpoint.get("resume", {}))
    if in_epoch:
        trainer.data.seek(state.get("data"))
    elif "data" in state:
        trainer.data.begin_with(state["data"])
    if "random" in state:
        restore_rng_states(state["random"])
    attributes.restore(trainer, state)
    if in_epoch:
        trainer.strategy.start_epoch()  # which has begun with what was frozen before
    if trainer.micro_batches is not None and "micro_batch_size" in state:
        trainer.micro_batches.resume(state["micro_batch_size"])
    if "window" in state:
        trainer.window.load_state_dict(state["window"])
    parameters = dict(trainer.lightning_module.named_parameters())
    gradients = state.get("gradients", {})
    for name in gradients.keys() - parameters.keys():
        rank_zero_warn(f"the checkpoint holds the gradient of {name!r}, which is no parameter here: it is left out.")
    names = [name for name in gradients if name in parameters]
    parts = trainer.strategy.own_parts([(gradients[name], parameters[name]) for name in names])
    for name, gradient in zip(names, parts):
        parameters[name].grad = gradient.to(parameters[name].device)
    if trainer.progress.batch_is_open:  # saved by a hook in the middle of a step, of which this much can be made good
        if "progress" not in checkpoint["loops"]:
            loop_counters.reopen_batch(trainer.progress, checkpoint)
        trainer.finish_batch()
