"""What a module and the callbacks of a run have of Lightning 1, translated for the length of the run."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from fulmen.compat.old import arguments, hooks, optimizers
from fulmen.compat.old.messages import tell
from fulmen.compat.old.outputs import Outputs, has_dicts_to_log, log_returned
from fulmen.core.module import LightningModule
from fulmen.loops.plan import written

if TYPE_CHECKING:
    from fulmen.trainer.trainer import Trainer
    from fulmen.trainer.translation import Translation

#: hooks that got the outputs of all steps, in the spellings of 1.x and of 0.x
_TRAINING_ENDS = ("training_epoch_end",)
_EVALUATION_ENDS = {
    "validation": ("validation_epoch_end", "validation_end"),
    "test": ("test_epoch_end", "test_end"),
}
_STEP_ENDS = {
    "training_step": ("training_step_end", "training_end"),
    "validation_step": ("validation_step_end",),
    "test_step": ("test_step_end",),
}


def translate(trainer: Trainer, verb: str, translation: Translation) -> None:
    """Translate what this run needs."""
    module = trainer.lightning_module
    outputs = Outputs(module)
    hooks.call_hooks_of_construction(trainer)
    arguments.apply_to_run(trainer, translation)
    hooks.call_former_hooks(trainer, verb, translation)
    hooks.adapt_state_of_callbacks(trainer, translation)
    wants_outputs = hooks.adapt_arguments(trainer, translation, outputs)
    _build_sharded_model(module, translation)
    for step, ends in _STEP_ENDS.items():
        _end_step(module, translation, step, ends)
    if verb == "fit":
        if has_dicts_to_log(getattr(type(module), "training_step", None)):
            _log_dicts(module, translation)
        if optimizers.wants_turns(module):
            optimizers.take_turns(trainer, translation, outputs)
        _collect_training(module, translation, outputs, wants_outputs)
    _collect_evaluation(module, translation, outputs)
    translation.taken |= {*_TRAINING_ENDS, *(name for names in _EVALUATION_ENDS.values() for name in names)}
    translation.replace(module, "_translated", translation.replaced_of(module))


def _end_step(module: LightningModule, translation: Translation, step: str, ends: tuple[str, ...]) -> None:
    """What ``training_step_end`` makes of the output of ``training_step`` is the output."""
    name = _first_of(module, ends)
    if name is None or written(module, step, LightningModule) is None:
        return
    plain, end = getattr(module, step), getattr(module, name)

    @functools.wraps(plain)
    def ended(*args: Any, **kwargs: Any) -> Any:
        return end(plain(*args, **kwargs))

    translation.taken.add(name)
    translation.replace(module, step, ended)
    tell(f"`{type(module).__name__}.{name}`", f"Do at the end of `{step}` what it does.")


def _log_dicts(module: LightningModule, translation: Translation) -> None:
    """Log what ``training_step`` returns under ``log`` and ``progress_bar``."""
    plain = module.training_step

    @functools.wraps(plain)
    def logged(*args: Any, **kwargs: Any) -> Any:
        output = plain(*args, **kwargs)
        if isinstance(output, Mapping) and ("log" in output or "progress_bar" in output):
            tell(
                f"`{type(module).__name__}.training_step`, which returns what is to be logged,",
                "Log by `self.log_dict({...})`, and return the loss.",
            )
            log_returned(module, output, on_step=True)
        return output

    translation.replace(module, "training_step", logged)


def _collect_training(module: LightningModule, translation: Translation, outputs: Outputs, wants_outputs: bool) -> None:
    name = _first_of(module, _TRAINING_ENDS)
    if name is None and not wants_outputs:
        return
    first = translation.first
    first.setdefault("on_train_epoch_start", []).append((outputs, outputs.begin_training))
    first.setdefault("on_train_batch_end", []).append((outputs, outputs.add_training))
    if name is not None:
        hook = getattr(module, name)
        first.setdefault("on_train_epoch_end", []).append((module, functools.partial(outputs.end_training, hook)))
        tell(
            f"`{type(module).__name__}.{name}(outputs)`",
            "Collect what you need in a list of your own, or in a metric, and use it in `on_train_epoch_end(self)`.",
        )


def _collect_evaluation(module: LightningModule, translation: Translation, outputs: Outputs) -> None:
    first = translation.first
    for stage, names in _EVALUATION_ENDS.items():
        name = _first_of(module, names)
        if name is None:
            continue
        hook = getattr(module, name)
        first.setdefault(f"on_{stage}_epoch_start", []).append((outputs, outputs.begin_evaluation))
        first.setdefault(f"on_{stage}_batch_end", []).append((outputs, outputs.add_evaluation))
        end = functools.partial(outputs.end_evaluation, hook)
        first.setdefault(f"on_{stage}_epoch_end", []).append((module, end))
        tell(
            f"`{type(module).__name__}.{name}(outputs)`",
            f"Collect what you need in a list of your own, or in a metric, and use it in `on_{stage}_epoch_end(self)`.",
        )


def _build_sharded_model(module: LightningModule, translation: Translation) -> None:
    hook: Callable[[], None] | None = getattr(module, "configure_sharded_model", None)
    if callable(hook) and written(module, "configure_model", LightningModule) is None:
        tell(f"`{type(module).__name__}.configure_sharded_model`", "Name it `configure_model`.")
        translation.taken.add("configure_sharded_model")
        translation.replace(module, "configure_model", hook)


def _first_of(module: LightningModule, names: tuple[str, ...]) -> str | None:
    return next((name for name in names if callable(getattr(module, name, None))), None)
