"""From ``self.log`` to where values go: callbacks, the progress bar and the loggers.

The first call from a hook with a name checks everything and makes an :class:`Accumulator`; each later call is one
look-up, one detach and one addition. Values stay on the device until a logger, a monitor or a visible bar reads them.
Whatever is averaged is carried as (sum, weight), in double precision where the device has it.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Mapping
from contextlib import contextmanager
from copy import deepcopy
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from fulmen.core.hooks import HOOK
from fulmen.loggers.logger import tell_all
from fulmen.trainer import metric_objects
from fulmen.trainer.accumulator import NUMBERS, OPTIONS, Accumulator, as_tensor, to_number
from fulmen.trainer.metric_objects import is_metric, metrics_of, pack, unpack
from fulmen.trainer.shares import Share
from fulmen.utilities.exceptions import MisconfigurationException
from fulmen.utilities.rank_zero import rank_zero_warn
from fulmen.utilities.text import shown

if TYPE_CHECKING:
    from fulmen.core.module import LightningModule
    from fulmen.loggers.logger import Logger
    from fulmen.loops.progress import Progress

_REDUCTIONS: dict[Any, str] = {
    "mean": "mean",
    "avg": "mean",
    "sum": "sum",
    "min": "min",
    "max": "max",
    torch.mean: "mean",
    torch.sum: "sum",
    torch.min: "min",
    torch.max: "max",
    torch.amin: "min",
    torch.amax: "max",
    sum: "sum",
    min: "min",
    max: "max",
}


_NAMES = (
    "prog_bar",
    "logger",
    "on_step",
    "on_epoch",
    "reduce_fx",
    "sync_dist",
    "add_dataloader_idx",
    "rank_zero_only",
)
#: hooks that do not allow logging -> those near them that do, and why
_INSTEAD = {
    "on_fit_start": "`on_train_start`",
    "on_train_end": "`on_train_epoch_end`",
    "on_fit_end": "`on_train_epoch_end`",
    "on_validation_end": "`on_validation_epoch_end`",
    "on_test_end": "`on_test_epoch_end`",
}
_WHY_NOT = {
    **dict.fromkeys(
        ("on_train_end", "on_validation_end", "on_test_end", "on_fit_end"), "the values are written by then"
    ),
    "predict_step": "prediction has no metrics",
}


#: the dictionaries that users and callbacks read
_WINDOWS = ("callback", "logged", "progress_bar")
#: what is in them, unless somebody puts in something else, which is not saved
_VALUES = (Tensor, int, float)


class Metrics:
    """All that was logged in one run. ``hook`` names the hook that runs now; the plan and the loops set it."""

    def __init__(self, module: LightningModule, progress: Progress, loggers: list[Logger], ignore: bool) -> None:
        self.module, self.progress, self.loggers = module, progress, loggers
        self.ignore = ignore  #: barebones: nothing is logged
        self.hook: str | None = None
        self.stage = "train"  #: or "validate", "test", "sanity_check", "predict"
        self.dataloader_idx: int | None = None  #: of several evaluation loaders
        self.batch_size_of: Callable[[], float] = _no_batch
        self.syncs_steps = True  #: the value of a step becomes that of all processes when it is logged
        self.share = Share()  #: the processes whose values become one
        self.group_is_whole: Callable[[], bool] = _always  #: all of them have a batch at this step
        self.loaders_with_batches: Callable[[str], set[int]] = _nowhere  #: of a stage, those that gave one here
        self._late: list[tuple[Any, float, float]] = []  # values of a step that not all processes take part in
        self.callback: dict[str, Tensor] = {}
        self.logged: dict[str, Tensor] = {}
        self.progress_bar: dict[str, Tensor | float] = {}
        self._train: dict[Any, Accumulator] = {}
        self._eval: dict[Any, Accumulator] = {}
        self._entries = self._train
        self._epoch_has_ended = False
        self._warned: set[str] = set()
        self._eval_batches: dict[tuple[str, int | None], int] = {}
        self._step_last_written = -1

    # -- self.log -----------------------------------------------------------------------------------------------------

    def log(
        self,
        name: str,
        value: Any,
        prog_bar: bool = False,
        logger: bool | None = None,
        on_step: bool | None = None,
        on_epoch: bool | None = None,
        reduce_fx: Any = "mean",
        sync_dist: bool = False,
        add_dataloader_idx: bool = True,
        batch_size: int | None = None,
        metric_attribute: str | None = None,
        rank_zero_only: bool = False,
        sync_dist_group: Any = None,
    ) -> None:
        """Take in one value; see :meth:`fulmen.core.module.LightningModule.log`."""
        entry = self._entries.get((self.hook, name, self.dataloader_idx))
        settings = (prog_bar, logger, on_step, on_epoch, reduce_fx, sync_dist, add_dataloader_idx, rank_zero_only)
        if entry is None:
            entry = self._register(name, value, settings, batch_size, metric_attribute)
            if entry is None:
                return
        elif entry.settings != settings:
            if entry.settings is not None:
                raise _other_settings(name, self.hook, entry.settings, settings)
            entry = self._take_up(entry, value, settings, batch_size, metric_attribute)
        elif entry.metric is None:
            if isinstance(value, Tensor):
                if value.numel() != 1:
                    raise _not_one_number(name, value)
            elif not isinstance(value, (int, float)):
                raise _not_a_number(name, value)
        elif value is not entry.metric:
            raise MisconfigurationException(
                f"`self.log({name!r}, ...)` got another object than the metric it was first given; log one metric per "
                "name."
            )
        weight = 1.0
        if (entry.on_epoch or entry.syncs) and entry.reduction == "mean" and entry.metric is None:
            weight = self.batch_size_of() if batch_size is None and self._in_batch() else batch_size or 1
        entry.add(value, weight)
        if entry.syncs and self.syncs_steps:
            self.sync_step(entry, weight, sync_dist_group)

    def entry(self, name: str) -> Accumulator | None:
        """All that was logged under ``name`` from the hook that runs now; None if nothing was."""
        return self._entries.get((self.hook, name, self.dataloader_idx))

    def sync_step(self, entry: Accumulator, weight: float, group: Any) -> None:
        """Make the value of this step that of all processes."""
        from fulmen.trainer import metric_exchange  # only where there are several

        assert entry.last is not None
        if self.group_is_whole():
            entry.last = metric_exchange.of_step(self.share, entry, weight, group)
        else:  # those without a batch do not come here: it is made up for at the end of the step
            self._late.append(((self.hook, entry.name, self.dataloader_idx), float(entry.last), float(weight)))

    def _finish_group(self) -> None:
        """All processes, also those without a batch, are at the end of the step."""
        if self.share.size > 1 and not self.group_is_whole():
            from fulmen.trainer import metric_exchange

            late, self._late = self._late, []
            metric_exchange.of_late(self.share, self._entries, late)

    @contextmanager
    def unheard(self) -> Generator[None, None, None]:
        """Whatever is logged here, or given to metric objects, is forgotten."""
        metrics = metrics_of(self.module)
        states = deepcopy(metric_objects.state_of(self.module)) if metrics else {}
        self.log = _nothing  # type: ignore[method-assign]
        try:
            yield
        finally:
            del self.log
            if states:
                device = next((parameter.device for parameter in self.module.parameters()), torch.device("cpu"))
                metric_objects.restore(self.module, states, device)

    def moment(self) -> Callable[[], None]:
        """What brings all that is logged in training from now on back to how it is now. Values from the hook
        ``on_before_zero_grad`` stay, as it is not called again.
        """
        hook, late = self.hook, len(self._late)
        windows: list[tuple[dict[str, Any], dict[str, Any]]] = [
            (values, dict(values)) for values in (self.callback, self.logged, self.progress_bar)
        ]
        entries = {key: (entry, entry.numbers()) for key, entry in self._train.items()}

        def go_back() -> None:
            self.hook = hook
            del self._late[late:]
            for values, before in windows:
                values.clear()
                values.update(before)
            kept = {key: entry for key, entry in self._train.items() if key[0] == "on_before_zero_grad"}
            self._train.clear()
            for key, (entry, numbers) in entries.items():
                self._train[key] = entry
                if key not in kept:
                    entry.take_back(numbers)
            self._train.update(kept)

        return go_back

    def quiet(self, name: str, method: Callable[..., Any]) -> Callable[..., Any]:
        """``method`` as the hook ``name``, in which nothing can be logged."""

        def operation(*args: Any, **kwargs: Any) -> Any:
            outer, self.hook = self.hook, name
            result = method(*args, **kwargs)
            self.hook = outer
            return result

        return operation

    def _in_batch(self) -> bool:
        return self.hook is not None and HOOK[self.hook].log != "epoch"

    def _register(
        self, name: str, value: Any, settings: tuple[Any, ...], batch_size: Any, attribute: str | None
    ) -> Accumulator | None:
        """Check everything once, and make the accumulator."""
        if self.ignore:
            self._warn_once("barebones", "`self.log` does nothing in `Trainer(barebones=True)`.")
            return None
        if settings[-1] and self.share.global_rank:  # a compiled step does not know who it is
            return None
        prog_bar, logger, on_step, on_epoch, reduce_fx, sync_dist, add_dataloader_idx, rank_zero_only = settings
        allowed = self._permission()
        if not add_dataloader_idx and any(
            (hook, other) == (self.hook, name) and index != self.dataloader_idx for hook, other, index in self._entries
        ):
            raise MisconfigurationException(
                f"`self.log({name!r}, add_dataloader_idx=False)` was called for several loaders, and one value would "
                f"hide the other. Make names of your own: `self.log(f'{name}_{{dataloader_idx}}', ..., "
                "add_dataloader_idx=False)`."
            )
        if not isinstance(name, str):
            raise MisconfigurationException(
                f"`self.log` got the name {shown(name)}; a name must be a string. Write `self.log('name', value)`."
            )
        _check_arguments(name, settings, batch_size)
        if add_dataloader_idx and "/dataloader_idx_" in name:
            raise MisconfigurationException(
                f"`self.log({name!r}, ...)`: `/dataloader_idx_` is added to the name by itself. "
                "Leave it out, or say `add_dataloader_idx=False`."
            )
        metric = value if is_metric(value) else None
        if attribute is not None and not hasattr(self.module, attribute):
            raise MisconfigurationException(
                f"`self.log({name!r}, ..., metric_attribute={attribute!r})`: {type(self.module).__name__} has no such "
                "attribute. Leave it out, and the metric is found by itself."
            )
        if metric is not None:
            self._check_metric(name, metric, attribute)
        elif isinstance(value, Tensor):
            if value.numel() != 1:
                raise _not_one_number(name, value)
        elif not isinstance(value, (int, float)):
            raise _not_a_number(name, value)
        if logger and not self.loggers:
            self._warn_once(
                f"logger-{name}",
                f"`self.log({name!r}, ..., logger=True)` is asked for, but the Trainer has no logger. Leave it out, or "
                "write `Trainer(logger=True)`.",
            )
        if allowed == "epoch":
            if on_step:
                raise MisconfigurationException(
                    f"`self.log({name!r}, on_step=True)` cannot be called in `{self.hook}`: there is no step. "
                    "Leave `on_step` out."
                )
            if on_epoch is False:
                raise MisconfigurationException(
                    f"`self.log({name!r}, on_epoch=False)` cannot be called in `{self.hook}`: the value would go "
                    "nowhere. Leave `on_epoch` out."
                )
            on_step, on_epoch = False, True
        else:
            on_step = allowed == "train" if on_step is None else on_step
            on_epoch = allowed == "eval" if on_epoch is None else on_epoch
            if not on_step and not on_epoch:
                raise MisconfigurationException(
                    f"`self.log({name!r}, on_step=False, on_epoch=False)` would go nowhere. Set one of them to True."
                )
        entry = Accumulator(
            name=name,
            settings=settings,
            prog_bar=prog_bar,
            logger=logger is not False,
            on_step=on_step,
            on_epoch=on_epoch,
            reduction=_reduction(name, reduce_fx),
            dataloader_idx=self.dataloader_idx if add_dataloader_idx else None,
            metric=metric,
            syncs=bool(sync_dist and on_step and metric is None and self.share.size > 1),
            rank_zero_only=rank_zero_only,
        )
        self._entries[(self.hook, name, self.dataloader_idx)] = entry
        return entry

    def _take_up(
        self, before: Accumulator, value: Any, settings: tuple[Any, ...], batch_size: Any, attribute: str | None
    ) -> Accumulator:
        """The first value of a resumed run under a name: check everything, and go on with what was logged before."""
        entry = self._register(before.name, value, settings, batch_size, attribute)
        assert entry is not None
        if not entry.take_over(before) and before.in_epoch:
            rank_zero_warn(
                f"`self.log({entry.name!r}, ...)` is called in another way than in the run that goes on here: its "
                "value of this epoch will be of the epoch's rest alone."
            )
        return entry

    def _permission(self) -> str:
        hook = self.hook
        if hook is None:
            raise MisconfigurationException(
                "`self.log` was called outside of a hook of the Trainer, so nobody knows which step or epoch the value "
                "belongs to. Call it from a hook such as `training_step`."
            )
        allowed = HOOK[hook].log
        if allowed == "no":
            places = "`training_step`, `validation_step`, `test_step` or a hook of an epoch or a batch"
            raise MisconfigurationException(
                f"`self.log` cannot be called in `{hook}`: {_WHY_NOT.get(hook, 'no step or epoch runs then')}. "
                f"Call it in {_INSTEAD.get(hook, places)}."
            )
        return allowed

    def _check_metric(self, name: str, metric: Any, attribute: str | None) -> None:
        if (
            attribute is None
            and isinstance(metric, torch.nn.Module)
            and not any(metric is child for child in self.module.modules())
        ):
            raise MisconfigurationException(
                f"the metric {type(metric).__name__} logged as {name!r} is no attribute of "
                f"{type(self.module).__name__}, so it would be neither moved to the device nor saved. Assign it in "
                f"`__init__`: `self.{name.replace('/', '_')} = {type(metric).__name__}(...)`."
            )

    def _warn_once(self, key: str, message: str) -> None:
        if key not in self._warned:
            self._warned.add(key)
            rank_zero_warn(message, stacklevel=7)

    # -- reading ------------------------------------------------------------------------------------------------------

    def collect(self) -> None:
        """Bring the dictionaries that callbacks, users and the bar read up to date with what was logged so far."""
        for (_, _, dataloader_idx), entry in self._entries.items():
            if not entry.unseen:
                continue
            if self.share.size > 1:  # values of an epoch are there when all processes have agreed on them
                is_over = entry.agreed is not None
            else:
                is_over = self._epoch_has_ended or (
                    None not in (dataloader_idx, self.dataloader_idx) and dataloader_idx != self.dataloader_idx
                )
            if is_over:
                if entry.on_epoch and entry.has_epoch_value:
                    self._put(entry, entry.epoch_value(), "_epoch")
                entry.unseen = False
            elif entry.on_step and entry.last is not None:
                self._put(entry, entry.last, "_step")
                entry.unseen = entry.on_epoch and self.stage != "train"

    def _put(self, entry: Accumulator, value: Tensor | float, fork: str) -> None:
        tensor = as_tensor(value)
        suffix = _suffix(entry)
        forked = entry.on_step and entry.on_epoch
        key = entry.name + (fork if forked else "") + suffix
        if fork == "_epoch" or self.stage == "train":  # the steps of an evaluation are for loggers and the bar only
            if forked:
                self.callback[entry.name + suffix] = tensor
            self.callback[key] = tensor
        if entry.logger:
            self.logged[key] = tensor
        if entry.prog_bar:
            self.progress_bar[key] = tensor

    # -- training -----------------------------------------------------------------------------------------------------

    def begin_training(self) -> None:
        """From here on, values belong to training."""
        self.stage, self._entries, self.hook, self.dataloader_idx = "train", self._train, "training_step", None

    def finish_batch(self) -> None:
        """Send this step's values to the loggers when they are due."""
        self._finish_group()
        progress = self.progress
        stops = progress.should_stop and not progress.out_of_time  # which is no end of a run that goes on with more
        due = progress.time_to_log or (stops and not progress.accumulating)
        if due and self.loggers and progress.log_every_n_steps:
            self._write_step_values(progress.batches_that_stepped, progress.epoch)

    def finish_training(self) -> None:
        """Send the last step's values, if the run ended in a way that could not be foreseen at that step."""
        progress = self.progress
        if self.loggers and progress.log_every_n_steps and self._step_last_written < progress.batches_that_stepped - 1:
            self._write_step_values(progress.batches_that_stepped - 1, max(0, progress.epoch - 1))

    def _write_step_values(self, step: int, epoch: int) -> None:
        values: dict[str, Tensor | float] = {}
        for entry in self._train.values():
            if entry.on_step and entry.logger and entry.fresh and entry.last is not None:
                forked = "_step" if entry.on_epoch else ""
                values[entry.name + forked] = entry.last
                entry.fresh = False
        self._write(values, step, epoch)
        self._step_last_written = step

    def end_of_epoch(self) -> None:
        """All batches are done: from now on the values of the epoch are read."""
        self.collect()
        self._epoch_has_ended = True
        self._agree()
        for entry in self._entries.values():
            entry.unseen = entry.in_epoch

    def _agree(self) -> None:
        """Make what was logged in this epoch, and is not agreed on yet, that of all processes."""
        if self.share.size > 1:
            from fulmen.trainer import metric_exchange

            stage = "train" if self.stage == "train" else "evaluation"
            metric_exchange.of_epoch(self.share, self._entries, self.module, self.loaders_with_batches(stage))

    def finish_epoch(self) -> None:
        """Send the epoch's values to the loggers and begin anew."""
        self._agree()
        self.collect()
        values = {
            entry.name + ("_epoch" if entry.on_step else ""): entry.epoch_value()
            for entry in self._train.values()
            if entry.on_epoch and entry.logger and entry.has_epoch_value
        }
        self._write(values, max(0, self.progress.batches_that_stepped - 1), self.progress.epoch)
        for entry in self._train.values():
            entry.reset()
        self._epoch_has_ended = False

    # -- evaluation ---------------------------------------------------------------------------------------------------

    def begin_evaluation(self, stage: str) -> tuple[Any, ...]:
        """From here on, values belong to ``stage``; returns what :meth:`finish_evaluation` needs to go back."""
        self.collect()
        outer = (self.stage, self.hook, self._entries, self.dataloader_idx, self._epoch_has_ended)
        self._eval = {}
        self.stage, self._entries, self._epoch_has_ended = stage, self._eval, False
        self.hook = {"test": "test_step", "predict": "predict_step"}.get(stage, "validation_step")
        return outer

    def finish_evaluation_batch(self, dataloader_idx: int | None) -> None:
        """Send what was logged with ``on_step=True`` in this batch to the loggers."""
        self._finish_group()
        if not self.loggers or self.stage == "sanity_check":
            return
        values: dict[str, Tensor | float] = {}
        for entry in self._eval.values():
            if entry.on_step and entry.logger and entry.fresh and entry.last is not None:
                values[entry.name + ("_step" if entry.on_epoch else "") + _suffix(entry)] = entry.last
                entry.fresh = False
        if values:
            prefix = "val" if self.stage == "validate" else self.stage
            key = (prefix, dataloader_idx)
            count = self._eval_batches.get(key, 0)
            self._eval_batches[key] = count + 1
            self._write({**values, f"{prefix}_batch": count}, self.progress.batches_that_stepped, None)

    def write_evaluation(self, num_dataloaders: int) -> list[dict[str, float]]:
        """Send the values of this evaluation to the loggers; returns them, a dict for each loader."""
        self._agree()
        self.collect()
        results: list[dict[str, float]] = [{} for _ in range(num_dataloaders)]
        values: dict[str, Tensor | float] = {}
        for (_, _, dataloader_idx), entry in self._eval.items():
            if not (entry.on_epoch and entry.logger and entry.has_epoch_value):
                continue
            key = entry.name + ("_epoch" if entry.on_step else "") + _suffix(entry)
            values[key] = entry.epoch_value()
            number = to_number(values[key])
            for index in range(num_dataloaders) if dataloader_idx is None else (dataloader_idx,):
                results[index][key] = number
        if self.stage != "sanity_check":
            self._write(values, self.progress.batches_that_stepped, self.progress.epoch)
        return results

    def finish_evaluation(self, outer: tuple[Any, ...]) -> None:
        """The evaluation is over: values belong to what was before it."""
        for entry in self._eval.values():
            entry.reset()
        self._eval = {}
        self.stage, self.hook, self._entries, self.dataloader_idx, self._epoch_has_ended = outer

    def forget(self) -> None:
        """The sanity check is over and leaves no trace."""
        for values in (self.callback, self.logged, self.progress_bar):
            values.clear()

    # -- the middle of an epoch ---------------------------------------------------------------------------------------

    def state_dict(self) -> dict[str, Any]:
        """What was logged in training so far, as plain data. The metric objects are saved by themselves
        (:mod:`fulmen.trainer.metric_objects`).
        """
        paths = {id(metric): path for path, metric in metrics_of(self.module).items()}
        return {
            "train": [
                {"hook": hook, "metric": paths.get(id(entry.metric)), **entry.state_dict()}
                for (hook, _, _), entry in self._train.items()
                if entry.metric is None or id(entry.metric) in paths
            ],
            **{
                name: {key: pack(value) for key, value in getattr(self, name).items() if isinstance(value, _VALUES)}
                for name in _WINDOWS
            },
            "eval_batches": [[*key, count] for key, count in self._eval_batches.items()],
            "step_last_written": self._step_last_written,
        }

    def load_state_dict(self, state: Mapping[str, Any], device: torch.device) -> None:
        """Go on from what :meth:`state_dict` found; what was logged since this run began is forgotten.

        Args:
            device: where values were that were not on the CPU.
        """
        metrics, state = metrics_of(self.module), unpack(dict(state), device)
        self._train.clear()
        for saved in state["train"]:
            metric = metrics.get(saved["metric"])
            if metric is None and saved["metric"] is not None:
                continue  # it is no more
            entry = Accumulator(settings=None, metric=metric, **{name: saved[name] for name in OPTIONS})
            for name in NUMBERS:
                setattr(entry, name, saved[name])
            self._train[saved["hook"], entry.name, None] = entry
        for name in _WINDOWS:
            window, values = getattr(self, name), state[name]
            wrong = [key for key, value in values.items() if not isinstance(value, _VALUES)]
            if wrong:
                raise TypeError(f"{', '.join(map(repr, wrong))} of it must be numbers")
            window.clear()
            window.update(values)
        self._eval_batches = {(stage, index): count for stage, index, count in state["eval_batches"]}
        self._step_last_written = state["step_last_written"]

    # -- writing ------------------------------------------------------------------------------------------------------

    def _write(self, values: Mapping[str, Tensor | float], step: int, epoch: int | None) -> None:
        if not values or not self.loggers:
            return
        numbers: dict[str, float] = {name: to_number(value) for name, value in values.items()}
        if "step" in numbers:  # the user's own x axis
            step = int(numbers.pop("step"))
        elif epoch is not None:
            numbers.setdefault("epoch", epoch)
        if numbers:
            self.send(numbers, step)

    def send(self, numbers: dict[str, Any], step: int) -> None:
        """Give plain numbers to every logger."""

        def send(logger: Logger) -> None:
            logger.log_metrics(metrics=dict(numbers), step=step)
            logger.save()

        tell_all(self.loggers, send)

    def to_host(self) -> None:
        """Move what was logged to the CPU, at the end of a run."""
        self.collect()
        for values in (self.callback, self.logged):
            for name, value in values.items():
                values[name] = value.cpu()
        self._train, self._eval, self._entries = {}, {}, {}
        self.hook = None


