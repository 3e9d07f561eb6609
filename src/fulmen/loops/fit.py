"""Training, in the order in which it runs."""

from __future__ import annotations

from typing import TYPE_CHECKING

from torch import Tensor

from fulmen.loops.accumulation import detached_outputs
from fulmen.loops.progress import ABSENT

if TYPE_CHECKING:
    from fulmen.trainer.trainer import Trainer


def fit_loop(trainer: Trainer) -> None:
    """Train until ``progress.done``. Everything around it (setup, exceptions, teardown) is :mod:`trainer.session`'s."""
    optimizer, schedulers = trainer.optimizer, trainer.schedulers  # the one optimizer, or None if manual
    progress, metrics, call = trainer.progress, trainer.metrics, trainer.plan
    window, boundary, joins_always = trainer.window, trainer.boundary, trainer.strategy.forward_is_collective
    micro_batches = trainer.micro_batches  # None: a batch is run as a whole
    batch = batch_idx = output = None

    def forward_backward() -> Tensor | None:
        """One forward and one backward on the current batch; returns the loss, or None if the user skips it."""
        nonlocal output
        if micro_batches is not None:  # the same in several passes, each on some samples of the batch
            loss, output = micro_batches.run(trainer, call, batch)
            return loss
        output = call.training_step(batch, batch_idx) if batch is not None else None
        loss, output = window.loss_of(output, progress)
        if progress.starts_accumulation:
            call.on_before_zero_grad(optimizer)
            call.optimizer_zero_grad(progress.epoch, batch_idx, optimizer)
        if loss is not None:
            call.on_before_backward(loss)
            call.backward(loss)
            call.on_after_backward()
        elif joins_always or not progress.accumulating:
            call.join_backward()  # of the other processes
        return loss

    def before_step() -> None:
        window.rescale(optimizer)
        call.on_before_optimizer_step(optimizer)
        call.configure_gradient_clipping(optimizer, trainer.gradient_clip_val, trainer.gradient_clip_algorithm)

    call.on_train_start()
    while progress.in_epoch or not progress.done:
        trainer.data.start_epoch()
        trainer.replan().on_train_epoch_start()  # callbacks may have come or gone since the last epoch ...
        trainer.replan()  # ... and that hook may have patched others, even training_step, or the optimizer
        trainer.strategy.start_epoch()
        optimizer, schedulers = trainer.optimizer, trainer.schedulers
        for batch_idx, batch in trainer.data.train_batches():  # already on the device
            call = trainer.plan if batch is not ABSENT else trainer.plan.absent
            if call.on_train_batch_start(batch, batch_idx) == -1:  # the user skips the rest of the epoch
                progress.skip_rest_of_epoch()
                schedulers.step(progress)
                break
            if not call.optimizes_itself:
                output = detached_outputs(call.training_step(batch, batch_idx) if batch is not None else None)
            elif progress.accumulating:
                with trainer.strategy.no_backward_sync():
                    forward_backward()
            elif call.steps_alone:
                forward_backward()
                before_step()
                optimizer.step()
            else:
                call.optimizer_step(progress.epoch, batch_idx, forward_backward, before_step)
            progress.finish_batch()
            schedulers.step(progress)
            call.on_train_batch_end(output, batch, batch_idx)
            metrics.finish_batch()
            if progress.time_to_validate:
                trainer.validate_within_fit()
            schedulers.step_on_plateau(progress)
            progress.count_logger_step()
            if boundary.waiting or progress.total_batches + boundary.evaluated >= boundary.limit:
                boundary.reach(trainer)
            if progress.done:
                break
        window.finish_epoch(progress.batches_done)
        metrics.end_of_epoch()
        trainer.plan.on_train_epoch_end()
        metrics.finish_epoch()
        schedulers.finish_epoch(progress)
        progress.close_epoch()  # a checkpoint made from here on goes on with the next epoch
        trainer.plan.watch_train_epoch_end()  # checkpoints and early stopping, which watch what the others logged
        if boundary.waiting or progress.total_batches + boundary.evaluated >= boundary.limit:
            boundary.reach(trainer)
        progress.finish_epoch()
    if trainer.data.go_on is not None:  # resumed at the very end, with only the last hooks to come
        trainer.data.go_on()
    metrics.finish_training()
    trainer.plan.on_train_end()
