"""The whole state of a run as plain data: gathered into a checkpoint, and put back.

The keys are those of Lightning's checkpoint files, and every value can be read by ``torch.load(weights_only=True)``.
"""

from __future__ import annotations

import os
from copy import deepcopy
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from torch import Tensor
from torch.optim import Optimizer

from fulmen import __version__
from fulmen.callbacks.callback import Callback
from fulmen.core.hparams import hparams_for_checkpoint
from fulmen.core.optimizer import NoOptimizer
from fulmen.core.saving import load_weights
from fulmen.plugins.io import index
from fulmen.trainer import resume
from fulmen.utilities.cloud_io import parent_path
from fulmen.utilities.exceptions import MisconfigurationException
from fulmen.utilities.rank_zero import rank_zero_info, rank_zero_warn
from fulmen.utilities.text import a_kind

if TYPE_CHECKING:
    from fulmen.loops.progress import Progress
    from fulmen.trainer.trainer import Trainer

#: the version of Lightning's checkpoint format that is written, which its own loading asks for
FORMAT_VERSION = "2.6.0"


def dump(trainer: Trainer, weights_only: bool = False) -> dict[str, Any]:
    """Gather the state of a run.

    Args:
        weights_only: the module's weights and the hyperparameters only; such a file cannot be resumed from.
    """
    module, datamodule, progress = trainer.lightning_module, trainer.datamodule, trainer.progress
    checkpoint: dict[str, Any] = {
        "epoch": progress.epoch,
        "global_step": progress.step,
        "pytorch-lightning_version": FORMAT_VERSION,
        "fulmen_version": __version__,
        "state_dict": trainer.strategy.lightning_module_state_dict(module),
        "loops": _dump_loops(progress),
    }
    call = trainer.plan
    if not weights_only:
        checkpoint["callbacks"] = _dump_callbacks(trainer)
        checkpoint["optimizer_states"] = [
            optimizer.state_dict() for optimizer in trainer.optimizers if not isinstance(optimizer, NoOptimizer)
        ]
        checkpoint["lr_schedulers"] = [config.scheduler.state_dict() for config in trainer.lr_scheduler_configs]
        checkpoint["resume"] = resume.gather(trainer)
        precision = trainer.precision_plugin.state_dict()
        if precision:
            checkpoint[type(trainer.precision_plugin).__name__] = precision
    for owner in (module, datamodule):
        if owner is not None:
            checkpoint.update(hparams_for_checkpoint(owner))
    if datamodule is not None:
        state = datamodule.state_dict()
        if state:
            checkpoint[type(datamodule).__qualname__] = state
    if weights_only:
        module.on_save_checkpoint(checkpoint)
    else:
        call.on_save_checkpoint(checkpoint)
    return checkpoint


def _dump_callbacks(trainer: Trainer) -> dict[str, Any]:
    states: dict[str, Any] = {}
    for callback in trainer.callbacks:
        state = callback.state_dict() if hasattr(callback, "state_dict") else None
        if state:
            states[callback.state_key] = state
    return states


