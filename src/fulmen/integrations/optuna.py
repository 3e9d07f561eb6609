"""Optuna: a trial hears how a run goes, and may end it."""

from __future__ import annotations

import math
import warnings
from typing import TYPE_CHECKING, Any

from fulmen.callbacks.callback import Callback
from fulmen.callbacks.moments import validates_at_epoch_end
from fulmen.utilities.exceptions import MisconfigurationException
from fulmen.utilities.imports import package_available

if TYPE_CHECKING:
    from fulmen.core.module import LightningModule
    from fulmen.trainer.trainer import Trainer


def require_optuna(purpose: str) -> None:
    """Do nothing if Optuna is installed.

    Raises:
        ModuleNotFoundError: it is not; the message says that ``purpose`` needs it, and how to install it.
    """
    if not package_available("optuna"):
        raise ModuleNotFoundError(
            f"{purpose} needs Optuna, which is not installed. Run `pip install 'fulmen[search]'`."
        )


class MissingMonitor(MisconfigurationException):
    """The metric that a search looks at was never logged."""


class PruningCallback(Callback):
    """Reports ``monitor`` to an Optuna trial, once per epoch, and ends the run if the study's pruner says so.

    It reports at the end of each epoch or, where validations come more rarely, of each validation; the step is the
    index of the epoch. If validations do not belong to epochs (several per epoch, or by steps or time), it reports
    after each of them, and the step is ``trainer.global_step``. A value that was reported before the run was
    interrupted and continued stays as it was.

    Of several processes, rank 0 reports and decides, and all of them end alike: each raises ``optuna.TrialPruned`` from
    ``trainer.fit``. The others need no trial.

    Args:
        trial: the ``optuna.trial.Trial``; None on other processes than rank 0.
        monitor: name of a logged metric.

    Attributes:
        values: what was reported, by step; empty on other processes than rank 0.

    Raises:
        ModuleNotFoundError: Optuna is not installed.
        MissingMonitor: while training, if ``monitor`` was not logged; a :class:`MisconfigurationException`.
        optuna.TrialPruned: while training, to end the run.

    Example::

        def objective(trial):
            model = Model(lr=trial.suggest_float("lr", 1e-5, 1e-1, log=True))
            trainer = Trainer(max_epochs=10, callbacks=[PruningCallback(trial, monitor="val_acc")])
            trainer.fit(model)
            return trainer.callback_metrics["val_acc"].item()

        optuna.create_study(direction="maximize").optimize(objective, n_trials=20)
    """

    #: called when the others have logged and stepped, at the end of an epoch
    watches_metrics = True

    def __init__(self, trial: Any, monitor: str) -> None:
        require_optuna("PruningCallback")
        self.trial = trial
        self.monitor = monitor
        self.values: dict[int, float] = {}

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if validates_at_epoch_end(trainer):
            self._report(trainer, trainer.current_epoch)

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if trainer.state.fn != "fit" or trainer.sanity_checking or validates_at_epoch_end(trainer):
            return
        once_per_epoch = trainer.check_val_every_n_epoch is not None and trainer.val_check_interval == 1.0
        self._report(trainer, trainer.current_epoch if once_per_epoch else trainer.global_step)

    def _report(self, trainer: Trainer, step: int) -> None:
        if trainer.fast_dev_run:
            return
        metrics = trainer.callback_metrics
        if self.monitor not in metrics:
            raise MissingMonitor(
                f"PruningCallback(monitor={self.monitor!r}) found no metric of that name. There are: "
                f"{', '.join(map(repr, sorted(metrics))) or 'none'}. Log it with `self.log({self.monitor!r}, value)`, "
                "or monitor another."
            )
        prunes = False
        if trainer.is_global_zero:
            self.values[step] = float(metrics[self.monitor])
            with warnings.catch_warnings():
                warnings.filterwarnings("ignore", message="The reported value is ignored")  # of a run that goes on
                self.trial.report(self.values[step], step)
            prunes = not math.isnan(self.values[step]) and self.trial.should_prune()
        if trainer.strategy.broadcast(prunes):
            import optuna

            raise optuna.TrialPruned(f"pruned at step {step} of the trial, by {self.monitor}")
