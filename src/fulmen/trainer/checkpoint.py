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
from fulmen.callbacks.checkpoint import gathers_states
from fulmen.core.hparams import hparams_for_checkpoint
from fulmen.core.optimizer import NoOptimizer
from fulmen.loops.plan import takes, written
from fulmen.loops.progress import Progress
from fulmen.plugins.io import index
from fulmen.strategies.strategy import Strategy
from fulmen.trainer import loop_counters, resume
from fulmen.trainer.checkpoint_checks import WRONG_STATE, check_counters, check_optimizer_state, check_values, take_back
from fulmen.trainer.old_layouts import FORMAT_VERSION, migrate
from fulmen.utilities.cloud_io import parent_path
from fulmen.utilities.exceptions import MisconfigurationException
from fulmen.utilities.rank_zero import rank_zero_info, rank_zero_warn
from fulmen.utilities.text import a_kind

if TYPE_CHECKING:
    from fulmen.trainer.opening import Restored
    from fulmen.trainer.trainer import Trainer


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
        "state_dict": weights(trainer),
        "loops": {**loop_counters.write(progress, trainer.validating), "progress": progress.state_dict()},
    }
    call = trainer.plan
    if not weights_only:
        checkpoint["callbacks"] = _dump_callbacks(trainer)
        checkpoint["optimizer_states"] = [
            trainer.strategy.optimizer_state(optimizer) for optimizer in _optimizers(trainer)
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
        for callback in trainer.callbacks:
            if isinstance(callback, Callback):
                callback._on_save_weights(trainer, module, checkpoint)
        module.on_save_checkpoint(checkpoint)
    else:
        call.on_save_checkpoint(checkpoint)
    return checkpoint


def weights(trainer: Trainer) -> dict[str, Any]:
    """The weights of the module, whole, as a checkpoint has them."""
    strategy = trainer.strategy
    if takes(strategy.lightning_module_state_dict, "module", 0):
        return strategy.lightning_module_state_dict(trainer.lightning_module)
    # written for Lightning, where the strategy knows its module, also after the run
    model = strategy.model
    strategy.model = model if model is not None else trainer.lightning_module
    try:
        return strategy.gathered(strategy.under_own_names(strategy.lightning_module_state_dict()))
    finally:
        strategy.model = model


def _optimizers(trainer: Trainer) -> list[Any]:
    """Those whose state is in a checkpoint, and is not put there by the strategy."""
    if trainer.strategy.restores_optimizers:
        return []
    return [optimizer for optimizer in trainer.optimizers if not isinstance(optimizer, NoOptimizer)]


def _dump_callbacks(trainer: Trainer) -> dict[str, Any]:
    states: dict[str, Any] = {}
    began = gathers_states.set(True)
    try:
        for callback in trainer.callbacks:
            state = callback.state_dict() if hasattr(callback, "state_dict") else None
            if state:
                states[callback.state_key] = state
    finally:
        gathers_states.reset(began)
    return states


# -- back -------------------------------------------------------------------------------------------------------------


def restore_model(trainer: Trainer, checkpoint: dict[str, Any]) -> None:
    """Put back the module's weights, the datamodule's and the callbacks' state: before optimizers are made."""
    restore_weights(trainer, checkpoint)
    restore_datamodule(trainer, checkpoint)
    restore_callbacks(trainer, checkpoint)


def restore_weights(trainer: Trainer, checkpoint: dict[str, Any]) -> None:
    """Put back the module's weights, after its ``on_load_checkpoint``."""
    module, strategy = trainer.lightning_module, trainer.strategy
    module.on_load_checkpoint(checkpoint)
    for callback in trainer.callbacks:
        if isinstance(callback, Callback):
            callback._on_load_weights(trainer, module, checkpoint)
    load = written(strategy, "load_model_state_dict", Strategy)
    if load is not None:
        load(checkpoint, strict=module.strict_loading)
    else:
        source = str(trainer.loaded_ckpt_path)
        strategy.load_model_state(module, checkpoint["state_dict"], module.strict_loading, source)


def restore_datamodule(trainer: Trainer, checkpoint: dict[str, Any]) -> None:
    datamodule = trainer.datamodule
    if datamodule is not None and type(datamodule).__qualname__ in checkpoint:
        datamodule.load_state_dict(checkpoint[type(datamodule).__qualname__])


def restore_callbacks(trainer: Trainer, checkpoint: dict[str, Any]) -> None:
    module, states = trainer.lightning_module, checkpoint.get("callbacks")
    if states is None:
        return
    known = {callback.state_key: type(callback) for callback in trainer.callbacks if isinstance(callback, Callback)}
    for key, kind in known.items():  # in files of long ago the key is the class
        if key not in states and kind.__name__ in states:
            states[key] = states.pop(kind.__name__)
    lost = sorted(str(key) for key in states if key not in known and not _is_of_max_time(states[key]))
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
            take_back(callback, deepcopy(state), trainer.loaded_ckpt_path)


def _is_of_max_time(state: Any) -> bool:
    """Whether it is the state of the Timer of ``Trainer(max_time=...)``, which nobody wrote as a callback."""
    return isinstance(state, dict) and state.get("max_time") is True


def restore_training(trainer: Trainer, checkpoint: dict[str, Any], restored: Restored) -> None:
    """Put back the clock, the optimizers, the schedulers and the precision plugin: after ``on_fit_start``.

    Args:
        restored: notes what is put back.
    """
    missing = [key for key in ("optimizer_states", "lr_schedulers") if key not in checkpoint]
    if missing:
        raise KeyError(
            f"the checkpoint has no {' and '.join(missing)}: it holds weights only (`save_weights_only=True`), so "
            "training cannot go on from it. Load the weights by `Model.load_from_checkpoint(path)` and fit anew."
        )
    clock = replace(trainer.progress)
    _restore_loops(clock, checkpoint)
    limit = clock.limits.max_epochs
    if 0 <= limit < clock.epoch:
        raise MisconfigurationException(
            f"the checkpoint has {clock.epoch} epochs behind it, but `Trainer(max_epochs={limit})` wants only "
            f"{limit}. Set `max_epochs` to more than {clock.epoch}."
        )
    _restore_loops(trainer.progress, checkpoint)
    progress = trainer.progress
    if progress.in_epoch and not progress.is_last_batch and "window" not in checkpoint.get("resume", {}):
        progress.reopen_window()  # another program's file, without the gradients of the open window: once more
    resume.prepare(trainer, checkpoint, restored)
    restore_precision(trainer, checkpoint)
    for kind, states in (("optimizers", checkpoint["optimizer_states"]), ("schedulers", checkpoint["lr_schedulers"])):
        restore_states(trainer, kind, states, restored)


def restore_precision(trainer: Trainer, checkpoint: dict[str, Any]) -> None:
    precision = trainer.precision_plugin
    if type(precision).__name__ in checkpoint:
        take_back(precision, checkpoint[type(precision).__name__], trainer.loaded_ckpt_path)


def restore_states(trainer: Trainer, kind: str, states: Any, restored: Restored | None = None) -> None:
    """Put back the states of all optimizers, or of all schedulers.

    Args:
        kind: ``"optimizers"`` or ``"schedulers"``.
        restored: notes what is put back.

    Raises:
        MisconfigurationException: there are more or fewer of them.
    """
    schedulers = [config.scheduler for config in trainer.lr_scheduler_configs]
    owners = _optimizers(trainer) if kind == "optimizers" else schedulers
    if len(owners) != len(states):
        raise MisconfigurationException(
            f"the checkpoint holds {len(states)} {kind[: -1 if len(states) == 1 else None]}, but "
            f"`configure_optimizers` returned {len(owners)}. "
            "Return the same ones as in the run that was saved."
        )
    for owner, state in zip(owners, states):
        if isinstance(owner, Optimizer):
            state = trainer.strategy.own_state(owner, state)
        # a copy, since torch's optimizers and schedulers take over what they are given, and change it in place
        load_state(owner, deepcopy(state), trainer.loaded_ckpt_path)
        if restored is not None:
            restored.note_state(owner, state)


def load_state(owner: Any, state: Any, source: Any) -> None:
    """Give an optimizer or a scheduler its state back."""
    if isinstance(owner, Optimizer):
        check_optimizer_state(owner, state, source)
    try:
        take_back(owner, state, source)
    except ValueError as error:  # of torch: other parameter groups
        if not isinstance(owner, Optimizer) or not _has_groups(state):
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


def _has_groups(state: dict[str, Any]) -> bool:
    groups = state.get("param_groups")
    return isinstance(groups, list) and all(
        isinstance(group, dict) and isinstance(group.get("params"), list) for group in groups
    )


def _groups(sizes: list[int]) -> str:
    parts = " and ".join(map(str, sizes))
    return f"{len(sizes)} parameter group{'s' * (len(sizes) != 1)} (of {parts} parameters)"


def _restore_loops(progress: Progress, checkpoint: dict[str, Any]) -> None:
    loops = checkpoint.get("loops", {})
    if "progress" in loops:
        progress.load_state_dict(loops["progress"])
    else:  # another program's file
        loop_counters.read(progress, checkpoint)


def _check_loops(checkpoint: dict[str, Any], source: Any) -> None:
    """Restore a clock that nobody uses, and look at it.

    Raises:
        ValueError: what the checkpoint says of the loops is no clock.
    """
    clock = Progress()
    try:
        _restore_loops(clock, checkpoint)
        is_clock = isinstance(checkpoint.get("loops", {}).get("progress", {}), dict)
    except WRONG_STATE:
        is_clock = False
    if not is_clock:
        raise _no_clock(source)
    check_counters(clock.state_dict(), source)


def _no_clock(source: Any) -> ValueError:
    return ValueError(
        f"{source} cannot be restored: what it says of the loops' progress is not what a trainer writes. "
        "Take another checkpoint, or load its weights alone: `Model.load_from_checkpoint(path)`."
    )


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
    check_values(checkpoint, path, training=trainer.state.fn == "fit")
    try:
        migrate(checkpoint)
    except WRONG_STATE as error:
        raise _no_clock(path) from error
    if trainer.state.fn == "fit" and checkpoint.keys() >= {"optimizer_states", "lr_schedulers"}:
        _check_loops(checkpoint, path)
    rank_zero_info("going on from %s" if trainer.state.fn == "fit" else "weights from %s", path)
    return checkpoint
