"""Arguments of the Trainer and of its verbs that Lightning 1 had, beyond those that the Trainer itself translates."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from fulmen.callbacks.callback import Callback
from fulmen.callbacks.early_stopping import EarlyStopping
from fulmen.callbacks.gradient_accumulation_scheduler import GradientAccumulationScheduler
from fulmen.callbacks.model_checkpoint import ModelCheckpoint
from fulmen.compat.old.messages import tell
from fulmen.core.hooks import DataHooks
from fulmen.loops.plan import written
from fulmen.trainer.environment import FORMER_VALUES
from fulmen.trainer.removed_arguments import (
    FORMER,
    LATER,
    VALUES,
    Former,
    Written,
    ignored,
    renamed,
    written_callback,
)
from fulmen.trainer.trainer import Trainer
from fulmen.utilities.combined_loader import CombinedLoader
from fulmen.utilities.grads import grad_norm

if TYPE_CHECKING:
    from fulmen.core.module import LightningModule
    from fulmen.trainer.translation import Translation

#: what the constructor was told, and what to write; it is done when a run begins
_LATER = {
    "multiple_trainloader_mode": "`return CombinedLoader(loaders, {value})` in `train_dataloader`",
    "truncated_bptt_steps": "manual optimization, with a step for each part of a sequence",
}


class GradientNorms(Callback):
    """What ``Trainer(track_grad_norm=p)`` did: log the norms of the gradients before each step.

    Args:
        norm_type: the p of the norm: a number above 0, or ``"inf"``.
    """

    def __init__(self, norm_type: float | str) -> None:
        self.norm_type = float(norm_type)

    def on_before_optimizer_step(self, trainer: Trainer, pl_module: LightningModule, optimizer: Any) -> None:
        self.log_dict(grad_norm(pl_module, self.norm_type), on_step=True, on_epoch=False, logger=True)


def _norms(value: Any, given: Mapping[str, Any]) -> Any:
    if float(value) <= 0:
        return f"`track_grad_norm` as a number above 0 or 'inf'; it got {value!r}"
    return {"callbacks": [written_callback(GradientNorms, norm_type=value)]}


def _schedule(value: Any, given: Mapping[str, Any]) -> Any:
    if value is None:
        return {}
    return {"callbacks": [written_callback(GradientAccumulationScheduler, scheduling=value)]}


def _profiler(value: Any, given: Mapping[str, Any]) -> Any:
    return {"profiler": "simple"} if value else {}


def _early_stopping(value: Any, given: Mapping[str, Any]) -> Any:
    if isinstance(value, Callback):
        return {"callbacks": [Written(f"{type(value).__name__}(...)", value)]}
    return {"callbacks": [written_callback(EarlyStopping, monitor="val_loss", patience=3)]} if value else {}


def _folder_of_checkpoints(value: Any, given: Mapping[str, Any]) -> Any:
    callbacks = given.get("callbacks") or []
    callbacks = callbacks if isinstance(callbacks, (list, tuple)) else [callbacks]
    writers = [one for one in (*callbacks, given.get("checkpoint_callback")) if isinstance(one, ModelCheckpoint)]
    switches = [given.get(name) for name in ("checkpoint_callback", "enable_checkpointing")]
    if any(switch is False for switch in switches) or any(one.dirpath is not None for one in writers):
        return {}
    if writers:
        return f"`dirpath={value!r}` into your {type(writers[0]).__name__}"
    return {"callbacks": [written_callback(ModelCheckpoint, dirpath=value)]}


def _percentage(name: str) -> Callable[[Any, Mapping[str, Any]], Any]:
    return lambda value, given: {name: float(value)}


def _by_hand(value: Any, given: Mapping[str, Any]) -> Any:
    return {} if value else "`self.automatic_optimization = False` in `__init__` of the module"


#: arguments that the Trainer refuses, and what they ask for
_FORMER: dict[str, Former] = {
    "move_metrics_to_cpu": Former((bool,), False, ignored),  # values stay where they are until they are read
    "multiple_trainloader_mode": Former((str,), "max_size_cycle", ignored),
    "track_grad_norm": Former((float, str), -1, _norms),
    "truncated_bptt_steps": Former((int,), None, ignored),
    "weights_save_path": Former((str,), None, _folder_of_checkpoints),
    # of 0.x
    "automatic_optimization": Former((bool,), None, _by_hand),
    "default_save_path": Former((str,), None, renamed("default_root_dir")),
    "early_stop_callback": Former((bool,), False, _early_stopping),
    "enable_pl_optimizer": Former((bool,), None, ignored),
    "gradient_clip": Former((float,), None, renamed("gradient_clip_val")),
    "log_save_interval": Former((int,), None, ignored),
    "max_nb_epochs": Former((int,), None, renamed("max_epochs")),
    "min_nb_epochs": Former((int,), None, renamed("min_epochs")),
    "nb_gpu_nodes": Former((int,), None, renamed("num_nodes")),
    "nb_sanity_val_steps": Former((int,), None, renamed("num_sanity_val_steps")),
    "num_tpu_cores": Former((int,), None, lambda value, _: {"accelerator": "tpu", "devices": value}),
    "overfit_pct": Former((float,), 0.0, _percentage("overfit_batches")),
    "print_nan_grads": Former((bool,), False, ignored),
    "row_log_interval": Former((int,), None, renamed("log_every_n_steps")),
    "show_progress_bar": Former((bool,), True, renamed("enable_progress_bar")),
    "test_percent_check": Former((float,), 1.0, _percentage("limit_test_batches")),
    "train_percent_check": Former((float,), 1.0, _percentage("limit_train_batches")),
    "use_amp": Former((bool,), False, lambda value, _: {"precision": "16-mixed"}),
    "val_percent_check": Former((float,), 1.0, _percentage("limit_val_batches")),
}
#: values of known arguments that the Trainer refuses: what tells them, and what they ask for
_VALUES: dict[str, tuple[Callable[[Any], bool], Callable[[Any, Mapping[str, Any]], Any]]] = {
    "accumulate_grad_batches": (lambda value: value is None or isinstance(value, Mapping), _schedule),
    "profiler": (lambda value: isinstance(value, bool), _profiler),
    # of those who train for no step at all
    "val_check_interval": (lambda value: type(value) is int and value == 0, lambda *_: {"val_check_interval": None}),
}
_before: dict[str, Former] = {}


def extend() -> None:
    """Let the Trainer take these arguments."""
    _before.update({name: FORMER[name] for name in _FORMER.keys() & FORMER.keys()})
    FORMER.update(_FORMER)
    LATER.update(_LATER)
    for name, (tells, modern) in _VALUES.items():
        FORMER_VALUES[name], VALUES[name] = tells, modern


def retract() -> None:
    """Take that back."""
    for table, names in ((FORMER, _FORMER), (LATER, _LATER), (FORMER_VALUES, _VALUES), (VALUES, _VALUES)):
        for name in names:
            del table[name]
    FORMER.update(_before)


def apply_to_run(trainer: Trainer, translation: Translation) -> None:
    """What the constructor was told, and a run does."""
    module, former = trainer.lightning_module, trainer._former
    if "truncated_bptt_steps" in former and not getattr(module, "truncated_bptt_steps", 0):
        translation.replace(module, "truncated_bptt_steps", former["truncated_bptt_steps"])
    mode = former.get("multiple_trainloader_mode")
    if mode is None:
        return
    given = trainer._given_loaders.get("train")
    if isinstance(given, (list, tuple, dict)):
        trainer._given_loaders["train"] = CombinedLoader(given, mode)
        return
    for owner in (trainer.datamodule, module):
        hook = written(owner, "train_dataloader", DataHooks) if owner is not None else None
        if hook is not None:
            translation.replace(owner, "train_dataloader", functools.partial(_combined, hook, mode))


def _combined(hook: Callable[[], Any], mode: str) -> Any:
    loaders = hook()
    return CombinedLoader(loaders, mode) if isinstance(loaders, (list, tuple, dict)) else loaders  # type: ignore[arg-type]


# -- keywords of verbs ------------------------------------------------------------------------------------------------

_KEYWORDS = {
    "fit": {"train_dataloader": "train_dataloaders"},
    "validate": {"val_dataloaders": "dataloaders"},
    "test": {"test_dataloaders": "dataloaders"},
    "tune": {"train_dataloader": "train_dataloaders"},
}


def _with_former_keywords(verb: str, today: Callable[..., Any]) -> Callable[..., Any]:
    names = _KEYWORDS[verb]

    @functools.wraps(today)
    def with_former_keywords(self: Trainer, *args: Any, **kwargs: Any) -> Any:
        for name in names.keys() & kwargs.keys():
            tell(f"`trainer.{verb}({name}=...)`", f"Write `{names[name]}=`.")
            kwargs[names[name]] = kwargs.pop(name)
        return today(self, *args, **kwargs)

    return with_former_keywords


def replacements() -> list[tuple[Any, str, Any]]:
    """What classes get: the owner, the name and the value."""
    return [(Trainer, verb, _with_former_keywords(verb, getattr(Trainer, verb))) for verb in _KEYWORDS]
