"""Stop training when a metric no longer improves."""

from __future__ import annotations

from collections.abc import Callable
from enum import Enum
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from fulmen.callbacks.callback import Callback
from fulmen.callbacks.moments import Memory, validates_at_epoch_end
from fulmen.utilities.exceptions import MisconfigurationException
from fulmen.utilities.rank_zero import rank_zero_info, rank_zero_warn

if TYPE_CHECKING:
    from fulmen.core.module import LightningModule
    from fulmen.trainer.trainer import Trainer


class EarlyStoppingReason(Enum):
    """Why :class:`EarlyStopping` ended a training."""

    NOT_STOPPED = 0
    STOPPING_THRESHOLD = 1
    DIVERGENCE_THRESHOLD = 2
    PATIENCE_EXHAUSTED = 3
    NON_FINITE_METRIC = 4


#: beside the patience, what decides whether a value stops the training
_LIMITS = ("min_delta", "check_finite", "stopping_threshold", "divergence_threshold")


class EarlyStopping(Callback):
    """Stops training when ``monitor`` no longer improves.

    Args:
        monitor: name of a logged metric.
        min_delta: an improvement counts only if it is greater than this.
        patience: stop at the so-manieth check in a row without an improvement; 0 stops like 1, at the first.
        verbose: say when the metric improves, and why training was stopped.
        mode: ``"min"`` if a lower metric is better, ``"max"`` if a higher one is.
        strict: a missing metric is an error; if False, the check is left out.
        check_finite: stop when the metric is NaN or infinite.
        stopping_threshold: stop as soon as the metric is better than this. None: no such limit.
        divergence_threshold: stop as soon as the metric is worse than this. None: no such limit.
        check_on_train_epoch_end: check at the end of each training epoch (True) or of each validation (False). None: of
            each validation, unless one belongs to the end of every epoch or there is none.
        log_rank_zero_only: let only rank 0 say why, and not each rank that wants to stop.

    Attributes:
        best_score: the best value so far.
        wait_count: checks since the last improvement.
        stopped_epoch: index of the epoch in which training was stopped, or 0.
        stopping_reason: an :class:`EarlyStoppingReason`.
        stopping_reason_message: the reason as a sentence, or None.

    Raises:
        MisconfigurationException: ``mode`` is neither ``"min"`` nor ``"max"``.
        RuntimeError: while training, if ``monitor`` was not logged and ``strict`` is True.

    Example::

        Trainer(callbacks=[EarlyStopping(monitor="val_loss", patience=5)])
    """

    mode_dict: dict[str, Callable[..., Tensor]] = {"min": torch.lt, "max": torch.gt}
    order_dict = {"min": "<", "max": ">"}

    def __init__(
        self,
        monitor: str,
        min_delta: float = 0.0,
        patience: int = 3,
        verbose: bool = False,
        mode: str = "min",
        strict: bool = True,
        check_finite: bool = True,
        stopping_threshold: float | None = None,
        divergence_threshold: float | None = None,
        check_on_train_epoch_end: bool | None = None,
        log_rank_zero_only: bool = False,
    ) -> None:
        super().__init__()  # of another class that a user may have put behind this one
        if mode not in self.mode_dict:
            raise MisconfigurationException(
                f"EarlyStopping(mode={mode!r}) says which value is better: write 'min' (lower) or 'max' (higher)."
            )
        self.monitor = monitor
        self.min_delta = min_delta if mode == "max" else -min_delta  # as derived classes know it
        self.patience = patience
        self.verbose = verbose
        self.mode = mode
        self.strict = strict
        self.check_finite = check_finite
        self.stopping_threshold = stopping_threshold
        self.divergence_threshold = divergence_threshold
        self.check_on_train_epoch_end = check_on_train_epoch_end
        self.log_rank_zero_only = log_rank_zero_only
        self._memory = Memory()
        self._found = EarlyStoppingReason.NOT_STOPPED  #: by the check that runs
        self._forget()

    def _forget(self) -> None:
        self.best_score = torch.tensor(float("inf" if self.mode == "min" else "-inf"))
        self.wait_count = 0
        self.stopped_epoch = 0
        self.stopping_reason = EarlyStoppingReason.NOT_STOPPED
        self.stopping_reason_message: str | None = None

    @property
    def state_key(self) -> str:
        return self._generate_state_key(monitor=self.monitor, mode=self.mode)

    @property
    def monitor_op(self) -> Callable[..., Tensor]:
        """``monitor_op(a, b)``: whether a is better than b."""
        return self.mode_dict[self.mode]

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        self._memory.set_up()

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if self._memory.is_restored and self.stopping_reason is not EarlyStoppingReason.NOT_STOPPED:
            trainer.should_stop = True  # as in the run that goes on here

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if self._memory.is_of_another(trainer):
            self._forget()
        self._memory.has_trained = True

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if self._checks_at_train_epoch_end(trainer):
            self._check(trainer)

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if not self._checks_at_train_epoch_end(trainer):
            self._check(trainer)

    def _checks_at_train_epoch_end(self, trainer: Trainer) -> bool:
        if self.check_on_train_epoch_end is not None:
            return self.check_on_train_epoch_end
        return validates_at_epoch_end(trainer)

    def _check(self, trainer: Trainer) -> None:
        if trainer.state.fn != "fit" or trainer.sanity_checking or trainer.fast_dev_run:
            return
        metrics = trainer.callback_metrics
        if self.monitor not in metrics:
            self._monitor_is_missing(list(metrics))
            return
        self._found = EarlyStoppingReason.NOT_STOPPED
        stops, message = self._evaluate_stopping_criteria(metrics[self.monitor].detach().squeeze())
        reason = self._found
        if stops and reason is EarlyStoppingReason.NOT_STOPPED:  # a class of a program's own has said so
            reason = EarlyStoppingReason.PATIENCE_EXHAUSTED
        if trainer.strategy.reduce_boolean_decision(stops, all=False):
            trainer.should_stop = True
            self.stopped_epoch = trainer.current_epoch
        if stops:
            self.stopping_reason, self.stopping_reason_message = reason, message
        if reason is EarlyStoppingReason.NON_FINITE_METRIC:
            rank_zero_warn(
                f"EarlyStopping(monitor={self.monitor!r}) stops the training: {message} "
                "Write `check_finite=False` to go on nevertheless."
            )
        elif message and self.verbose and (trainer.is_global_zero or not self.log_rank_zero_only):
            rank_zero_info("%s%s", f"[rank {trainer.global_rank}] " if trainer.world_size > 1 else "", message)

    def _evaluate_stopping_criteria(self, current: Tensor) -> tuple[bool, str | None]:
        """Whether to stop at the value ``current``, and the reason in words (or what improved); counts the patience.
        A class that is derived from this one may decide otherwise.
        """
        self._found, message = self._judge(current)
        return self._found is not EarlyStoppingReason.NOT_STOPPED, message or None

    def _judge(self, current: Tensor) -> tuple[EarlyStoppingReason, str]:
        better, value = self.monitor_op, f"{self.monitor} = {current.item():.5g}"
        if self.check_finite and not torch.isfinite(current):
            return EarlyStoppingReason.NON_FINITE_METRIC, f"{value} is not finite. Best: {self.best_score:.5g}."
        if self.stopping_threshold is not None and better(current, self.stopping_threshold):
            return (
                EarlyStoppingReason.STOPPING_THRESHOLD,
                f"{value} {self.order_dict[self.mode]} {self.stopping_threshold}, the threshold to reach.",
            )
        if self.divergence_threshold is not None and better(-current, -self.divergence_threshold):
            return (
                EarlyStoppingReason.DIVERGENCE_THRESHOLD,
                f"{value} is worse than {self.divergence_threshold}, the limit to keep.",
            )
        best = self.best_score.to(current.device)
        if better(current - self.min_delta, best):
            message = self._improvement_message(current)
            self.best_score, self.wait_count = current.clone(), 0
            return EarlyStoppingReason.NOT_STOPPED, message
        self.wait_count += 1
        if self.wait_count < self.patience:
            return EarlyStoppingReason.NOT_STOPPED, ""
        return (
            EarlyStoppingReason.PATIENCE_EXHAUSTED,
            f"{self.monitor} did not improve in {self.wait_count} checks. Best: {self.best_score:.5g}.",
        )

    def _improvement_message(self, current: Tensor) -> str:
        """That ``current`` is better than the best so far, in words."""
        before = f" (before: {self.best_score:.5g})." if torch.isfinite(self.best_score) else "."
        return f"{self.monitor} = {current.item():.5g} is the best so far{before}"

    @property
    def _check_on_train_epoch_end(self) -> bool | None:
        return self.check_on_train_epoch_end

    @_check_on_train_epoch_end.setter
    def _check_on_train_epoch_end(self, at_train_epoch_end: bool | None) -> None:
        self.check_on_train_epoch_end = at_train_epoch_end

    def _monitor_is_missing(self, names: list[str]) -> None:
        message = (
            f"EarlyStopping(monitor={self.monitor!r}) found no metric of that name. There are: "
            f"{', '.join(map(repr, sorted(names))) or 'none'}. Log it with `self.log({self.monitor!r}, value)`, or "
            f"monitor another."
        )
        if self.strict:
            raise RuntimeError(message)
        if self.verbose:
            rank_zero_warn(message, category=RuntimeWarning)

    def state_dict(self) -> dict[str, Any]:
        return {
            "wait_count": self.wait_count,
            "stopped_epoch": self.stopped_epoch,
            "best_score": self.best_score,
            "patience": self.patience,
            "stopping_reason": self.stopping_reason.value,
            "stopping_reason_message": self.stopping_reason_message,
            **self._limits(),
        }

    def _limits(self) -> dict[str, Any]:
        as_given = self.min_delta if self.mode == "max" else -self.min_delta
        return {**{name: getattr(self, name) for name in _LIMITS}, "min_delta": as_given}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Go on counting where an earlier run stopped; the patience is this callback's own, not the saved one.

        A run that this callback has ended stays so unless the patience or another limit is changed.
        """
        self.wait_count = int(state_dict["wait_count"])
        self.stopped_epoch = int(state_dict.get("stopped_epoch", 0))  # some keys are not in files of long ago
        self.best_score = torch.as_tensor(state_dict.get("best_score", self.best_score))
        self.stopping_reason = EarlyStoppingReason(state_dict.get("stopping_reason", 0))
        self.stopping_reason_message = state_dict.get("stopping_reason_message")
        now = {"patience": self.patience, **self._limits()}
        if any(state_dict.get(name, value) != value for name, value in now.items()):
            self.stopping_reason, self.stopping_reason_message = EarlyStoppingReason.NOT_STOPPED, None
        self._memory.restore()
