"""Checkpoints in a layout that earlier versions of Lightning wrote, brought into the present one."""

from __future__ import annotations

import re
from typing import Any

from fulmen.loops.progress import Progress
from fulmen.trainer import loop_counters

#: the version of Lightning's checkpoint format that is written, which its own loading asks for
FORMAT_VERSION = "2.6.0"
VERSION_KEY = "pytorch-lightning_version"

#: states of callbacks that stood beside everything else, before 0.10
_CALLBACK_KEYS = {
    "checkpoint_callback_best_model_score": ("ModelCheckpoint", "best_model_score"),
    "checkpoint_callback_best": ("ModelCheckpoint", "best_model_score"),
    "checkpoint_callback_best_model_path": ("ModelCheckpoint", "best_model_path"),
    "early_stop_callback_wait": ("EarlyStopping", "wait_count"),
    "early_stop_callback_patience": ("EarlyStopping", "patience"),
}
#: loops that were within each other, before 2.0
_LOOP_KEYS = {
    "epoch_loop.batch_loop.optimizer_loop.": "epoch_loop.automatic_optimization.",
    "epoch_loop.batch_loop.manual_loop.": "epoch_loop.manual_optimization.",
    "epoch_loop.val_loop.epoch_loop.": "epoch_loop.val_loop.",
}
_SAVE_ON_TRAIN_EPOCH_END = re.compile(r", 'save_on_train_epoch_end': (None|True|False)")


def version_of(checkpoint: dict[str, Any]) -> tuple[int, ...]:
    """The version of Lightning that wrote a checkpoint; ``(0,)`` if it does not say."""
    return tuple(map(int, re.findall(r"\d+", str(checkpoint.get(VERSION_KEY, "0")))[:3]))


def migrate(checkpoint: dict[str, Any]) -> str | None:
    """Bring ``checkpoint`` into the present layout, in place.

    Returns:
        The version that wrote it, or None if there was nothing to do.
    """
    version, loops = version_of(checkpoint), checkpoint.get("loops", {})
    if version >= (2,) or "global_step" not in checkpoint or "progress" in loops:
        return None
    if VERSION_KEY not in checkpoint and loops:
        return None  # nobody's file, in no layout of long ago
    for key, (callback, entry) in _CALLBACK_KEYS.items():
        if key in checkpoint:
            checkpoint.setdefault("callbacks", {}).setdefault(callback, {})[entry] = checkpoint.pop(key)
    if checkpoint.get("callbacks"):
        checkpoint["callbacks"] = {_state_key(key): state for key, state in checkpoint["callbacks"].items()}
        _complete(checkpoint["callbacks"].get("ModelCheckpoint"))
    for key in ("module_arguments", "hparams"):
        if key in checkpoint:
            checkpoint.setdefault("hyper_parameters", {}).update(checkpoint.pop(key))
    checkpoint.pop("amp_scaling_state", None)  # of apex
    if "native_amp_scaling_state" in checkpoint:
        checkpoint["MixedPrecision"] = checkpoint.pop("native_amp_scaling_state")
    if version < (1, 6):
        epochs, steps = checkpoint["epoch"], checkpoint["global_step"]  # it counted the epoch that had ended
        checkpoint["loops"] = loop_counters.write(Progress(epoch=epochs, step=steps, batches_that_stepped=steps))
    else:
        _flatten_loops(checkpoint)
    written_by = str(checkpoint.get(VERSION_KEY, "unknown"))
    checkpoint[f"legacy_{VERSION_KEY}"], checkpoint[VERSION_KEY] = written_by, FORMAT_VERSION
    return written_by


def _state_key(key: Any) -> Any:
    return _SAVE_ON_TRAIN_EPOCH_END.sub("", key) if isinstance(key, str) else key


def _complete(state: Any) -> None:
    """Add to the state of a ModelCheckpoint what it did not keep yet."""
    if isinstance(state, dict):
        best, score = state.setdefault("best_model_path", ""), state.setdefault("best_model_score", None)
        state.setdefault("best_k_models", {best: score} if best and score is not None else {})
        state.setdefault("last_model_path", "")


def _flatten_loops(checkpoint: dict[str, Any]) -> None:
    loops: dict[str, Any] = checkpoint.setdefault("loops", {})
    for name, loop in loops.items():
        if not isinstance(loop, dict):
            continue
        for key in list(loop):
            new = key if name == "fit_loop" else key.removeprefix("epoch_loop.")
            for before, after in _LOOP_KEYS.items():
                new = new.replace(before, after)
            if new != key:
                loop[new] = loop.pop(key)
            if key.endswith(("dataloader_progress", "batch_loop.state_dict")):
                loop.pop(new)
    fit = loops.get("fit_loop", {})
    fit.get("epoch_loop.automatic_optimization.optim_progress", {}).pop("optimizer_position", None)
    if fit:
        state = fit.setdefault("epoch_loop.state_dict", {})
        state.setdefault("_batches_that_stepped", checkpoint["global_step"])
