"""From ``configure_optimizers()`` to optimizers and schedulers, and when a scheduler is stepped."""

from __future__ import annotations

from collections.abc import Callable, Generator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any
from weakref import ref

from torch import Tensor
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler, OneCycleLR, ReduceLROnPlateau

from fulmen.utilities.exceptions import MisconfigurationException
from fulmen.utilities.interval import parse_interval
from fulmen.utilities.rank_zero import rank_zero_warn
from fulmen.utilities.text import a_kind, shown

if TYPE_CHECKING:
    from fulmen.core.module import LightningModule
    from fulmen.loops.progress import Progress
    from fulmen.plugins.precision.precision import Precision
    from fulmen.strategies.strategy import Strategy


class NoOptimizer(Optimizer):
    """What takes an optimizer's place when ``configure_optimizers`` returned None: it runs the batch and changes
    nothing.
    """

    def __init__(self) -> None:  # torch's own __init__ demands parameters
        self.param_groups, self.defaults, self.state = [], {}, {}  # type: ignore[assignment]

    def step(self, closure: Callable[[], Any] | None = None) -> Any:  # type: ignore[override]
        return None if closure is None else closure()

    def zero_grad(self, set_to_none: bool = True) -> None:
        pass

    def state_dict(self) -> dict[str, Any]:
        return {}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        pass

    def __repr__(self) -> str:
        return "NoOptimizer()"


class LightningOptimizer:
    """An optimizer whose ``step`` goes through the precision plugin; all else is the wrapped optimizer's.

    Users get it from ``self.optimizers()`` and in ``optimizer_step``. ``isinstance`` with the wrapped optimizer's class
    is true.
    """

    _prefix = "Lightning"
    _own: frozenset[str]  #: the names that are not the wrapped optimizer's

    def __init__(self, optimizer: Optimizer) -> None:
        self._optimizer = optimizer
        self._precision: Precision | None = None
        self._steps_alone = True
        self.is_stepping = False  #: a step goes through the precision, which may leave it out
        self._strategy: Strategy | None = None
        self._before_step: Callable[[], None] | None = None
        self._after_step: Callable[[], None] | None = None
        self._module: Callable[[], LightningModule | None] = lambda: None
        # a class of its own makes isinstance true and says what is inside
        own, kind = type(self), type(optimizer)
        self.__class__ = type(own._prefix + kind.__name__, (own, kind), {"__module__": __name__})  # type: ignore[assignment]

    @property
    def optimizer(self) -> Optimizer:
        """The wrapped optimizer."""
        return self._optimizer

    def attach(self, module: LightningModule | None, precision: Precision, strategy: Strategy) -> None:
        """Tell it through which precision plugin to step."""
        if module is not None:
            self._module = ref(module)
        self._precision, self._strategy = precision, strategy
        self._steps_alone = precision.steps_alone

    def step(self, closure: Callable[[], Any] | None = None, **kwargs: Any) -> Any:
        """Step the wrapped optimizer.

        Args:
            closure: does the forward and the backward and returns the loss; needed by LBFGS and its like.
        """
        if closure is not None and not callable(closure):
            raise MisconfigurationException(
                f"`optimizer.step` got the closure {closure!r}, which cannot be called. "
                "Give a function that computes the loss, goes backward and returns the loss."
            )
        if not self._steps_alone:
            return self._step_by_precision(closure, kwargs)
        before_step = self._before_step
        if before_step is not None and closure is None:
            before_step()
        elif before_step is not None and closure is not None:
            closure = _followed_by(closure, before_step)
        if self._precision is None:
            return self._optimizer.step(closure, **kwargs)
        return self._precision.optimizer_step(self._optimizer, self._module(), closure, **kwargs)

    def _step_by_precision(self, closure: Callable[[], Any] | None, kwargs: dict[str, Any]) -> Any:
        """A step of which the precision decides whether it is made: gradients are unscaled before anybody sees them,
        and the step is announced and counted also if it is left out.
        """
        precision, optimizer, announce = self._precision, self._optimizer, self._before_step
        assert precision is not None

        def before_step() -> None:
            precision.unscale_gradients(optimizer)
            if announce is not None:
                announce()

        if closure is None:
            before_step()
            closure = _loss_of_before
        else:
            closure = _followed_by(closure, before_step)
        self.is_stepping = True
        try:
            result = precision.optimizer_step(optimizer, self._module(), closure, **kwargs)
        finally:
            self.is_stepping = False
        if self._after_step is not None:
            self._after_step()
        return result

    @contextmanager
    def announcing(
        self, before_step: Callable[[], None], after_step: Callable[[], None] | None = None
    ) -> Generator[None, None, None]:
        """Call ``before_step`` before each update, once its gradients are there, and ``after_step`` after it where the
        precision may leave it out.
        """
        self._before_step, self._after_step = before_step, after_step
        try:
            yield
        finally:
            self._before_step = self._after_step = None

    @contextmanager
    def toggle_model(self, sync_grad: bool = True) -> Generator[None, None, None]:
        """Let only this optimizer's parameters require gradients.

        Args:
            sync_grad: False: do not exchange gradients between processes now, as when accumulating by hand.
        """
        module = self._module()
        if module is None:
            raise RuntimeError("`toggle_model` needs an optimizer that a Trainer set up: use `self.optimizers()`.")
        strategy = None if sync_grad else self._strategy
        with nullcontext() if strategy is None else strategy.no_backward_sync(), module.toggled_optimizer(self):
            yield

    def __getattribute__(self, name: str) -> Any:
        if name in type(self)._own:
            return object.__getattribute__(self, name)
        return getattr(object.__getattribute__(self, "_optimizer"), name)

    def __setattr__(self, name: str, value: Any) -> None:
        if name in type(self)._own:
            object.__setattr__(self, name, value)
        else:
            setattr(self._optimizer, name, value)

    def __repr__(self) -> str:
        return f"{type(self)._prefix}{self._optimizer!r}"

    def __getstate__(self) -> dict[str, Any]:
        return {"_optimizer": self._optimizer}

    def __reduce__(self) -> Any:
        return LightningOptimizer, (self._optimizer,)