def _dump_loops(progress: Progress) -> dict[str, Any]:
    """The clock, as Lightning writes its own counters, and whole under ``progress``."""
    done, epoch = progress.total_batches, progress.epoch
    epochs_begun = epoch + (progress.in_epoch or progress.epoch_is_closed)
    batches = {"ready": done, "started": done, "processed": done, "completed": done}
    current = dict.fromkeys(batches, progress.batches_done)
    steps = {"ready": progress.step, "completed": progress.step}
    of_epochs = {"ready": epochs_begun, "started": epochs_begun, "processed": epochs_begun, "completed": epoch}
    nothing = {"total": dict.fromkeys(batches, 0), "current": dict.fromkeys(batches, 0)}
    no_steps = {"total": {"ready": 0, "completed": 0}, "current": {"ready": 0, "completed": 0}}
    automatic, manual = (steps, {"ready": 0, "completed": 0})[:: 1 if progress.counts_own_steps else -1]
    zero_grad = {"ready": automatic["ready"], "started": automatic["ready"], "completed": automatic["completed"]}
    fit = {
        "state_dict": {},
        "epoch_loop.state_dict": {"_batches_that_stepped": progress.batches_that_stepped},
        "epoch_loop.batch_progress": {"total": batches, "current": current, "is_last_batch": progress.is_last_batch},
        "epoch_loop.scheduler_progress": no_steps,
        "epoch_loop.automatic_optimization.state_dict": {},
        "epoch_loop.automatic_optimization.optim_progress": {
            "optimizer": {
                "step": {"total": automatic, "current": dict(automatic)},
                "zero_grad": {"total": zero_grad, "current": dict(zero_grad)},
            }
        },
        "epoch_loop.manual_optimization.state_dict": {},
        "epoch_loop.manual_optimization.optim_step_progress": {"total": manual, "current": dict(manual)},
        "epoch_loop.val_loop.state_dict": {},
        "epoch_loop.val_loop.batch_progress": {**nothing, "is_last_batch": False},
        "epoch_progress": {"total": of_epochs, "current": dict(of_epochs)},
    }
    evaluation = {"state_dict": {}, "batch_progress": {**nothing, "is_last_batch": False}}
    return {
        "fit_loop": fit,
        "validate_loop": evaluation,
        "test_loop": deepcopy(evaluation),
        "predict_loop": {"state_dict": {}, "batch_progress": deepcopy(nothing)},
        "progress": progress.state_dict(),
    }


# -- back -------------------------------------------------------------------------------------------------------------


def restore_model(trainer: Trainer, checkpoint: dict[str, Any]) -> None:
    """Put back the module's weights, the datamodule's and the callbacks' state: before optimizers are made."""
    module, datamodule = trainer.lightning_module, trainer.datamodule
    module.on_load_checkpoint(checkpoint)
    load_weights(module, checkpoint["state_dict"], module.strict_loading, str(trainer.loaded_ckpt_path))
    if datamodule is not None and type(datamodule).__qualname__ in checkpoint:
        datamodule.load_state_dict(checkpoint[type(datamodule).__qualname__])
    states = checkpoint.get("callbacks")
    if states is None:
        return
    known = {callback.state_key for callback in trainer.callbacks if isinstance(callback, Callback)}
    lost = sorted(str(key) for key in states if key not in known)
    if lost:
        rank_zero_warn(
            f"the checkpoint holds the state of callbacks that this run does not have: {lost}. It is left out."
        )
    for callback in trainer.callbacks:
        if hasattr(callback, "on_load_checkpoint"):
            callback.on_load_checkpoint(trainer, module, checkpoint)
    for callback in trainer.callbacks:
        state = states.get(callback.state_key) if isinstance(callback, Callback) else None
        if state:
            callback.load_state_dict(deepcopy(state))


def restore_training(trainer: Trainer, checkpoint: dict[str, Any], restored_callbacks: dict[str, Any]) -> None:
    """Put back the clock, the optimizers, the schedulers and the precision plugin: after ``on_fit_start``.

    Args:
        restored_callbacks: the state of each callback when it was restored (:func:`resume.states_of_callbacks`).
    """
    missing = [key for key in ("optimizer_states", "lr_schedulers") if key not in checkpoint]
    if missing:
        raise KeyError(
            f"the checkpoint has no {' and '.join(missing)}: it holds weights only (`save_weights_only=True`), so "
            "training cannot go on from it. Load the weights by `Model.load_from_checkpoint(path)` and fit anew."
        )
    restored = replace(trainer.progress)
    _restore_loops(restored, checkpoint)
    limit = restored.limits.max_epochs
    if 0 <= limit < restored.epoch:
        raise MisconfigurationException(
            f"the checkpoint has {restored.epoch} epochs behind it, but `Trainer(max_epochs={limit})` wants only "
            f"{limit}. Set `max_epochs` to more than {restored.epoch}."
        )
    _restore_loops(trainer.progress, checkpoint)
    progress = trainer.progress
    if progress.in_epoch and not progress.is_last_batch and "window" not in checkpoint.get("resume", {}):
        progress.reopen_window()  # another program's file, without the gradients of the open window: once more
    resume.prepare(trainer, checkpoint, restored_callbacks)
    precision = trainer.precision_plugin
    if type(precision).__name__ in checkpoint:
        precision.load_state_dict(checkpoint[type(precision).__name__])
    optimizers = [optimizer for optimizer in trainer.optimizers if not isinstance(optimizer, NoOptimizer)]
    for kind, owners, states in (
        ("optimizers", optimizers, checkpoint["optimizer_states"]),
        ("schedulers", [config.scheduler for config in trainer.lr_scheduler_configs], checkpoint["lr_schedulers"]),
    ):
        if len(owners) != len(states):
            raise MisconfigurationException(
                f"the checkpoint holds {len(states)} {kind[: -1 if len(states) == 1 else None]}, but "
                f"`configure_optimizers` returned {len(owners)}. "
                "Return the same ones as in the run that was saved."
            )
        for owner, state in zip(owners, states):
            _load_state(owner, state)


