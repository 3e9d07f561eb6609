"""Hooks that went, and hooks whose arguments were others, called as Lightning 1 called them."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from torch.optim import LBFGS

from fulmen.callbacks.callback import Callback
from fulmen.compat.old.messages import tell
from fulmen.core.module import LightningModule
from fulmen.loops.plan import written

if TYPE_CHECKING:
    from fulmen.compat.old.outputs import Outputs
    from fulmen.trainer.trainer import Trainer
    from fulmen.trainer.translation import Translation

_STAGES = ("train", "validation", "test", "predict")

#: hooks that went -> those of today near which they are called, whether before or after them, and what to write
_FORMER: dict[str, tuple[tuple[str, ...], str, str]] = {
    "on_batch_start": (("on_train_batch_start",), "first", "on_train_batch_start"),
    "on_batch_end": (("on_train_batch_end",), "last", "on_train_batch_end"),
    "on_epoch_start": (tuple(f"on_{stage}_epoch_start" for stage in _STAGES), "first", "on_train_epoch_start"),
    "on_epoch_end": (tuple(f"on_{stage}_epoch_end" for stage in _STAGES), "last", "on_train_epoch_end"),
    "on_pretrain_routine_start": (("on_fit_start",), "last", "on_fit_start"),
    "on_pretrain_routine_end": (("on_fit_start",), "last", "on_fit_start"),
    "on_before_accelerator_backend_setup": (("setup",), "first", "setup"),
    "on_configure_sharded_model": (("setup",), "last", "setup"),
    "on_keyboard_interrupt": (("on_exception",), "last", "on_exception"),
}
_ANY_NUMBER = (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)
_AT_INIT = ("on_init_start", "on_init_end")

#: hooks that had other arguments, in the order in which they came
_BATCH_START, _BATCH_END = ("batch", "batch_idx", "dataloader_idx"), ("outputs", "batch", "batch_idx", "dataloader_idx")
_STEP_FLAGS = ("on_tpu", "using_native_amp", "using_lbfgs")
ARGUMENTS: dict[str, tuple[str, ...]] = {
    **{f"on_{stage}_batch_start": _BATCH_START for stage in _STAGES},
    **{f"on_{stage}_batch_end": _BATCH_END for stage in _STAGES},
    **{f"on_{stage}_epoch_end": ("outputs",) for stage in _STAGES},
    "predict_step": _BATCH_START,
    "on_before_optimizer_step": ("optimizer", "optimizer_idx"),
    "optimizer_step": ("epoch", "batch_idx", "optimizer", "optimizer_idx", "optimizer_closure", *_STEP_FLAGS),
    "optimizer_zero_grad": ("epoch", "batch_idx", "optimizer", "optimizer_idx"),
    "configure_gradient_clipping": ("optimizer", "optimizer_idx", "gradient_clip_val", "gradient_clip_algorithm"),
    "lr_scheduler_step": ("scheduler", "optimizer_idx", "metric"),
    "backward": ("loss", "optimizer", "optimizer_idx"),
    "transfer_batch_to_device": ("batch", "device"),
    "on_before_batch_transfer": ("batch",),
    "on_after_batch_transfer": ("batch",),
}


# -- hooks that went --------------------------------------------------------------------------------------------------


def call_former_hooks(trainer: Trainer, verb: str, translation: Translation) -> None:
    """Have the hooks called that are not any more, where somebody wrote one."""
    module = trainer.lightning_module
    owners = [*trainer.callbacks, module]
    for name, (hooks, place, today) in _FORMER.items():
        listeners = [
            (owner, method)
            for owner in owners
            if callable(method := getattr(owner, name, None)) and _is_hook(owner, name, method)
        ]
        if not listeners:
            continue
        translation.taken.add(name)
        first = type(listeners[0][0]).__name__
        tell(f"`{first}.{name}`", f"Write `{today}`.")
        for hook in hooks:
            for owner, method in listeners:
                call = _former_call(trainer, owner, name, method)
                getattr(translation, place).setdefault(hook, []).append((owner, call))


def _is_hook(owner: Any, name: str, method: Callable[..., Any]) -> bool:
    """Whether ``method`` can be called as the hook was; if not, it is one of the program's own, of the same name."""
    most = 2 if isinstance(owner, Callback) else int(name.startswith("on_batch"))
    try:
        arguments = inspect.signature(method).parameters.values()
    except (TypeError, ValueError):  # a builtin without a signature
        return True
    return sum(one.default is one.empty and one.kind not in _ANY_NUMBER for one in arguments) <= most