def _followed_by(closure: Callable[[], Any], before_step: Callable[[], None]) -> Callable[[], Any]:
    """Gradients are there only after the closure, which LBFGS calls several times."""

    def closure_and_more() -> Any:
        loss = closure()
        before_step()
        return loss

    return closure_and_more


def _loss_of_before() -> None:
    """The closure of a step whose forward and backward have been done."""


LightningOptimizer._own = (
    frozenset(("__class__", "__getstate__", "__reduce__", "__reduce_ex__", "__repr__", "_after_step", "_before_step"))
    | {"_module", "_optimizer", "_precision", "_step_by_precision", "_steps_alone", "_strategy", "announcing", "attach"}
    | {"is_stepping", "optimizer", "step", "toggle_model"}
)


@dataclass(slots=True)
class LRSchedulerConfig:
    """A scheduler and when it is stepped.

    Attributes:
        scheduler: the scheduler.
        interval: what ``frequency`` counts: ``"epoch"`` or ``"step"`` (optimizer steps).
        frequency: step the scheduler after every so many.
        reduce_on_plateau: it is stepped with the value of ``monitor``.
        monitor: the logged name to watch.
        strict: a missing ``monitor`` is an error (True) or a warning (False).
        name: its name for the learning-rate monitor. None: made from the optimizer's class.
    """

    scheduler: Any
    interval: str = "epoch"
    frequency: int = 1
    reduce_on_plateau: bool = False
    monitor: str | None = None
    strict: bool = True
    name: str | None = None


#: takes anything and does nothing, without a Python frame of its own
_nothing: Callable[..., Any] = "".format


