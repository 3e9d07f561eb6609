"""Short runs within a run: what a search for a learning rate or a batch size looks at.

A trial calls the same loop as the run, on a clock, data, metrics and an accumulation window of its own. It has no
loggers, no schedulers, no validation and no checkpoints, and of the callbacks only those that change how a step is
made. When it is over, the trainer is what it was. What the steps of the trial change elsewhere (weights, random
numbers, samplers) is put back by who asks for the trial: :mod:`fulmen.tuner.snapshot`.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from fulmen.callbacks.gradient_accumulation_scheduler import GradientAccumulationScheduler
from fulmen.loops.evaluate import evaluate_loop
from fulmen.loops.fit import fit_loop
from fulmen.loops.predict import predict_loop
from fulmen.loops.progress import Limits, ValidationRhythm
from fulmen.profilers.base import PassThroughProfiler
from fulmen.trainer import flags, session
from fulmen.trainer.boundary import Boundary
from fulmen.trainer.loaders import LOADER_HOOKS
from fulmen.trainer.states import RunningStage
from fulmen.utilities.exceptions import MisconfigurationException
from fulmen.utilities.seed import draw_apart

if TYPE_CHECKING:
    from fulmen.callbacks.callback import Callback
    from fulmen.trainer.trainer import Trainer

#: the stage of the data for each verb
DATA_OF = {"fit": "train", "validate": "validate", "test": "test", "predict": "predict"}


@contextmanager
def trial(
    trainer: Trainer, verb: str, count: int, callbacks: Sequence[Callback] = ()
) -> Generator[Callable[[], None], None, None]:
    """Put the parts of a trial in the place of the trainer's, until the context is left.

    Args:
        verb: whose loop runs: ``"fit"``, ``"validate"``, ``"test"`` or ``"predict"``. The run is set up for it.
        count: the optimizer steps of ``fit``, or the batches of each loader of another verb, at most.
        callbacks: who listens.

    Yields:
        What runs the loop; to be called once.

    Raises:
        MisconfigurationException: a loader can be read once only, so that the trial would use it up.
    """
    outer, late = dict(vars(trainer)), trainer.window.late
    running: list[tuple[Any, Any]] = []  # workers that belong to the run, which the trial leaves alone
    try:
        _take_parts(trainer, verb, count, callbacks)
        if verb == "fit":
            trainer.window.late = late
            session.share_window(trainer)
            trainer.lr_scheduler_configs = []
            session.attach_optimizers(trainer)
        trainer.replan()
        loaders = trainer.data.request(DATA_OF[verb])
        for source in loaders.sources:
            if source.is_read_once:
                raise MisconfigurationException(
                    f"`{LOADER_HOOKS[DATA_OF[verb]]}` gave {type(source.loader).__name__}, an iterator, which can be "
                    "read once only: a search would use it up, and nothing could bring it back. Give an iterable that "
                    "begins anew, such as a DataLoader or a list."
                )
            workers = getattr(source.loader, "_iterator", None)
            if workers is not None:
                running.append((source.loader, workers))
                source.loader._iterator = None
        yield lambda: _run(trainer, verb)
    finally:
        for action in trainer._undo:
            action()
        if trainer.data is not outer["data"]:
            trainer.data.close()
        for loader, workers in running:
            loader._iterator = workers
        vars(trainer).clear()
        vars(trainer).update(outer)


def _take_parts(trainer: Trainer, verb: str, count: int, callbacks: Sequence[Callback]) -> None:
    before = trainer.progress
    kept = [callback for callback in trainer.callbacks if isinstance(callback, GradientAccumulationScheduler)]
    limits = {**trainer._data_flags.limits, "validate": 0} if verb == "fit" else dict(trainer._data_flags.limits)
    if verb != "fit":
        own = limits[verb]
        limits[verb] = min(own, count) if isinstance(own, int) or own == 0 else count
    trainer.state = replace(trainer.state)
    trainer._data_flags = replace(trainer._data_flags, limits=limits, num_sanity_val_steps=0)
    trainer._callbacks = [*kept, *callbacks]
    trainer._loggers = flags.dummy_loggers(trainer._loggers)
    trainer.profiler = PassThroughProfiler()
    trainer.boundary = Boundary()
    trainer.keeps_predictions = False
    trainer.progress = replace(
        before,
        limits=Limits(max_steps=before.step + count),
        accumulate_grad_batches=trainer._accumulate if kept else before.accumulate_grad_batches,
        validation=ValidationRhythm(),
        log_every_n_steps=0,
        should_stop=False,
        was_stopping=False,
        out_of_time=False,
        in_epoch=False,
        epoch_is_closed=False,
        batch_is_open=False,
        interval_is_over=False,
        is_last_batch=False,
        batches_done=0,
        batch_idx=-1,
    )
    outer_defer = trainer.signals.boundary.defer  # files of the run that are still being written are the run's
    trainer.begin_run()
    trainer.strategy.checkpoint_io.report_to(outer_defer)


def _run(trainer: Trainer, verb: str) -> None:
    if verb == "predict":
        predict_loop(trainer)
    elif verb != "fit":
        evaluate_loop(trainer, verb)
    elif trainer.data.num_training_batches and trainer._data_flags.limits["train"]:
        trainer.state.stage = RunningStage.TRAINING
        draw_apart(trainer.strategy.data_parallel_rank)
        trainer.metrics.begin_training()
        trainer.modes.note(trainer.lightning_module)
        fit_loop(trainer)