def _former_call(trainer: Trainer, owner: Any, name: str, method: Callable[..., Any]) -> Callable[..., Any]:
    of_callback = isinstance(owner, Callback)
    given = (trainer, trainer.lightning_module) if of_callback else ()
    takes_batch = not of_callback and name.startswith("on_batch") and _count(method) >= 1

    def call(*args: Any) -> Any:
        if name == "on_keyboard_interrupt" and not isinstance(args[0], KeyboardInterrupt):
            return None
        return method(*given, *(args[:1] if takes_batch else ()))

    return call


def call_hooks_of_construction(trainer: Trainer) -> None:
    """``on_init_start`` and ``on_init_end``, once for each trainer: when it first runs, as its callbacks are known."""
    if vars(trainer).setdefault("_told_of_construction", False):
        return
    vars(trainer)["_told_of_construction"] = True
    for name in _AT_INIT:
        for callback in trainer.callbacks:
            method = getattr(callback, name, None)
            if callable(method):
                tell(f"`{type(callback).__name__}.{name}`", "Write `setup`, which is called when a run begins.")
                method(trainer)


# -- hooks with other arguments ---------------------------------------------------------------------------------------


def adapt_arguments(trainer: Trainer, translation: Translation, outputs: Outputs) -> bool:
    """Let hooks that were written with the arguments of Lightning 1 get these.

    Returns:
        Whether one of them wants the outputs of all training batches.
    """
    module = trainer.lightning_module
    owners: list[tuple[Any, type, int]] = [(module, LightningModule, 0)]
    owners += [(callback, Callback, 2) for callback in trainer.callbacks if isinstance(callback, Callback)]
    wants_outputs = False
    for owner, empty, before in owners:
        for name in ARGUMENTS:
            method = written(owner, name, empty) if hasattr(empty, name) else None
            if method is None or not is_former(empty, name, method, before):
                continue
            translation.replace(owner, name, _adapted(trainer, empty, name, method, before, outputs))
            wants_outputs |= name == "on_train_epoch_end"
            optional = "dataloader_idx" if "transfer" not in name else ""
            today = ", ".join(f"{one}=0" if one == optional else one for one in _today(empty, name))
            tell(f"`{type(owner).__name__}.{name}({', '.join(_names(method))})`", f"Write `{name}(self, {today})`.")
    return wants_outputs


def is_former(empty: type, name: str, method: Callable[..., Any], before: int) -> bool:
    """Whether ``method`` wants the arguments that the hook ``name`` had in Lightning 1.

    Args:
        before: the number of arguments that come before those in :data:`ARGUMENTS`.
    """
    try:
        signature = inspect.signature(method)
    except (TypeError, ValueError):  # a builtin without a signature
        return False
    today = _today(empty, name)
    given = [argument for argument in today if argument != "dataloader_idx" or "transfer" in name]
    markers = set(ARGUMENTS[name]) - set(today) - {"dataloader_idx"}
    return bool(markers & set(list(signature.parameters)[before:])) or (
        not _binds(signature, len(given)) and _binds(signature, before + len(ARGUMENTS[name]))
    )


def _binds(signature: inspect.Signature, count: int) -> bool:
    try:
        signature.bind(*range(count))
    except TypeError:
        return False
    return True


def _today(empty: type, name: str) -> list[str]:
    return list(inspect.signature(getattr(empty, name)).parameters)[1:] if name != "predict_step" else [*_BATCH_START]


def _names(method: Callable[..., Any]) -> list[str]:
    return list(inspect.signature(method).parameters)


def _count(method: Callable[..., Any]) -> int:
    return len(_names(method))


def _adapted(
    trainer: Trainer, empty: type, name: str, method: Callable[..., Any], before: int, outputs: Outputs
) -> Callable[..., Any]:
    today, module = _today(empty, name)[before:], trainer.lightning_module

    def call(*args: Any, **kwargs: Any) -> Any:
        known = {**dict(zip(today, args[before:])), **kwargs}
        return call_former(module, name, method, args[:before], known, outputs)

    return call


