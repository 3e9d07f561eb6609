"""Arguments of the Trainer and of its verbs that Lightning 1 had, beyond those that the Trainer itself translates."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from fulmen.callbacks.callback import Callback
from fulmen.compat.old.messages import tell
from fulmen.core.hooks import DataHooks
from fulmen.loops.plan import written
from fulmen.trainer import removed_arguments
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
        return f"`track_grad_norm={value!r}` as a number above 0 or 'inf'"
    return {"callbacks": [removed_arguments._written(GradientNorms, norm_type=value)]}


def _nothing(value: Any, given: Mapping[str, Any]) -> Any:
    return {}


_FORMER: dict[str, Callable[[Any, Mapping[str, Any]], Any]] = {
    "move_metrics_to_cpu": _nothing,  # values stay where they are until they are read
    "multiple_trainloader_mode": _nothing,
    "track_grad_norm": _norms,
    "truncated_bptt_steps": _nothing,
}
_before: dict[str, Any] = {}


def extend() -> None:
    """Let the Trainer take these arguments."""
    for name, modern in _FORMER.items():
        _before[name] = former = removed_arguments.FORMER[name]
        removed_arguments.FORMER[name] = type(former)(former.kinds, former.default, modern)
    removed_arguments.LATER.update(_LATER)


def retract() -> None:
    """Take that back."""
    removed_arguments.FORMER.update(_before)
    for name in _LATER:
        del removed_arguments.LATER[name]


def apply_to_run(trainer: Trainer, translation: Translation) -> None:
    """What the constructor was told, and a run does."""
    module, former = trainer.lightning_module, trainer._former
    if "truncated_bptt_steps" in former and not hasattr(module, "truncated_bptt_steps"):
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