def _suffix(entry: Accumulator) -> str:
    return "" if entry.dataloader_idx is None else f"/dataloader_idx_{entry.dataloader_idx}"


def _no_batch() -> int:
    return 1


def _nothing(*args: Any, **kwargs: Any) -> None:
    """What ``self.log`` does while nothing is heard."""


def _always() -> bool:
    return True


def _nowhere(stage: str) -> set[int]:
    return set()


def _reduction(name: str, reduce_fx: Any) -> str:
    key = reduce_fx.lower() if isinstance(reduce_fx, str) else reduce_fx
    try:
        return _REDUCTIONS[key]
    except (KeyError, TypeError):
        raise MisconfigurationException(
            f"`self.log({name!r}, reduce_fx={reduce_fx!r})`: allowed are 'mean', 'sum', 'min' and 'max' "
            "(or torch's functions of these names). For anything else log a torchmetrics object."
        ) from None


def _check_arguments(name: str, settings: tuple[Any, ...], batch_size: Any) -> None:
    for argument, value in zip(_NAMES, settings):
        if argument != "reduce_fx" and value is not None and not isinstance(value, bool):
            raise MisconfigurationException(
                f"`self.log({name!r}, ..., {argument}={shown(value)})`: must be True or False."
            )
    good = isinstance(batch_size, Tensor) or (isinstance(batch_size, (int, float)) and batch_size > 0)
    if batch_size is not None and (not good or isinstance(batch_size, bool)):
        raise MisconfigurationException(
            f"`self.log({name!r}, ..., batch_size={shown(batch_size)})`: must be a whole number from 1, the samples in "
            "the batch; None counts them."
        )


def _other_settings(name: str, hook: str | None, before: tuple[Any, ...], now: tuple[Any, ...]) -> Exception:
    differing = [place for place, pair in enumerate(zip(before, now)) if pair[0] != pair[1]]
    first, second = (", ".join(f"{_NAMES[place]}={values[place]!r}" for place in differing) for values in (before, now))
    return MisconfigurationException(
        f"`self.log({name!r}, ..., {second})` in `{hook}`: this name was logged there with `{first}` before. "
        "Use the same arguments every time, or another name."
    )


def _not_one_number(name: str, value: Tensor) -> ValueError:
    return ValueError(
        f"`self.log({name!r}, ...)` got a tensor of shape {tuple(value.shape)}; only one number can be logged. "
        f"Log `value.mean()`, say."
    )


def _not_a_number(name: str, value: Any) -> ValueError:
    advice = (
        "Use `self.log_dict(...)` for a dict."
        if isinstance(value, Mapping)
        else "Log a number, a tensor with one element, or a metric."
    )
    return ValueError(f"`self.log({name!r}, {value!r})` got a {type(value).__name__}, which is no number. {advice}")
