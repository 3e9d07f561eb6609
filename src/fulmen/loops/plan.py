"""Who is called at each event, in which order: decided once, then only done.

An *event* (``on_*``) has many listeners and usually none: it becomes one call of :func:`nobody`. An *operation*
(``training_step``, ``backward``, ...) has one owner, and one question is asked of it: did the user write it?
"""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any
from weakref import WeakKeyDictionary

from torch import Tensor
from torch.optim import LBFGS

from fulmen.callbacks.callback import Callback
from fulmen.callbacks.checkpoint import Checkpoint
from fulmen.callbacks.early_stopping import EarlyStopping
from fulmen.core.datamodule import LightningDataModule
from fulmen.core.hooks import HOOK, HOOKS
from fulmen.core.module import LightningModule
from fulmen.loops.evaluate import run_unheard
from fulmen.plugins.precision.precision import Precision
from fulmen.strategies.strategy import Strategy
from fulmen.utilities.exceptions import MisconfigurationException

if TYPE_CHECKING:
    from fulmen.trainer.trainer import Trainer


#: What an event is when nobody listens: it takes anything and does nothing, without a Python frame of its own.
nobody: Callable[..., Any] = "".format

_CONTEXTS = {
    "training_step": "train_step_context",
    "validation_step": "val_step_context",
    "test_step": "test_step_context",
    "predict_step": "predict_step_context",
}


def written(owner: Any, name: str, empty: type) -> Callable[..., Any] | None:
    """The method ``name`` of ``owner`` if somebody wrote it, else None.

    It is judged on the instance, against the empty body in ``empty``: a method patched onto the instance counts, one
    set to None is switched off, and ``functools.partial`` is looked through.
    """
    method = getattr(owner, name, None)
    if method is None:
        return None
    function = method
    while isinstance(function, functools.partial):
        function = function.func
    if getattr(function, "__func__", function) is getattr(empty, name, None):
        return None
    return method


def takes(function: Callable[..., Any], name: str, position: int) -> bool:
    """Whether ``function`` can be given an argument ``name`` as its positional argument number ``position``."""
    inner = getattr(function, "__func__", None)
    if inner is None:
        return _takes(function, name, position)
    known = _TAKES.setdefault(inner, {})
    if (name, position) not in known:
        known[name, position] = _takes(function, name, position)
    return known[name, position]


#: what methods take, which is asked at every planning; forgotten with the method
_TAKES: WeakKeyDictionary[Any, dict[tuple[str, int], bool]] = WeakKeyDictionary()


def _takes(function: Callable[..., Any], name: str, position: int) -> bool:
    try:
        parameters = inspect.signature(function).parameters.values()
    except (TypeError, ValueError):  # a builtin without a signature
        return True
    positional = [p for p in parameters if p.kind in (p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD)]
    return len(positional) > position or any(p.name == name or p.kind == p.VAR_POSITIONAL for p in parameters)


@dataclass(frozen=True, slots=True)
class Evaluation:
    """What is called in one validation or test run."""

    model_eval: Callable[[], None]
    start: Callable[[], None]
    epoch_start: Callable[[], None]
    batch_start: Callable[..., None]
    step: Callable[..., Any]
    batch_end: Callable[..., None]
    epoch_end: Callable[[], None]
    end: Callable[[], None]
    model_train: Callable[[], None] | None  #: None: each sub-module gets back the mode it had


