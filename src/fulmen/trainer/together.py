"""A run of several processes: how it begins and ends on all of them."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING

from fulmen.trainer.states import RunningStage

if TYPE_CHECKING:
    from fulmen.strategies.control.stall import Counters
    from fulmen.trainer.trainer import Trainer


def begin_run(trainer: Trainer) -> None:
    """The processes have found each other.

    Raises:
        PeerFailure: one of them has failed by now.
    """
    strategy = trainer.strategy
    if strategy.control is None:
        return
    timeout = getattr(strategy, "stall_timeout", None)
    strategy.control.begin_run(
        lambda: _counters(trainer),
        lambda: _finalize(trainer),
        None if timeout is None else timeout.total_seconds(),
        getattr(strategy, "on_stall", "report"),
    )


def _counters(trainer: Trainer) -> Counters:
    from fulmen.strategies.control.stall import Counters

    progress, stage = trainer.progress, trainer.state.stage
    data = trainer.data if trainer.has_begun else None
    indices = getattr(data, "epoch_batch_indices", [])
    evaluated = sum(map(len, indices)) if stage not in (None, RunningStage.TRAINING) else 0
    where = f"epoch {progress.epoch}, batch {progress.batch_idx + 1}"
    if evaluated:
        where += f", {stage} batch {evaluated}"
    numbers = (progress.epoch, progress.total_batches, progress.batch_idx, evaluated or progress.batches_done)
    return Counters(numbers, where, (stage, id(getattr(data, "_batch", None))))


def _finalize(trainer: Trainer) -> None:
    for logger in trainer.loggers:
        with contextlib.suppress(Exception):  # the next one may still be closed
            logger.finalize("failed")


def begin_training(trainer: Trainer) -> None:
    """From here on the processes agree at the ends of batches."""
    control, boundary, progress = trainer.strategy.control, trainer.boundary, trainer.progress
    progress.validation.agree = bool
    if control is not None:
        boundary.begin_training(control, lambda: progress.total_batches + boundary.evaluated)
        progress.validation.agree = lambda wanted: boundary.agree("validate", wanted)
        trainer.signals.share_request()


def end_training(trainer: Trainer) -> None:
    """The last batch is done."""
    trainer.signals.take(trainer.boundary.end_training())
    trainer.progress.validation.agree = bool


def end_run(trainer: Trainer) -> None:
    """The run has ended well here: wait until it has everywhere.

    Raises:
        PeerFailure: another process has failed meanwhile.
    """
    if trainer.strategy.control is not None:
        trainer.strategy.control.end_run()


def fail(trainer: Trainer, exception: BaseException) -> BaseException:
    """Tell the other processes of ``exception``, which ends this one.

    Returns:
        What ends it really: ``exception``, or that another process failed first.
    """
    control, trainer.boundary.control = trainer.strategy.control, None
    trainer.progress.validation.agree = bool
    if control is None or trainer.signals.ends_everywhere:
        return exception
    from fulmen.strategies.control.failure import PeerFailure

    failure = control.fail(exception)
    if control.failed_itself or isinstance(exception, PeerFailure):
        return exception
    ends = PeerFailure(failure)
    ends.__cause__ = exception
    return ends


def leave(trainer: Trainer) -> None:
    """This process ends, after everybody in it has heard.

    Raises:
        SystemExit: as another process failed first, which is said in a line.
    """
    control = trainer.strategy.control
    if control is None:
        return
    if trainer.signals.ends_everywhere:
        control.end_run()
    else:
        control.leave()