class Schedulers:
    """The schedulers of a run in automatic optimization, stepped when their time has come.

    Args:
        configs: the schedulers. In manual optimization the user steps them, and this gets none.
        step: calls ``module.lr_scheduler_step(scheduler, metric)``.
        callback_metrics: gives the logged values, for those on a plateau.
    """

    def __init__(
        self,
        configs: Sequence[LRSchedulerConfig],
        step: Callable[[Any, Any], None],
        callback_metrics: Callable[[], Mapping[str, Tensor]],
    ) -> None:
        self._per_step = [c for c in configs if c.interval == "step" and not c.reduce_on_plateau]
        self._per_epoch = [c for c in configs if c.interval == "epoch" and not c.reduce_on_plateau]
        self._plateau_per_step = [c for c in configs if c.interval == "step" and c.reduce_on_plateau]
        self._plateau_per_epoch = [c for c in configs if c.interval == "epoch" and c.reduce_on_plateau]
        self._step, self._callback_metrics = step, callback_metrics
        if not configs:  # the questions after each batch have one answer
            self.step = self.step_on_plateau = _nothing

    def step(self, progress: Progress) -> None:
        """After a batch: those per step if it made one, and those per epoch if it was the epoch's last."""
        if self._per_step and not progress.accumulating:
            for config in self._per_step:
                if progress.step % config.frequency == 0:
                    self._step(config.scheduler, None)
        if self._per_epoch and progress.is_last_batch:
            for config in self._per_epoch:
                if (progress.epoch + 1) % config.frequency == 0:
                    self._step(config.scheduler, None)

    def step_on_plateau(self, progress: Progress) -> None:
        """After a batch and the validation that may have followed: those on a plateau per step."""
        if self._plateau_per_step and not progress.accumulating:
            for config in self._plateau_per_step:
                if progress.step % config.frequency == 0:
                    self._step_with_metric(config)

    def finish_epoch(self, progress: Progress) -> None:
        """After an epoch's metrics are there: those on a plateau per epoch."""
        for config in self._plateau_per_epoch:
            if (progress.epoch + 1) % config.frequency == 0:
                self._step_with_metric(config)

    def _step_with_metric(self, config: LRSchedulerConfig) -> None:
        metrics = self._callback_metrics()
        if config.monitor is not None and config.monitor in metrics:
            self._step(config.scheduler, metrics[config.monitor])
            return
        message = (
            f"{type(config.scheduler).__name__} waits for the metric {config.monitor!r}, which was not logged. Logged "
            f"so far: {sorted(metrics)}. Log it by `self.log({config.monitor!r}, ...)`, or set `monitor` to one of "
            "those."
        )
        if config.strict:
            raise MisconfigurationException(message)
        rank_zero_warn(message, category=RuntimeWarning)


def configured_optimizers(module: LightningModule, returned: Any) -> tuple[list[Any], list[LRSchedulerConfig]]:
    """Read what ``configure_optimizers`` returned, in any of its forms.

    Raises:
        MisconfigurationException: it has none of the allowed forms, or a scheduler's entry is wrong.
        RuntimeError: several optimizers in automatic optimization.
    """
    optimizers, entries, monitor = _unfold(returned)
    if not optimizers:
        rank_zero_warn(
            "`configure_optimizers` returned None: training runs without an optimizer and changes no parameter. "
            "Was `return` forgotten?"
        )
        optimizers = [NoOptimizer()]
    automatic = module.automatic_optimization
    if automatic and len(optimizers) > 1:
        names = ", ".join(type(optimizer).__name__ for optimizer in optimizers)
        raise RuntimeError(
            f"`configure_optimizers` returned {len(optimizers)} optimizers ({names}), but automatic optimization steps "
            "one. Set `self.automatic_optimization = False` in `__init__`, and in `training_step` use `opt_a, opt_b = "
            "self.optimizers()`, `self.manual_backward(loss)` and `opt_a.step()`."
        )
    configs = [_scheduler_config(module, entry, monitor) for entry in entries]
    for config in configs:
        own = getattr(config.scheduler, "optimizer", None)
        if own is not None and not any(own is optimizer for optimizer in optimizers):
            raise MisconfigurationException(
                f"{type(config.scheduler).__name__} belongs to an optimizer that `configure_optimizers` did not "
                "return. Return the optimizer too: `return [optimizer], [scheduler]`."
            )
    return optimizers, configs


