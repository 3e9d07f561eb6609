"""Log learning rates, momentum and weight decay."""

from __future__ import annotations

from copy import deepcopy
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import torch
from torch import Tensor
from torch.optim import Optimizer

from fulmen.callbacks.callback import Callback
from fulmen.utilities.exceptions import MisconfigurationException
from fulmen.utilities.rank_zero import rank_zero_warn

if TYPE_CHECKING:
    from fulmen.core.module import LightningModule
    from fulmen.trainer.trainer import Trainer


@dataclass(frozen=True, slots=True)
class _Watched:
    """An optimizer under the name it is logged by, and when: ``"step"``, ``"epoch"``, or None for both."""

    name: str
    optimizer: Optimizer
    interval: str | None


_STATE = ("lrs", "last_momentum_values", "last_weight_decay_values")


class LearningRateMonitor(Callback):
    """Logs the learning rate of every optimizer, under ``lr-<OptimizerClass>`` or the scheduler's ``name``.

    A second optimizer of the same name gets ``-1`` appended, and so on; several parameter groups get ``/pg1``,
    ``/pg2``, or ``/<name>`` if the group has one. The values go to the loggers and to ``trainer.callback_metrics``.

    Args:
        logging_interval: log at training steps (``"step"``) or at the beginning of epochs (``"epoch"``). None: each
            scheduler by its own ``interval``, an optimizer without a scheduler at both.
        log_momentum: also log ``<key>-momentum`` (for Adam and its like the first beta).
        log_weight_decay: also log ``<key>-weight_decay``.

    Attributes:
        lrs: all learning rates logged so far, by key.
        last_momentum_values: the last momentum by key, None if it is not logged.
        last_weight_decay_values: the last weight decay by key, None if it is not logged.

    Raises:
        MisconfigurationException: ``logging_interval`` is not allowed; when training begins, if there is no logger.
    """

    def __init__(
        self,
        logging_interval: Literal["step", "epoch"] | None = None,
        log_momentum: bool = False,
        log_weight_decay: bool = False,
    ) -> None:
        if logging_interval not in (None, "step", "epoch"):
            raise MisconfigurationException(
                f"LearningRateMonitor(logging_interval={logging_interval!r}) is not known: write 'step', 'epoch', or "
                f"None for each scheduler's own interval."
            )
        self.logging_interval = logging_interval
        self.log_momentum = log_momentum
        self.log_weight_decay = log_weight_decay
        self._start_anew()

    def _start_anew(self) -> None:
        self.lrs: dict[str, list[float]] = {}
        self.last_momentum_values: dict[str, float | None] = {}
        self.last_weight_decay_values: dict[str, float | None] = {}

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if not trainer.loggers:
            raise MisconfigurationException(
                "LearningRateMonitor logs, but the trainer has no logger. Pass one, as in "
                "Trainer(logger=CSVLogger('.')), or leave the callback out."
            )
        without = [
            type(optimizer).__name__
            for optimizer in trainer.optimizers
            if not {"momentum", "betas"} & optimizer.param_groups[0].keys()
        ]
        if self.log_momentum and without:
            rank_zero_warn(
                f"LearningRateMonitor(log_momentum=True): {', '.join(without)} has no momentum, so 0 is logged for it."
            )
        self._start_anew()
        for watched in _watched(trainer):
            for key in _keys(watched):
                self.lrs[key] = []
                self.last_momentum_values[f"{key}-momentum"] = None
                self.last_weight_decay_values[f"{key}-weight_decay"] = None

    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int) -> None:
        if trainer.time_to_log and self.logging_interval != "epoch":
            self._log(trainer, "step")

    def on_train_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if self.logging_interval != "step":
            self._log(trainer, "epoch")

    def state_dict(self) -> dict[str, Any]:
        return {name: getattr(self, name) for name in _STATE}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Go on with the rates that the run before has logged."""
        for name in _STATE:
            setattr(self, name, deepcopy(state_dict[name]))

    def _log(self, trainer: Trainer, moment: str) -> None:
        values: dict[str, float] = {}
        for watched in _watched(trainer):
            if self.logging_interval is None and watched.interval not in (None, moment):
                continue
            for key, group in zip(_keys(watched), watched.optimizer.param_groups, strict=True):
                values.update(self._values_of(key, group))
        if not values:
            return
        for logger in trainer.loggers:
            logger.log_metrics(values, step=trainer.progress.batches_that_stepped)
        trainer.callback_metrics.update({key: torch.tensor(value) for key, value in values.items()})

    def _values_of(self, key: str, group: dict[str, Any]) -> dict[str, float]:
        """What is logged of one parameter group; remembers it."""
        alone = key.removesuffix("/pg1")
        if alone != key and alone in self.lrs:  # a second group was added: the first is now one of several
            self.lrs[key] = self.lrs.pop(alone)
        values = {key: _number(group["lr"])}
        self.lrs.setdefault(key, []).append(values[key])
        if self.log_momentum:
            momentum = _number(group["betas"][0] if "betas" in group else group.get("momentum", 0))
            values[f"{key}-momentum"] = self.last_momentum_values[f"{key}-momentum"] = momentum
        if self.log_weight_decay:
            decay = _number(group.get("weight_decay", 0))
            values[f"{key}-weight_decay"] = self.last_weight_decay_values[f"{key}-weight_decay"] = decay
        return values


def _number(value: Any) -> float:
    return value.item() if isinstance(value, Tensor) else value


def _keys(watched: _Watched) -> list[str]:
    """A key per parameter group: the name alone if there is one group."""
    groups = watched.optimizer.param_groups
    if len(groups) == 1:
        return [watched.name]
    names = [str(group.get("name", f"pg{number}")) for number, group in enumerate(groups, start=1)]
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise MisconfigurationException(
            f"LearningRateMonitor cannot tell the parameter groups of {watched.name!r} apart: the group names "
            f"{', '.join(map(repr, twice))} stand there more than once. Give each group a `name` of its own."
        )
    return [f"{watched.name}/{name}" for name in names]


def _watched(trainer: Trainer) -> list[_Watched]:
    """Every scheduler's optimizer, then the optimizers that have no scheduler, each with a name of its own."""
    found: list[tuple[str | None, Optimizer, str | None]] = [
        (config.name, config.scheduler.optimizer, "epoch" if "epoch" in str(config.interval) else "step")
        for config in trainer.lr_scheduler_configs
    ]
    scheduled = [id(optimizer) for _, optimizer, _ in found]
    found += [(None, optimizer, None) for optimizer in trainer.optimizers if id(optimizer) not in scheduled]
    watched: list[_Watched] = []
    counts: dict[str, int] = {}
    for given, optimizer, interval in found:
        name = given or f"lr-{type(optimizer).__name__}"
        number = counts[name] = counts.get(name, -1) + 1
        watched.append(_Watched(f"{name}-{number}" if number else name, optimizer, interval))
    return watched
