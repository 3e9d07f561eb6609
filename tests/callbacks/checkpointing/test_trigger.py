"""When to save."""

from __future__ import annotations

from datetime import timedelta

import pytest

from fulmen.callbacks.checkpointing.trigger import Position, Trigger
from fulmen.utilities.exceptions import MisconfigurationException


def _fires(trigger: Trigger, steps: list[int]) -> list[int]:
    """The steps at which ``trigger`` asks for a save, when the batches end at ``steps``."""
    trigger.start(Position(0, 0, 0))
    return [step for batch, step in enumerate(steps, start=1) if trigger.after_batch(Position(0, batch, step))]


def test_trigger_without_arguments_saves_every_epoch():
    trigger = Trigger.from_arguments(None, None, None)

    assert [trigger.after_epoch(epoch) for epoch in range(3)] == [True, True, True]
    assert not trigger.looks_after_batches


def test_trigger_every_n_epochs_counts_from_the_first_epoch():
    trigger = Trigger.from_arguments(None, 2, None)

    assert [epoch for epoch in range(6) if trigger.after_epoch(epoch)] == [1, 3, 5]


def test_trigger_every_n_steps_switches_the_epochs_off():
    trigger = Trigger.from_arguments(2, None, None)

    assert _fires(trigger, [1, 2, 3, 4, 5]) == [2, 4]
    assert not trigger.after_epoch(0)


def test_trigger_when_a_batch_makes_several_steps_misses_no_multiple():
    trigger = Trigger.from_arguments(3, None, None)

    assert _fires(trigger, [2, 4, 6, 8, 10]) == [4, 6, 10]


def test_trigger_when_a_batch_makes_no_step_does_not_fire_again():
    trigger = Trigger.from_arguments(2, None, None)

    assert _fires(trigger, [1, 2, 2, 2, 3]) == [2]


def test_trigger_of_a_resumed_run_does_not_save_what_it_began_with():
    trigger = Trigger.from_arguments(5, None, None)
    trigger.start(Position(1, 10, 10))

    assert not trigger.after_batch(Position(1, 11, 10))
    assert trigger.after_batch(Position(1, 12, 15))


def test_trigger_zero_steps_never_saves():
    trigger = Trigger.from_arguments(0, None, None)

    assert not trigger.looks_after_batches
    assert not trigger.after_epoch(0)


@pytest.mark.parametrize("interval", ["30min", timedelta(minutes=30), {"minutes": 30}, "00:00:30:00"])
def test_trigger_by_time_fires_once_per_interval(interval):
    trigger = Trigger.from_arguments(None, None, interval)
    trigger.start(Position(0, 0, 0))
    begin = trigger._time_of_last
    fired = [
        minutes for minutes in range(0, 100, 10) if trigger.after_batch(Position(0, 0, 0), now=begin + 60 * minutes)
    ]

    assert fired == [30, 60, 90]


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        ((-1, None, None), "every_n_train_steps=-1"),
        ((None, -1, None), "every_n_epochs=-1"),
        ((None, 0.5, None), "every_n_epochs=0.5"),
        ((1, 1, None), "every_n_train_steps=1, every_n_epochs=1"),
        ((None, 2, "1h"), "train_time_interval='1h'"),
        ((None, None, "soon"), "soon"),
    ],
)
def test_trigger_with_arguments_that_cannot_be_names_them(arguments, named):
    with pytest.raises(MisconfigurationException, match=named):
        Trigger.from_arguments(*arguments)