def unfolded_optimizers(returned: Any) -> tuple[list[Any], list[Any]]:
    """The optimizers, and the entries of schedulers, of any form that ``configure_optimizers`` may return.

    Raises:
        MisconfigurationException: it has none of the allowed forms.
    """
    optimizers, entries, monitor = _unfold(returned)
    return optimizers, [_with_monitor(entry, monitor) for entry in entries]


def _is_optimizer(value: Any) -> bool:
    needed = ("step", "state_dict", "load_state_dict", "param_groups", "zero_grad")
    return isinstance(value, Optimizer) or (
        not isinstance(value, (dict, LRScheduler)) and all(hasattr(value, name) for name in needed)
    )


def _unfold(returned: Any) -> tuple[list[Any], list[Any], str | None]:
    """Any allowed form -> optimizers, scheduler entries, and the monitor that was given beside a bare plateau
    scheduler.
    """
    if returned is None:
        return [], [], None
    if _is_optimizer(returned):
        return [returned], [], None
    if isinstance(returned, Mapping):
        optimizer, entry, monitor = _unfold_dict(returned)
        return [optimizer], entry, monitor
    if isinstance(returned, (list, tuple)) and returned:
        if all(_is_optimizer(item) for item in returned):
            return list(returned), [], None
        if all(isinstance(item, Mapping) for item in returned):
            parts = [_unfold_dict(item) for item in returned]
            entries: list[Any] = []
            for _, entry, monitor in parts:
                entries += [_with_monitor(item, monitor) for item in entry]
            return [optimizer for optimizer, _, _ in parts], entries, None
        if len(returned) == 2 and isinstance(returned[0], (list, tuple)) and all(map(_is_optimizer, returned[0])):
            schedulers = returned[1]
            return list(returned[0]), list(schedulers) if isinstance(schedulers, (list, tuple)) else [schedulers], None
    raise MisconfigurationException(f"`configure_optimizers` returned {_why_not(returned)}")


def _why_not(returned: Any) -> str:
    """What is wrong with a value that is none of the allowed forms, and what to write instead."""
    items = list(returned) if isinstance(returned, (list, tuple)) else [returned]
    kinds = [item if isinstance(item, type) else type(item) for item in items]
    if any(isinstance(item, type) for item in items):
        kind = next(item for item in items if isinstance(item, type))
        return f"the class {kind.__name__} instead of an instance. Write `{kind.__name__}(self.parameters(), ...)`."
    if items and any(issubclass(kind, (LRScheduler, ReduceLROnPlateau)) for kind in kinds):
        names = ", ".join(kind.__name__ for kind in kinds)
        return (
            f"{names}, which is none of its forms: a scheduler cannot stand where an optimizer is expected. Write "
            "`return [optimizer], [scheduler]`, or {'optimizer': optimizer, 'lr_scheduler': scheduler}."
        )
    return (
        f"{shown(returned)}, which is none of its forms. Return an optimizer, a list of them, "
        "`([optimizers], [schedulers])`, or {'optimizer': optimizer, 'lr_scheduler': scheduler}."
    )


def _unfold_dict(entry: Mapping[str, Any]) -> tuple[Any, list[Any], str | None]:
    unknown = sorted(set(entry) - {"optimizer", "lr_scheduler", "monitor"})
    if "optimizer" not in entry or not _is_optimizer(entry["optimizer"]):
        raise MisconfigurationException(
            f"`configure_optimizers` returned a dict with the keys {sorted(entry)}, without an optimizer under "
            "'optimizer'. Return {'optimizer': optimizer, 'lr_scheduler': scheduler}."
        )
    if unknown:
        rank_zero_warn(
            f"`configure_optimizers` returned a dict with the keys {unknown}, which mean nothing and are ignored. "
            "Known are 'optimizer', 'lr_scheduler' and 'monitor'.",
            category=RuntimeWarning,
        )
    scheduler = entry.get("lr_scheduler")
    return entry["optimizer"], [] if scheduler is None else [scheduler], entry.get("monitor")


def _with_monitor(entry: Any, monitor: str | None) -> Any:
    if monitor is None or isinstance(entry, Mapping):
        return entry
    return {"scheduler": entry, "monitor": monitor}


