"""What is written almost like a hook, or with other arguments than it is called with: told before anything runs."""

from __future__ import annotations

import difflib
import inspect
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from fulmen.callbacks.callback import Callback
from fulmen.core.datamodule import LightningDataModule
from fulmen.core.hooks import HOOK, HOOKS
from fulmen.core.module import LightningModule
from fulmen.loops.plan import written
from fulmen.utilities.exceptions import MisconfigurationException
from fulmen.utilities.rank_zero import rank_zero_warn
from fulmen.utilities.text import shown

if TYPE_CHECKING:
    from fulmen.trainer.trainer import Trainer

#: steps take what their author likes; they have checks of their own
_STEPS = ("training_step", "validation_step", "test_step", "predict_step")
#: accepted spellings
_SYNONYMS = ("train_step", "configure_optimizer")
#: hooks that are not called any more -> what is
_FORMER = {
    "on_epoch_start": "on_train_epoch_start",
    "on_epoch_end": "on_train_epoch_end",
    "on_batch_start": "on_train_batch_start",
    "on_batch_end": "on_train_batch_end",
    "on_pretrain_routine_start": "on_fit_start",
    "on_pretrain_routine_end": "on_fit_start",
    "on_keyboard_interrupt": "on_exception",
    "training_step_end": "training_step",
    "validation_step_end": "validation_step",
    "test_step_end": "test_step",
    "on_before_accelerator_backend_setup": "setup",
}


def check_hooks(trainer: Trainer) -> None:
    """Check that every hook which somebody wrote can be called, and warn of what is named almost like one.

    Raises:
        TypeError: a hook is no function, or does not take the arguments that it is given.
        MisconfigurationException: an attribute of the module hides a method of LightningModule.
    """
    taken = trainer._translation.taken if trainer._translation is not None else set()
    _check_hidden_methods(trainer.lightning_module)
    for owner, kind, empty in _owners(trainer):
        for hook in HOOKS:
            if kind in hook.owners and hook.name not in _STEPS:
                method = written(owner, hook.name, empty)
                if method is not None:
                    _check_call(owner, hook.name, method, empty)
        _warn_of_near_misses(owner, empty, taken)


def near_name(owner: Any, hook: str) -> str | None:
    """A method of ``owner`` that is named almost like ``hook``, and is none."""
    names = [name for name, _ in _own_methods(owner, LightningModule) if name not in HOOK]
    return next(iter(difflib.get_close_matches(hook, names, n=1, cutoff=0.85)), None)


def _owners(trainer: Trainer) -> Iterator[tuple[Any, str, type]]:
    yield trainer.lightning_module, "module", LightningModule
    if trainer.datamodule is not None:
        yield trainer.datamodule, "datamodule", LightningDataModule
    for callback in trainer.callbacks:
        yield callback, "callback", Callback


def _check_hidden_methods(module: LightningModule) -> None:
    for name, value in vars(module).items():
        if name[0] == "_" or name in HOOK or value is None or callable(value):
            continue
        if callable(getattr(LightningModule, name, None)):
            raise MisconfigurationException(
                f"`{type(module).__name__}.{name}` is {shown(value)} and hides the method of that name, which would be "
                "called. Use another name for the attribute."
            )


def _check_call(owner: Any, name: str, method: Any, empty: type) -> None:
    body = getattr(empty, name, None)
    where = f"`{type(owner).__name__}.{name}`"
    if not callable(method):
        raise TypeError(f"{where} is {shown(method)}, no function. Define a method; None switches the hook off.")
    if body is None:
        return
    parameters = list(inspect.signature(body).parameters.values())[1:]
    parameters = [parameter for parameter in parameters if parameter.kind == parameter.POSITIONAL_OR_KEYWORD]
    optional = [p.name for p in parameters if p.name == "dataloader_idx" and p.default is not p.empty]
    given = [p.name for p in parameters if p.name not in optional]
    try:
        signature = inspect.signature(method)
    except (TypeError, ValueError):  # a builtin without a signature
        return
    for arguments in (given, given + optional):  # several loaders may need their number; one loader is checked later
        try:
            signature.bind(*arguments)
            return
        except TypeError:
            pass
    arguments = ", ".join(given + [f"{argument}=0" for argument in optional])
    if inspect.ismethod(method):
        right = f"def {name}(self{', ' + arguments if arguments else ''}):"
    else:
        right = f"{name}({arguments})"
    taken = f"({', '.join(signature.parameters)})" if signature.parameters else "no argument"
    wanted = f"({', '.join(given)})" if given else "no argument"
    raise TypeError(f"{where} takes {taken}, but is called with {wanted}. Write `{right}`.")


def _own_methods(owner: Any, stop: type) -> Iterator[tuple[str, Any]]:
    """What the user's own classes define."""
    for kind in type(owner).__mro__:
        if kind not in (stop, object) and not kind.__module__.startswith(("torch.", "fulmen.")):
            for name, value in vars(kind).items():
                if name[0] != "_" and callable(value):
                    yield name, value


def _warn_of_near_misses(owner: Any, empty: type, taken: set[str]) -> None:
    """A method that is named almost like a hook was probably meant to be one, and would never be called."""
    names = [name for name in HOOK if hasattr(empty, name)]
    for name, _ in _own_methods(owner, empty):
        if name in HOOK or name in _SYNONYMS or name in taken or hasattr(empty, name):
            continue
        former = _FORMER.get(name)
        near = [former] if former in names else difflib.get_close_matches(name, names, n=1, cutoff=0.9)
        if near:
            rank_zero_warn(
                f"`{type(owner).__name__}.{name}` is never called by the Trainer: it is no hook. "
                f"Did you mean `{near[0]}`?"
            )