def _load_state(owner: Any, state: Any) -> None:
    """Give an optimizer or a scheduler its state back."""
    try:
        owner.load_state_dict(state)
    except ValueError as error:  # of torch: other parameter groups
        if not isinstance(owner, Optimizer):
            raise
        saved, own = (
            [len(group["params"]) for group in groups] for groups in (state["param_groups"], owner.param_groups)
        )
        if saved == own:
            raise
        raise ValueError(
            f"the checkpoint's state does not fit {type(owner).__name__}: it holds {_groups(saved)}, and "
            f"`configure_optimizers` made {_groups(own)}. Make the same ones as in the run that was saved."
        ) from error


def _groups(sizes: list[int]) -> str:
    parts = " and ".join(map(str, sizes))
    return f"{len(sizes)} parameter group{'s' * (len(sizes) != 1)} (of {parts} parameters)"


def _restore_loops(progress: Progress, checkpoint: dict[str, Any]) -> None:
    loops = checkpoint.get("loops", {})
    if "progress" in loops:
        progress.load_state_dict(loops["progress"])
        return
    progress.epoch, progress.step = checkpoint["epoch"], checkpoint["global_step"]  # another program's file
    fit = loops.get("fit_loop")
    if fit is None:
        return
    epochs = fit["epoch_progress"]["current"]
    progress.epoch = epochs["processed"] if epochs["processed"] > epochs["completed"] else epochs["completed"]
    batches = fit["epoch_loop.batch_progress"]
    progress.total_batches = batches["total"]["ready"]
    progress.batches_that_stepped = fit["epoch_loop.state_dict"].get("_batches_that_stepped", progress.step)
    if epochs["ready"] > epochs["processed"]:  # saved within an epoch
        progress.epoch, progress.in_epoch = epochs["processed"], True
        progress.batches_done = batches["current"]["processed"]
        progress.is_last_batch = batches.get("is_last_batch", False)


def load(trainer: Trainer, path: Any, weights_only: bool | None) -> dict[str, Any]:
    """Read the file, safely unless ``weights_only=False`` was asked for."""
    try:
        checkpoint = trainer.strategy.load_checkpoint(path, weights_only=weights_only)
    except RuntimeError as error:  # it is damaged
        others = index.newest_in(parent_path(str(path)) or os.curdir) if isinstance(path, (str, os.PathLike)) else ""
        raise RuntimeError(f"{error}{others}") from error
    if not isinstance(checkpoint, dict) or "state_dict" not in checkpoint:
        if isinstance(checkpoint, dict) and checkpoint and all(isinstance(v, Tensor) for v in checkpoint.values()):
            raise MisconfigurationException(
                f"{path} is no checkpoint of a run: it holds weights and nothing else. Load them by "
                "`model.load_state_dict(torch.load(path))`, and leave `ckpt_path` out."
            )
        raise MisconfigurationException(
            f"{path} is no checkpoint of a run: it holds {a_kind(checkpoint)} without a `state_dict`. "
            "Give a file that `trainer.save_checkpoint` or a ModelCheckpoint wrote."
        )
    rank_zero_info("going on from %s" if trainer.state.fn == "fit" else "weights from %s", path)
    return checkpoint
