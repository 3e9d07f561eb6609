"""The clock in the form of Lightning's own loops, so that each of the two goes on from the other's files.

Lightning counts *ready* (fetched), *started* (the hooks that open it were called), *processed* (the work is done) and
*completed* (the hooks that close it were called), and sees by their differences in the middle of what it stopped.
"""

from __future__ import annotations

import math
from copy import deepcopy
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from fulmen.loops.progress import Progress

Counters = dict[str, Any]


def write(progress: Progress, validating: bool = False) -> Counters:
    """The counters of all loops, as Lightning writes them at this moment.

    The end of a step, where most checkpoints are made, is a moment that Lightning never writes. It is given the form
    from which Lightning goes on with the next batch, and neither validates again nor steps a scheduler twice.

    Args:
        validating: the hooks of a validation within the training are running.
    """
    done, in_epoch_done, stepped = progress.total_batches, progress.batches_done, progress.batches_that_stepped
    epochs_begun = epochs_processed = progress.epoch
    completed = 0  # of the last batch
    if progress.epoch_is_closed:
        epochs_begun, epochs_processed = progress.epoch + 1, progress.epoch + 1
    elif progress.in_epoch:
        epochs_begun = progress.epoch + 1
        closed = not progress.batch_is_open
        if closed and progress.is_last_batch and not progress.interval_is_over:
            epochs_processed = progress.epoch + 1  # nothing of this epoch is left but the hooks that end it
        elif in_epoch_done:
            validated = validating or (closed and progress.is_last_batch)
            completed = 0 if validated else -1
            if closed and not progress.accumulating:  # Lightning counts it when it goes on
                stepped -= 1
    batches = _counters(done, done + completed)
    current = _counters(in_epoch_done, in_epoch_done + completed)
    of_epochs = {
        "ready": epochs_begun,
        "completed": progress.epoch,
        "started": epochs_begun,
        "processed": epochs_processed,
    }
    fit = {
        "state_dict": {},
        "epoch_loop.state_dict": {"_batches_that_stepped": stepped},
        "epoch_loop.batch_progress": {"total": batches, "current": current, "is_last_batch": progress.is_last_batch},
        "epoch_loop.scheduler_progress": _both({"ready": 0, "completed": 0}),
        "epoch_loop.automatic_optimization.state_dict": {},
        "epoch_loop.automatic_optimization.optim_progress": {"optimizer": automatic_steps(progress)},
        "epoch_loop.manual_optimization.state_dict": {},
        "epoch_loop.manual_optimization.optim_step_progress": _both(
            dict.fromkeys(("ready", "completed"), 0 if progress.counts_own_steps else progress.step)
        ),
        "epoch_loop.val_loop.state_dict": {},
        "epoch_loop.val_loop.batch_progress": {**_both(_counters(0, 0)), "is_last_batch": False},
        "epoch_progress": _both(of_epochs),
    }
    evaluation = {"state_dict": {}, "batch_progress": {**_both(_counters(0, 0)), "is_last_batch": False}}
    return {
        "fit_loop": fit,
        "validate_loop": evaluation,
        "test_loop": deepcopy(evaluation),
        "predict_loop": {"state_dict": {}, "batch_progress": _both(_counters(0, 0))},
    }


def automatic_steps(progress: Progress) -> Counters:
    """The steps of automatic optimization, and how often the gradients were cleared for them."""
    if not progress.counts_own_steps:
        total = current = cleared = current_cleared = 0
    else:
        windows = progress.batches_done / progress.accumulate_grad_batches
        opened = math.ceil(windows)
        total, current = progress.step, opened - progress.window_is_open
        cleared, current_cleared = total + progress.window_is_open, opened
    return {
        "step": {"total": _steps(total), "current": _steps(current)},
        "zero_grad": {
            "total": {**_steps(cleared), "started": cleared},
            "current": {**_steps(current_cleared), "started": current_cleared},
        },
    }


def _steps(count: int) -> Counters:
    return {"ready": count, "completed": count}


def _counters(count: int, completed: int) -> Counters:
    return {"ready": count, "completed": completed, "started": count, "processed": count}


def _both(counters: Counters) -> Counters:
    return {"total": counters, "current": dict(counters)}


def read(progress: Progress, checkpoint: Counters) -> None:
    """Set the clock by the counters of a file that Lightning wrote.

    A batch that the file was written in the middle of counts if its step was made. What belongs to it and comes after
    its hooks (a validation, the step of the loggers) is left to be made good, unless the file was written after that.
    """
    progress.epoch, progress.step = checkpoint["epoch"], checkpoint["global_step"]
    fit = checkpoint.get("loops", {}).get("fit_loop")
    if fit is None:
        return
    epochs, batches = fit["epoch_progress"]["current"], fit["epoch_loop.batch_progress"]
    progress.epoch = max(epochs["processed"], epochs["completed"])
    progress.total_batches = batches["total"]["processed"]
    progress.batches_that_stepped = fit["epoch_loop.state_dict"].get("_batches_that_stepped", progress.step)
    if not epochs["ready"] == epochs["started"] > epochs["processed"]:
        return  # between two epochs; the counters of batches are those of the one before
    current = batches["current"]
    progress.in_epoch, progress.batches_done = True, current["processed"]
    progress.is_last_batch = batches.get("is_last_batch", False)
    if current["ready"] == current["processed"] > 0:  # else the next batch was begun, which closes the one before
        progress.batch_is_open = True
        in_window = progress.batches_done % progress.accumulate_grad_batches != 0
        progress.accumulating = in_window and not progress.is_last_batch


def reopen_batch(progress: Progress, checkpoint: Counters) -> None:
    """See what is still to be done for the batch that Lightning wrote ``checkpoint`` after, now that the length of the
    epoch and the rhythm of validation are known.
    """
    batches = checkpoint["loops"]["fit_loop"]["epoch_loop.batch_progress"]
    progress.is_last_batch = batches.get("is_last_batch", False)
    if batches["current"]["completed"] < batches["current"]["processed"]:  # else a validation after it was begun
        progress.ask_for_validation()
