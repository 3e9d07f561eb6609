"""LearningRateMonitor: which values go to the loggers, at which steps, under which names."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn
from torch.optim import SGD, Adagrad, Adam
from torch.optim.lr_scheduler import StepLR

from fulmen import Trainer
from fulmen.callbacks.lr_monitor import LearningRateMonitor
from fulmen.demos.boring_classes import BoringModel
from fulmen.loggers.csv_logs import CSVLogger
from fulmen.utilities.exceptions import MisconfigurationException


class Rows(CSVLogger):
    """Remembers what it is given."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        self.rows: list[tuple[int | None, dict[str, float]]] = []

    def log_metrics(self, metrics: Any, step: int | None = None) -> None:
        self.rows.append((step, dict(metrics)))


class Two(BoringModel):
    """A module of two layers with the given optimizers."""

    def __init__(self, configure: Callable[[Any], Any], automatic: bool = True) -> None:
        super().__init__()
        self.second = nn.Linear(2, 2)
        self.configure = configure
        self.automatic_optimization = automatic

    def configure_optimizers(self) -> Any:
        return self.configure(self)

    def training_step(self, batch: Any, batch_idx: int) -> Any:
        if self.automatic_optimization:
            return super().training_step(batch, batch_idx)
        return None


@pytest.fixture
def run(tmp_path: Path) -> Callable[..., Any]:
    """Train two epochs of three batches; returns what was logged."""

    def run(monitor: LearningRateMonitor, configure: Any, automatic: bool = True, every: int = 1, **more: Any) -> Any:
        logger = Rows(tmp_path)
        trainer = Trainer(
            accelerator="cpu",
            max_epochs=2,
            limit_train_batches=3,
            limit_val_batches=0,
            log_every_n_steps=every,
            enable_progress_bar=False,
            enable_model_summary=False,
            enable_checkpointing=False,
            callbacks=[monitor],
            **{"logger": logger, **more},
        )
        trainer.fit(Two(configure, automatic))
        return logger.rows, trainer

    return run


def _decaying(interval: str) -> Callable[[Any], Any]:
    def configure(module: Any) -> Any:
        optimizer = SGD(module.parameters(), lr=1.0, momentum=0.9, weight_decay=0.5)
        return [optimizer], [{"scheduler": StepLR(optimizer, 1, gamma=0.5), "interval": interval}]

    return configure


def _plain(module: Any) -> Any:
    return SGD(module.parameters(), lr=1.0)


def test_scheduler_per_step_is_logged_at_every_step(run):
    rows, _ = run(LearningRateMonitor(), _decaying("step"))

    assert rows == [(step, {"lr-SGD": 0.5**step}) for step in range(6)]


def test_scheduler_per_epoch_is_logged_when_epochs_begin(run):
    rows, _ = run(LearningRateMonitor(), _decaying("epoch"))

    assert rows == [(0, {"lr-SGD": 1.0}), (3, {"lr-SGD": 0.5})]


def test_interval_of_the_monitor_comes_before_that_of_the_scheduler(run):
    by_epoch, _ = run(LearningRateMonitor("epoch"), _decaying("step"))
    by_step, _ = run(LearningRateMonitor("step"), _decaying("epoch"))

    assert by_epoch == [(0, {"lr-SGD": 1.0}), (3, {"lr-SGD": 0.125})]
    assert by_step == [(step, {"lr-SGD": 1.0 if step < 3 else 0.5}) for step in range(6)]


def test_optimizer_without_scheduler_is_logged_at_both(run):
    rows, _ = run(LearningRateMonitor(), _plain)

    assert [step for step, _ in rows] == [0, 0, 1, 2, 3, 3, 4, 5]


def test_steps_at_which_nothing_is_logged_are_left_out(run):
    rows, _ = run(LearningRateMonitor("step"), _plain, every=2)

    assert [step for step, _ in rows] == [0, 1, 3, 5]  # the first and the last step are always logged


