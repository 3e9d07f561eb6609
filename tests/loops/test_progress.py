"""The clock by itself: windows, limits, and what it remembers."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fulmen.loops.progress import Limits, Progress, ValidationRhythm


def epoch(progress: Progress, batches: int):
    """Run an epoch; gives the clock after the start of each batch."""
    progress.start_epoch(batches)
    for index in range(batches):
        progress.start_batch(index, index + 1 == batches)
        yield index
        progress.finish_batch()
        progress.count_logger_step()
    progress.close_epoch()
    progress.finish_epoch()


@given(batches=st.integers(1, 20), accumulate=st.integers(1, 8), epochs=st.integers(1, 3))
def test_windows_cover_each_epoch_and_know_their_size(batches, accumulate, epochs):
    progress = Progress(accumulate_grad_batches=accumulate)
    for _ in range(epochs):
        windows: list[list[int]] = []
        for index in epoch(progress, batches):
            if progress.starts_accumulation:
                windows.append([])
            windows[-1].append(index)
            assert progress.accumulating == (len(windows[-1]) < progress.window)
        assert [index for window in windows for index in window] == list(range(batches))
        assert [len(window) for window in windows[:-1]] == [accumulate] * (len(windows) - 1)

    assert progress.step == epochs * math.ceil(batches / accumulate)
    assert progress.batches_that_stepped == progress.step
    assert (progress.epoch, progress.total_batches) == (epochs, epochs * batches)


@given(
    limits=st.builds(
        Limits,
        max_epochs=st.integers(-1, 4),
        max_steps=st.integers(-1, 9),
        min_epochs=st.integers(0, 4),
        min_steps=st.integers(0, 9),
    ),
    epochs=st.integers(0, 5),
    steps=st.integers(0, 10),
    should_stop=st.booleans(),
)
def test_done_is_a_limit_reached_or_a_stop_that_is_allowed(limits, epochs, steps, should_stop):
    progress = Progress(limits=limits, epoch=epochs, step=steps, should_stop=should_stop)

    over = (limits.max_epochs != -1 and epochs >= limits.max_epochs) or (
        limits.max_steps != -1 and steps >= limits.max_steps
    )
    allowed = epochs >= limits.min_epochs and steps >= limits.min_steps
    assert progress.done == (over or (should_stop and allowed))


@given(every=st.integers(0, 7), batches=st.integers(1, 12), accumulate=st.integers(1, 4), epochs=st.integers(1, 3))
def test_time_to_log_is_every_so_many_steps_and_the_first_and_the_last(every, batches, accumulate, epochs):
    progress = Progress(limits=Limits(max_epochs=epochs), accumulate_grad_batches=accumulate, log_every_n_steps=every)
    due = []
    for _ in range(epochs):
        for _ in epoch(progress, batches):
            if progress.time_to_log:
                assert not progress.accumulating
                due.append(progress.batches_that_stepped)

    steps = progress.step
    expected = {step for step in range(steps) if (step + 1) % every == 0} | {0, steps - 1} if every else set()
    assert due == sorted(expected)


@pytest.mark.parametrize("stop", range(7))
def test_state_restored_at_any_batch_goes_on_at_the_next(stop):
    whole, first, second = (Progress(accumulate_grad_batches=2) for _ in range(3))
    for _ in range(2):
        for _ in epoch(whole, 5):
            pass
    done = 0
    for _ in range(2):
        for _ in epoch(first, 5):
            done += 1
            if done > stop:
                break
        if done > stop:
            break
    second.load_state_dict(first.state_dict())

    while second.epoch < 2:
        second.start_epoch(5)
        for index in range(second.batches_done, 5):
            second.start_batch(index, index == 4)
            second.finish_batch()
            second.count_logger_step()
        second.close_epoch()
        second.finish_epoch()

    assert second.state_dict() == whole.state_dict()


def test_state_within_a_batch_says_that_it_is_open():
    progress, restored = Progress(), Progress()
    progress.start_epoch(2)
    progress.start_batch(0, False)
    progress.finish_batch()

    restored.load_state_dict(progress.state_dict())
    assert restored.batch_is_open
    restored.count_logger_step()
    assert restored.batches_that_stepped == 1


def test_state_of_a_closed_epoch_is_that_of_the_next():
    progress = Progress()
    for _ in epoch(progress, 2):
        pass
    progress.start_epoch(2)
    progress.close_epoch()

    assert progress.epoch == 1
    assert progress.state_dict()["epoch"] == 2
    assert not progress.state_dict()["in_epoch"]


def test_validation_is_not_due_in_epochs_that_are_left_out():
    progress = Progress(validation=ValidationRhythm(enabled=True, every_n_epochs=2, every_n_batches=2))
    due = []
    for _ in range(4):
        for _ in epoch(progress, 2):
            pass
        due.append(progress.interval_is_over)

    assert due == [False, True, False, True]


def test_window_that_is_begun_anew_has_no_batch_open():
    progress = Progress(accumulate_grad_batches=3, batches_done=5, total_batches=15, in_epoch=True, batch_is_open=True)
    progress.reopen_window()

    assert (progress.batches_done, progress.total_batches, progress.batch_is_open) == (3, 13, False)
