"""GradientAccumulationScheduler: how many batches make a step, epoch by epoch."""

from __future__ import annotations

from typing import Any

import pytest

from fulmen import Trainer
from fulmen.callbacks.callback import Callback
from fulmen.callbacks.gradient_accumulation_scheduler import GradientAccumulationScheduler
from fulmen.demos.boring_classes import BoringModel
from fulmen.utilities.exceptions import MisconfigurationException
from fulmen.utilities.warnings import PossibleUserWarning


def _trainer(*callbacks: Any, **arguments: Any) -> Trainer:
    options: dict[str, Any] = {
        "accelerator": "cpu",
        "max_epochs": 4,
        "limit_train_batches": 6,
        "limit_val_batches": 0,
        "logger": False,
        "enable_progress_bar": False,
        "enable_model_summary": False,
        "enable_checkpointing": False,
        **arguments,
    }
    return Trainer(callbacks=list(callbacks), **options)


class StepsPerEpoch(Callback):
    def __init__(self) -> None:
        self.steps: list[int] = []

    def on_train_epoch_end(self, trainer: Any, pl_module: Any) -> None:
        self.steps.append(trainer.global_step - sum(self.steps))


def test_schedule_changes_the_steps_of_each_epoch():
    steps = StepsPerEpoch()
    _trainer(GradientAccumulationScheduler({1: 2, 3: 4}), steps).fit(BoringModel())

    assert steps.steps == [6, 3, 3, 2]


def test_schedule_is_lifted_when_training_is_over():
    trainer = _trainer(GradientAccumulationScheduler({0: 3}), max_epochs=1)
    trainer.fit(BoringModel())

    assert trainer.global_step == 2
    assert trainer.accumulate_grad_batches == 1


def test_schedule_answers_for_every_epoch():
    schedule = GradientAccumulationScheduler({4: 2, 2: 3})

    assert [schedule.get_accumulate_grad_batches(epoch) for epoch in range(6)] == [1, 1, 3, 3, 2, 2]
    assert schedule.going_to_accumulate_grad_batches()
    assert not GradientAccumulationScheduler({3: 1}).going_to_accumulate_grad_batches()


@pytest.mark.parametrize(
    ("scheduling", "error", "named"),
    [
        ({}, TypeError, "nothing to schedule"),
        ({1: 0}, MisconfigurationException, "0 batches per step in epoch 1"),
        ({2: 1.5}, MisconfigurationException, "1.5 batches per step in epoch 2"),
        ({-1: 2}, MisconfigurationException, "the epoch -1"),
        ({"a": 1}, MisconfigurationException, "the epoch 'a'"),
    ],
)
def test_schedule_that_cannot_be_is_named(scheduling, error, named):
    with pytest.raises(error, match=named):
        GradientAccumulationScheduler(scheduling)


def test_trainer_with_a_number_of_its_own_is_refused():
    with pytest.raises(ValueError, match=r"accumulate_grad_batches=2"):
        _trainer(GradientAccumulationScheduler({1: 2}), accumulate_grad_batches=2).fit(BoringModel())


def test_manual_optimization_is_refused():
    model = BoringModel()
    model.automatic_optimization = False

    with pytest.raises(RuntimeError, match="manual optimization"):
        _trainer(GradientAccumulationScheduler({1: 2})).fit(model)


def test_module_with_its_own_step_is_told_that_it_is_called_less_often():
    class Own(BoringModel):
        def optimizer_zero_grad(self, epoch: int, batch_idx: int, optimizer: Any) -> None:
            optimizer.zero_grad()

    with pytest.warns(PossibleUserWarning, match="`optimizer_zero_grad` of Own"):
        _trainer(GradientAccumulationScheduler({1: 2})).fit(Own())