def test_momentum_and_weight_decay_are_logged_when_asked(run):
    monitor = LearningRateMonitor("epoch", log_momentum=True, log_weight_decay=True)
    rows, _ = run(monitor, _decaying("epoch"))

    assert rows[1] == (3, {"lr-SGD": 0.5, "lr-SGD-momentum": 0.9, "lr-SGD-weight_decay": 0.5})
    assert monitor.lrs == {"lr-SGD": [1.0, 0.5]}
    assert monitor.last_momentum_values == {"lr-SGD-momentum": 0.9}
    assert monitor.last_weight_decay_values == {"lr-SGD-weight_decay": 0.5}


def test_optimizer_without_momentum_is_logged_as_zero_with_a_warning(run):
    with pytest.warns(UserWarning, match="Adagrad has no momentum"):
        rows, _ = run(LearningRateMonitor("epoch", log_momentum=True), lambda module: Adagrad(module.parameters()))

    assert rows[0] == (0, {"lr-Adagrad": 0.01, "lr-Adagrad-momentum": 0})


def test_several_optimizers_and_groups_get_names_of_their_own(run):
    def configure(module: Any) -> Any:
        first, second = Adam(module.layer.parameters(), lr=1.0), Adam(module.second.parameters(), lr=2.0)
        third = SGD([{"params": [module.second.weight]}, {"params": [module.second.bias], "name": "bias"}], lr=3.0)
        fourth = SGD([{"params": [module.second.weight]}, {"params": [module.second.bias]}], lr=4.0)
        return [first, second, third, fourth], [StepLR(first, 9), {"scheduler": StepLR(second, 9), "name": "mine"}]

    monitor = LearningRateMonitor("epoch", log_momentum=True)
    rows, _ = run(monitor, configure, automatic=False)
    learning_rates = {key: value for key, value in rows[0][1].items() if not key.endswith("momentum")}

    assert learning_rates == {
        "lr-Adam": 1.0,
        "mine": 2.0,
        "lr-SGD/pg1": 3.0,
        "lr-SGD/bias": 3.0,
        "lr-SGD-1/pg1": 4.0,
        "lr-SGD-1/pg2": 4.0,
    }
    assert rows[0][1]["mine-momentum"] == 0.9  # Adam's first beta


def test_two_schedulers_of_one_name_do_not_hide_each_other(run):
    def configure(module: Any) -> Any:
        optimizers = [Adam(module.layer.parameters(), lr=1.0), Adam(module.second.parameters(), lr=2.0)]
        return optimizers, [{"scheduler": StepLR(optimizer, 9), "name": "mine"} for optimizer in optimizers]

    rows, _ = run(LearningRateMonitor("epoch"), configure, automatic=False)

    assert rows[0] == (0, {"mine": 1.0, "mine-1": 2.0})


def test_group_that_is_added_while_training_is_logged_from_then_on(run):
    class Grows(LearningRateMonitor):
        def on_train_epoch_end(self, trainer: Any, pl_module: Any) -> None:
            if trainer.current_epoch == 0:
                trainer.optimizers[0].add_param_group({"params": [pl_module.second.weight], "lr": 2.0})

    monitor = Grows("epoch")
    rows, _ = run(monitor, lambda module: SGD(module.layer.parameters(), lr=1.0))

    assert rows == [(0, {"lr-SGD": 1.0}), (3, {"lr-SGD/pg1": 1.0, "lr-SGD/pg2": 2.0})]
    assert monitor.lrs == {"lr-SGD/pg1": [1.0, 1.0], "lr-SGD/pg2": [2.0]}


def test_learning_rate_can_be_monitored(run):
    _, trainer = run(LearningRateMonitor(), _decaying("epoch"))

    assert trainer.callback_metrics["lr-SGD"] == torch.tensor(0.5)


def test_groups_of_one_name_are_refused(run):
    def configure(module: Any) -> Any:
        groups = [{"params": [parameter], "name": "same"} for parameter in module.second.parameters()]
        return SGD(groups, lr=1.0)

    with pytest.raises(MisconfigurationException, match="'same'"):
        run(LearningRateMonitor(), configure)


def test_trainer_without_logger_is_refused(run):
    with pytest.raises(MisconfigurationException, match="no logger"):
        run(LearningRateMonitor(), _plain, logger=False)


def test_interval_that_is_not_known_is_named():
    with pytest.raises(MisconfigurationException, match="logging_interval='batch'"):
        LearningRateMonitor("batch")  # type: ignore[arg-type]