class Plan:
    """The calls of a run. ``plan.on_train_start()`` calls all who wrote that hook; each is resolved at its first use.

    Attributes:
        steps_alone: nobody needs to be asked how to step, so the loop does it as everyone writes it by hand.
        optimizes_itself: automatic optimization: the loop calls backward and the optimizer.
    """

    def __init__(self, trainer: Trainer, callbacks: Sequence[Any]) -> None:
        module = trainer.lightning_module
        self.callbacks = list(callbacks)
        self.module = module
        self.datamodule = trainer.datamodule
        self._trainer = trainer
        self._profiler = trainer.profiler if trainer.profiles else None
        self.optimizes_itself = module.automatic_optimization
        self.steps_alone = self.optimizes_itself and self._steps_alone(trainer)

    def _steps_alone(self, trainer: Trainer) -> bool:
        optimizer = trainer.optimizer
        return (
            written(self.module, "optimizer_step", LightningModule) is None
            and trainer.precision_plugin.steps_alone
            and type(optimizer).__module__.startswith("torch.optim")
            and not isinstance(optimizer, LBFGS)
        )

    def __getattr__(self, name: str) -> Callable[..., Any]:
        """Resolve a call at its first use; from then on it is a plain attribute."""
        if name not in HOOK or name.startswith("__"):
            raise AttributeError(f"the plan has no {name!r}: it is no hook (see fulmen.core.hooks.HOOKS)")
        call = getattr(self, f"_plan_{name}")() if name in _PLANNED else self._event(name)
        setattr(self, name, call)
        return call

    # -- events -------------------------------------------------------------------------------------------------------

    def listeners(self, name: str) -> list[tuple[Any, Callable[..., Any]]]:
        """Who wrote the hook ``name``, in calling order, each with the bound call."""
        trainer, module = self._trainer, self.module
        found: dict[str, list[tuple[Any, Callable[..., Any]]]] = {"callback": [], "module": [], "strategy": []}
        found["datamodule"] = []
        for callback in self.callbacks:
            method = written(callback, name, Callback)
            if method is not None:
                found["callback"].append((callback, functools.partial(method, trainer, module)))
        for owner, instance, empty in (
            ("module", module, LightningModule),
            ("datamodule", self.datamodule, LightningDataModule),
            ("strategy", trainer.strategy, Strategy),
        ):
            if owner in HOOK[name].owners and instance is not None:
                method = written(instance, name, empty)
                if method is not None:
                    found[owner].append((instance, method))
        calls = [call for owner in HOOK[name].owners for call in found[owner]]
        return calls if trainer._translation is None else trainer._translation.around(name, calls)

    def _event(self, name: str) -> Callable[..., Any]:
        return self._announcement(name, self.listeners(name))

    def _plan_on_train_epoch_end(self) -> Callable[..., Any]:
        calls = self.listeners("on_train_epoch_end")
        return self._announcement("on_train_epoch_end", [call for call in calls if not _watches(call[0])])

    @functools.cached_property
    def watch_train_epoch_end(self) -> Callable[..., Any]:
        """``on_train_epoch_end`` of those that watch metrics: they come last, when everything is logged and stepped."""
        calls = self.listeners("on_train_epoch_end")
        return self._announcement("on_train_epoch_end", [call for call in calls if _watches(call[0])])

    def _announcement(self, name: str, listeners: list[tuple[Any, Callable[..., Any]]]) -> Callable[..., Any]:
        if not listeners:
            return nobody
        metrics = self._trainer.metrics
        calls = tuple(self._profiled(owner, name, call) for owner, call in listeners)
        last_of_module = max((i for i, (owner, _) in enumerate(listeners) if owner is self.module), default=-1)

        def event_of_one(*args: Any) -> Any:
            outer, metrics.hook = metrics.hook, name
            answer = only(*args)
            metrics.hook = outer
            return None if last_of_module < 0 else answer

        if len(calls) == 1:
            only = calls[0]
            return event_of_one

        def event(*args: Any) -> Any:
            """Call all listeners; what the module answers is the answer."""
            outer, metrics.hook = metrics.hook, name
            answer = None
            for index, call in enumerate(calls):
                result = call(*args)
                if index == last_of_module:
                    answer = result
            metrics.hook = outer
            return answer

        return event

    def _profiled(self, owner: Any, name: str, call: Callable[..., Any]) -> Callable[..., Any]:
        profiler = self._profiler
        if profiler is None:
            return call
        kind = "LightningModule" if owner is self.module else "LightningDataModule"
        if owner is self._trainer.strategy:
            kind = "Strategy"
        elif owner in self.callbacks:
            kind = "Callback"
        alike = sum(type(other) is type(owner) for other in self.callbacks)
        who = getattr(owner, "state_key", None) if alike > 1 else None
        action = f"[{kind}]{who or type(owner).__name__}.{name}"

        def profiled(*args: Any, **kwargs: Any) -> Any:
            with profiler.profile(action):
                return call(*args, **kwargs)

        return profiled

    # -- operations ---------------------------------------------------------------------------------------------------

    def _method(self, name: str) -> Callable[..., Any]:
        return self._profiled(self.module, name, getattr(self.module, name))

    def _quiet(self, name: str) -> Callable[..., Any]:
        """An operation in which nothing can be logged."""
        return self._trainer.metrics.quiet(name, self._method(name))

    def _step(self, name: str, is_wrapped: bool = True) -> Callable[..., Any]:
        """A step method: in the context of the precision, if that has one; it may be written without ``batch_idx``, and
        may have been compiled.

        Args:
            is_wrapped: it passes through what the strategy has wrapped the module in.
        """
        method = self._method(name)
        context = self._precision_context(name)
        if context is not None:
            plain = method

            def method(*args: Any) -> Any:
                with context():
                    return plain(*args)

        drain = self._trainer.compiled_logs_drain(name)
        if drain is not None:
            compiled = method

            def method(*args: Any) -> Any:
                result = compiled(*args)
                drain()
                return result

        strategy = self._trainer.strategy
        wrap = strategy.wrap_step if is_wrapped else _unwrapped
        has_index = takes(getattr(self.module, name), "batch_idx", 1)
        step = wrap(name, method if has_index else lambda batch, *positions: method(batch))
        of_strategy = written(strategy, name, Strategy) if is_wrapped else None
        if of_strategy is None:
            return step
        strategy.steps[name] = step
        return of_strategy

    def _precision_context(self, step: str) -> Callable[[], AbstractContextManager[Any]] | None:
        precision, name = self._trainer.precision_plugin, _CONTEXTS[step]
        for context in (name, "forward_context"):
            if written(precision, context, Precision) is not None:
                return getattr(precision, name)
        return None

    def _plan_training_step(self) -> Callable[..., Any]:
        return self._step("training_step")

    @functools.cached_property
    def step_of_part(self) -> Callable[..., Any]:
        """``training_step`` of a part of a batch: of the module itself, as processes may differ in how often it is
        called, and exchange gradients after the last part.
        """
        return self._step("training_step", is_wrapped=False)

    def _plan_optimizer_step(self) -> Callable[..., Any]:
        """For those who step themselves (LBFGS, or a user's ``optimizer_step``): they get forward and backward as a
        closure, which they must call; what comes before a step is done when they step.
        """
        method, optimizer = self._method("optimizer_step"), self._trainer.wrapped_optimizer
        window = self._trainer.window
        if window.late is not None:
            window.late.wants_loss = True

        def optimizer_step(
            epoch: int, batch_idx: int, forward_backward: Callable[[], Any], before_step: Callable[[], None]
        ) -> None:
            called = False

            def closure() -> Any:
                nonlocal called
                called = True
                return window.loss_of_all(forward_backward())

            with optimizer.announcing(before_step):
                method(epoch, batch_idx, optimizer, closure)
            if not called:
                raise _closure_not_called(self.module)

        return optimizer_step

    def _plan_optimizer_zero_grad(self) -> Callable[..., Any]:
        return self._method("optimizer_zero_grad")

    def _plan_backward(self) -> Callable[..., Any]:
        backward = self._trainer.precision_plugin.backward_for(self.module)
        weigh = None if self.optimizes_itself else written(self._trainer.strategy, "before_backward", Strategy)
        if weigh is not None:
            unweighed = self._profiled(self.module, "backward", backward)
            return lambda loss, *args, **kwargs: unweighed(weigh(loss), *args, **kwargs)
        nobody_wrote = written(self.module, "backward", LightningModule) is None
        if backward == self.module.backward and nobody_wrote and self._profiler is None:
            return Tensor.backward
        return self._profiled(self.module, "backward", backward)

    def _plan_configure_gradient_clipping(self) -> Callable[..., Any]:
        nobody_wrote = written(self.module, "configure_gradient_clipping", LightningModule) is None
        if nobody_wrote and not self._trainer.gradient_clip_val:
            return nobody
        return self._method("configure_gradient_clipping")

    def _plan_lr_scheduler_step(self) -> Callable[..., Any]:
        return self._quiet("lr_scheduler_step")

    def _plan_on_validation_model_zero_grad(self) -> Callable[..., Any]:
        return self._quiet("on_validation_model_zero_grad")

    def _plan_on_predict_model_eval(self) -> Callable[..., Any]:
        return self._quiet("on_predict_model_eval")

    def _plan_predict_step(self) -> Callable[..., Any]:
        method = self._step("predict_step")
        if takes(self.module.predict_step, "dataloader_idx", 2):
            return method
        return lambda batch, batch_idx, dataloader_idx=0: method(batch, batch_idx)

    def evaluation(self, name: str) -> Evaluation:
        """The calls of one run of ``name`` (``"validation"`` or ``"test"``)."""
        restore = f"on_{name}_model_train"
        return Evaluation(
            model_eval=self._quiet(f"on_{name}_model_eval"),
            start=getattr(self, f"on_{name}_start"),
            epoch_start=getattr(self, f"on_{name}_epoch_start"),
            batch_start=getattr(self, f"on_{name}_batch_start"),
            step=self._step(f"{name}_step"),
            batch_end=getattr(self, f"on_{name}_batch_end"),
            epoch_end=getattr(self, f"on_{name}_epoch_end"),
            end=getattr(self, f"on_{name}_end"),
            model_train=self._quiet(restore) if written(self.module, restore, LightningModule) else None,
        )

    # -- several processes --------------------------------------------------------------------------------------------

    @functools.cached_property
    def join_backward(self) -> Callable[[], None]:
        """What a process does that has no loss while others go backward."""
        return written(self._trainer.strategy, "join_backward", Strategy) or nobody

    @functools.cached_property
    def absent(self) -> Plan:
        """The plan of a step for which this process has no batch, while others have: nothing of the user's is called
        for it, but the process takes part in what all do together.
        """
        return _WithoutBatch(self._trainer, self.callbacks)

    # -- for people ---------------------------------------------------------------------------------------------------

    def __str__(self) -> str:
        """What will happen in this very run, hook by hook; those that nobody wrote are left out."""
        lines = []
        for hook in HOOKS:
            names = [type(owner).__name__ for owner, _ in self.listeners(hook.name)]
            if hook.name.endswith("_dataloader"):
                names = names[:1]  # the first who has one is asked
            if names and hook.name not in ("state_dict", "load_state_dict"):
                lines.append(f"{hook.name:<32} {', '.join(names)}")
        if self.optimizes_itself and self._trainer.optimizers:
            how = "forward, backward, clip, step" if self.steps_alone else "optimizer_step(closure)"
            lines.append(f"{'each step':<32} {how}")
        elif not self.optimizes_itself:
            lines.append(f"{'each step':<32} manual optimization: training_step steps the optimizers")
        return "\n".join(lines)