def _scheduler_config(module: LightningModule, entry: Any, monitor: str | None) -> LRSchedulerConfig:
    if not isinstance(entry, Mapping):
        entry = {"scheduler": entry, **({"monitor": monitor} if isinstance(entry, ReduceLROnPlateau) else {})}
    known = ("scheduler", "interval", "frequency", "monitor", "strict", "name", "reduce_on_plateau")
    unknown = sorted(set(entry) - set(known))
    if unknown:
        rank_zero_warn(
            f"a scheduler's dict has the keys {unknown}, which mean nothing and are ignored. Known are {list(known)}.",
            category=RuntimeWarning,
        )
    scheduler = entry.get("scheduler")
    if scheduler is None:
        raise MisconfigurationException(
            f"a scheduler's dict has the keys {sorted(entry)}, but not 'scheduler'. Write {{'scheduler': scheduler, "
            f"...}}."
        )
    name = type(scheduler).__name__
    if isinstance(scheduler, type):
        raise MisconfigurationException(
            f"a scheduler is the class {scheduler.__name__} instead of an instance. "
            f"Write `{scheduler.__name__}(optimizer, ...)`."
        )
    for method in ("state_dict", "load_state_dict"):
        if not callable(getattr(scheduler, method, None)):
            raise TypeError(
                f"{a_kind(scheduler)} is no scheduler: it has no `{method}`, so it could not be saved. "
                "Return one of torch.optim.lr_scheduler, or an object with `step`, `state_dict` and `load_state_dict`."
            )
    plateau = entry.get("reduce_on_plateau", isinstance(scheduler, ReduceLROnPlateau))
    interval, frequency = _interval(entry.get("interval", "epoch"), entry.get("frequency", 1))
    if not module._steps_schedulers:
        ignored = [key for key in ("reduce_on_plateau", "monitor", "strict") if entry.get(key) is not None]
        if ignored:
            rank_zero_warn(
                f"the keys {ignored} of {name} are ignored in manual optimization: step the scheduler yourself, by "
                "`self.lr_schedulers().step(value)`.",
                category=RuntimeWarning,
            )
        return LRSchedulerConfig(scheduler, interval, frequency, name=entry.get("name"))
    if plateau and entry.get("monitor") is None:
        raise MisconfigurationException(
            f"{name} needs to know what to watch. Return {{'optimizer': optimizer, 'lr_scheduler': "
            "{'scheduler': scheduler, 'monitor': 'val_loss'}}."
        )
    if isinstance(scheduler, OneCycleLR) and interval == "epoch":
        rank_zero_warn(
            "OneCycleLR is stepped once per epoch, but it is made for one step per batch. "
            "Write {'scheduler': scheduler, 'interval': 'step'}.",
            category=RuntimeWarning,
        )
    step_is_written = type(module).lr_scheduler_step.__module__ != "fulmen.core.module"
    if not isinstance(scheduler, (LRScheduler, ReduceLROnPlateau)) and not step_is_written:
        raise MisconfigurationException(
            f"{name} is no scheduler of torch's, so it is not known how to step it. "
            "Define `def lr_scheduler_step(self, scheduler, metric):` in the module."
        )
    return LRSchedulerConfig(
        scheduler, interval, frequency, plateau, entry.get("monitor"), entry.get("strict", True), entry.get("name")
    )


def _interval(interval: Any, frequency: Any) -> tuple[str, int]:
    if isinstance(frequency, bool) or not isinstance(frequency, int) or frequency < 1:
        raise MisconfigurationException(
            f"a scheduler's 'frequency' is {frequency!r}; it must be a whole number from 1."
        )
    if interval in ("epoch", "step"):
        return interval, frequency
    try:
        parsed = parse_interval(interval) if isinstance(interval, str) else None
    except MisconfigurationException:
        parsed = None
    if parsed is None or parsed.unit not in ("epoch", "step"):
        raise MisconfigurationException(
            f"a scheduler's 'interval' is {interval!r}; allowed are 'epoch', 'step', or a number of them such as "
            "'100step'."
        )
    return parsed.unit, int(parsed.count) * frequency