def call_former(
    module: LightningModule,
    name: str,
    method: Callable[..., Any],
    first: tuple[Any, ...],
    known: dict[str, Any],
    outputs: Outputs | None = None,
) -> Any:
    """Call a hook that has the arguments of Lightning 1.

    Args:
        first: the trainer and the module, of a callback.
        known: its arguments of today, by name.
    """
    parameters = list(inspect.signature(method).parameters.values())[len(first) :]
    order = ARGUMENTS[name]
    values, by_name = [], {}
    for place, parameter in enumerate(parameters):
        if parameter.kind == parameter.VAR_POSITIONAL:
            values += [_value(module, argument, known, outputs) for argument in order[place:]]
        elif parameter.kind == parameter.VAR_KEYWORD and name == "optimizer_step":
            by_name |= {flag: _value(module, flag, known, outputs) for flag in ("on_tpu", "using_lbfgs")}
        elif parameter.kind == parameter.KEYWORD_ONLY and parameter.name in order:
            by_name[parameter.name] = _value(module, parameter.name, known, outputs)
        elif parameter.kind in (parameter.POSITIONAL_ONLY, parameter.POSITIONAL_OR_KEYWORD):
            is_known = parameter.name in order or parameter.name in known
            argument = parameter.name if is_known else order[place] if place < len(order) else None
            if argument is not None:
                values.append(_value(module, argument, known, outputs))
    return method(*first, *values, **by_name)


def _value(module: LightningModule, argument: str, known: dict[str, Any], outputs: Outputs | None) -> Any:
    """The value of an argument that Lightning 1 gave."""
    trainer = module.trainer
    if argument == "outputs" and outputs is not None:
        if "outputs" in known:
            return outputs.take_of_batch(known["outputs"]) if trainer.training else known["outputs"]
        if trainer.predicting:
            return trainer.predictions if len(trainer.num_predict_batches) > 1 else [trainer.predictions]
        return outputs.training if trainer.training else outputs.of_evaluation()
    if argument in known:
        return known[argument]
    if argument == "dataloader_idx":
        return 0
    if argument == "optimizer_idx":
        return index_of_optimizer(trainer, known.get("optimizer", known.get("scheduler")))
    if argument == "using_native_amp":
        return trainer.precision.endswith("mixed")
    if argument == "using_lbfgs":
        return isinstance(known["optimizer"], LBFGS)
    if argument == "optimizer":  # of `backward`
        return trainer.optimizers[index_of_optimizer(trainer, None)]
    return False if argument == "on_tpu" else None


def index_of_optimizer(trainer: Trainer, owner: Any) -> int:
    """The number of an optimizer, or of that which a scheduler belongs to; without one, of that whose turn it is."""
    if owner is None:
        return getattr(trainer.lightning_module, "_optimizer_in_turn", 0)
    optimizer = owner if hasattr(owner, "param_groups") else getattr(owner, "optimizer", owner)
    plain = getattr(optimizer, "optimizer", optimizer)  # not as `self.optimizers()` gives it
    return next((number for number, other in enumerate(trainer.optimizers) if other is plain), 0)


# -- the state of callbacks -------------------------------------------------------------------------------------------


def adapt_state_of_callbacks(trainer: Trainer, translation: Translation) -> None:
    """Keep what ``on_save_checkpoint`` of a callback returns, and give it back to its ``on_load_checkpoint``."""
    for callback in trainer.callbacks:
        if not isinstance(callback, Callback) or type(callback).__module__.startswith("fulmen."):
            continue
        save, load = (written(callback, f"on_{verb}_checkpoint", Callback) for verb in ("save", "load"))
        if save is not None:
            translation.replace(callback, "on_save_checkpoint", _saving(callback, save))
        if load is not None and (_names(load) == ["checkpointed_state"] or "callback_state" in _names(load)):
            tell(
                f"`{type(callback).__name__}.on_load_checkpoint({', '.join(_names(load))})`",
                "Write `load_state_dict(self, state_dict)`, and `state_dict(self)` for what is to be saved.",
            )
            translation.replace(callback, "on_load_checkpoint", _loading(callback, load))


def _saving(callback: Callback, save: Callable[..., Any]) -> Callable[..., None]:
    def on_save_checkpoint(trainer: Any, module: Any, checkpoint: dict[str, Any]) -> None:
        state = save(*(trainer, module, checkpoint)[: _count(save)])
        if state:
            tell(
                f"`{type(callback).__name__}.on_save_checkpoint`, which returns a state,",
                "Return it from `state_dict(self)`.",
            )
            checkpoint.setdefault("callbacks", {})[callback.state_key] = state

    return on_save_checkpoint


def _loading(callback: Callback, load: Callable[..., Any]) -> Callable[..., None]:
    def on_load_checkpoint(trainer: Any, module: Any, checkpoint: dict[str, Any]) -> None:
        state = checkpoint.get("callbacks", {}).get(callback.state_key)
        if state is not None:
            load(*(trainer, module, state)[-_count(load) :])

    return on_load_checkpoint
