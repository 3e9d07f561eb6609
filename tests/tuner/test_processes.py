"""Searches in two real processes."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from tests.distributed.processes import run
from tests.tuner.toys import Squares, points

from fulmen import Trainer
from fulmen.callbacks import BatchSizeFinder, LearningRateFinder
from fulmen.tuner import Tuner
from fulmen.utilities.exceptions import MisconfigurationException

QUIET = {"logger": False, "enable_checkpointing": False, "enable_progress_bar": False, "enable_model_summary": False}
SEARCH = {"min_lr": 1e-3, "max_lr": 0.5, "early_stop_threshold": None}


def searched(form: str, size: int) -> Any:
    """The curve and what the fit after it has made, on one process of two."""
    finder = LearningRateFinder(num_training_steps=20, **SEARCH)
    callbacks = [finder] if form == "callback" else []
    trainer = Trainer(accelerator="cpu", devices=2, strategy="ddp", max_epochs=2, callbacks=callbacks, **QUIET)
    model = Squares()
    found = None
    if form == "method":
        found = Tuner(trainer).lr_find(model, points(size), num_training=20, **SEARCH)
        assert float(model.weight) == 3.0
    trainer.fit(model, points(size))
    found = found or finder.optimal_lr
    assert found is not None
    return found.results, found.losses, found.suggestion(), model.lr, float(model.weight)


def fitted(lr: float, size: int) -> float:
    trainer = Trainer(accelerator="cpu", devices=2, strategy="ddp", max_epochs=2, **QUIET)
    model = Squares(lr)
    trainer.fit(model, points(size))
    return float(model.weight)


def both(form: str, size: int) -> Any:
    result = searched(form, size)
    return result, fitted(result[3], size)


@pytest.mark.parametrize("form", ["method", "callback"])
def test_processes_share_the_curve_the_rate_and_the_fit(form):
    (first, weight), (second, _) = run(2, both, form, 8)
    assert first == second
    results, losses, rate, lr, made = first
    assert lr == rate
    assert made == weight
    # by hand: of 4 batches each process has every other one, and the gradient is the mean
    batches, value, by_hand = list(points(8)), torch.tensor(3.0), []
    for step, one in enumerate(results["lr"]):
        batch = torch.cat(batches[2 * (step % 2) :][:2])
        by_hand.append(float((value * batch).square().mean()))
        value = value - one * (2 * value * batch.square()).mean()
    assert losses == pytest.approx(by_hand, rel=1e-5)


def test_data_that_does_not_divide_gives_one_curve():
    (first, weight), (second, _) = run(2, both, "method", 6)
    assert first == second
    assert len(first[1]) == 20
    assert first[4] == weight


def sizes() -> list[str]:
    messages = []
    trainer = Trainer(accelerator="cpu", devices=2, strategy="ddp", max_epochs=1, **QUIET)
    try:
        Tuner(trainer).scale_batch_size(Squares())
    except ValueError as error:
        messages.append(str(error))
    return messages


def size_in_fit() -> None:
    trainer = Trainer(accelerator="cpu", devices=2, strategy="ddp", max_epochs=1, callbacks=BatchSizeFinder(), **QUIET)
    with pytest.raises((MisconfigurationException, SystemExit)):
        trainer.fit(Squares(), points())


def test_batch_size_is_refused_with_several_processes():
    for [message] in run(2, sizes):
        assert "cannot be searched with 2 processes" in message
        assert "devices=1" in message
    run(2, size_in_fit)