def _own_hook(owner: Any, name: str, call: Any) -> Callable[..., Any] | None:
    """Fulmen's hook that is called by ``call``, which calls ``owner``'s: itself, or the one behind ``super()``."""
    is_derived = False
    for cls in type(owner).__mro__ if name not in vars(owner) else ():
        hook = vars(cls).get(name)
        if hook is None:
            continue
        if str(getattr(hook, "__module__", "")).startswith(("fulmen.callbacks.", "fulmen.tuner.")):
            return functools.partial(hook.__get__(owner), *call.args) if is_derived else call
        is_derived = True
        if "super" not in getattr(getattr(hook, "__code__", None), "co_names", ()):
            return None
    return None


class _WithoutBatch(Plan):
    """See :attr:`Plan.absent`."""

    def listeners(self, name: str) -> list[tuple[Any, Callable[..., Any]]]:
        """Of those who get batches only Fulmen's own hooks, which count steps and do not look at them; they are called
        in the place of a user's hook, too, that calls them by ``super()``, since the other processes wait for them.
        """
        found = super().listeners(name)
        if "train_batch" not in name:
            return found
        return [(one, hook) for one, call in found if (hook := _own_hook(one, name, call)) is not None]

    def _plan_training_step(self) -> Callable[..., Any]:
        strategy = self._trainer.strategy
        if self.optimizes_itself and not strategy.forward_is_collective:
            return strategy.wrap_step("training_step", nobody_at_all)
        return self._ghost_step(super()._plan_training_step())

    def _ghost_step(self, step: Callable[..., Any]) -> Callable[..., Any]:
        """A step with a batch that was trained before, where all must make one: it counts nothing."""

        def training_step(batch: Any, batch_idx: int) -> Any:
            output = run_unheard(self._trainer, step, batch_idx)
            return output if self.optimizes_itself else None

        return training_step


def _unwrapped(name: str, step: Callable[..., Any]) -> Callable[..., Any]:
    return step


def nobody_at_all(*args: Any) -> None:
    """What stands for an operation that is left out."""


_PLANNED = frozenset(name.removeprefix("_plan_") for name in vars(Plan) if name.startswith("_plan_"))


def _watches(owner: Any) -> bool:
    return isinstance(owner, (Checkpoint, EarlyStopping)) or getattr(owner, "watches_metrics", False) is True


def _closure_not_called(module: Any) -> Exception:
    return MisconfigurationException(
        f"`{type(module).__name__}.optimizer_step` did not call the closure it was given, so the batch was neither run "
        "forward nor backward. Call `optimizer.step(closure=optimizer_closure)`, or `optimizer_closure()` first."
    )
