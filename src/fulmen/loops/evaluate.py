"""Validation and testing, in the order in which they run."""

from __future__ import annotations

from collections.abc import Callable, Generator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from fulmen.loops.progress import ABSENT
from fulmen.utilities.memory import buffers_kept

if TYPE_CHECKING:
    from fulmen.trainer.trainer import Trainer


def evaluate_loop(trainer: Trainer, stage: str) -> list[dict[str, float]]:
    """Run ``stage`` (``"validate"``, ``"test"`` or ``"sanity_check"``) over its loaders, one after another.

    Returns:
        What was logged per epoch, as numbers: a dict for each loader.
    """
    data, metrics = trainer.data, trainer.metrics
    loaders = data.evaluation_loaders(stage)
    if not loaders.num_batches or not any(loaders.num_batches):
        return []
    call = trainer.plan.evaluation("test" if stage == "test" else "validation")
    several = loaders.several
    outer = metrics.begin_evaluation(stage)
    with trainer.without_gradients(), in_evaluation_mode(trainer.lightning_module, call.model_eval, call.model_train):
        call.start()
        call.epoch_start()
        for batch_idx, batch, dataloader_idx in data.evaluation_batches(loaders):  # already on the device
            position = (batch_idx, dataloader_idx) if several else (batch_idx,)
            metrics.dataloader_idx = dataloader_idx if several else None
            if batch is ABSENT:  # other processes have one
                run_ghost(trainer, call.step, position)
            else:
                call.batch_start(batch, *position)
                output = call.step(batch, *position)
                call.batch_end(output, batch, *position)
            metrics.finish_evaluation_batch(metrics.dataloader_idx)
        metrics.dataloader_idx = None
        metrics.end_of_epoch()
        call.epoch_end()
        results = metrics.write_evaluation(len(loaders.num_batches))
        call.end()
    metrics.finish_evaluation(outer)
    return results


def run_ghost(trainer: Trainer, step: Callable[..., Any], position: tuple[int, ...]) -> None:
    """Take part in a step for which this process has no batch: where all must run the same number, by a batch whose
    results are thrown away.
    """
    if trainer.strategy.forward_is_collective:
        run_unheard(trainer, step, *position)


def run_unheard(trainer: Trainer, step: Callable[..., Any], *position: int) -> Any:
    """Run ``step`` with the batch of another time, so that what it logs, and collects, is forgotten; its output."""
    batch = trainer.data.ghost_batch
    if batch is ABSENT:
        return None
    module = trainer.lightning_module
    kept = {name: list(value) for name, value in vars(module).items() if type(value) is list}
    with trainer.metrics.unheard(), buffers_kept(module):
        output = step(batch, *position)
    for name, values in kept.items():  # where users collect what steps return
        getattr(module, name)[:] = values
    return output


@contextmanager
def in_evaluation_mode(
    module: nn.Module, model_eval: Callable[[], None], model_train: Callable[[], None] | None
) -> Generator[None, None, None]:
    """Switch to evaluation mode, and afterwards give each sub-module back the mode that it had: frozen ones stay
    frozen.

    Args:
        model_eval: switches to evaluation mode.
        model_train: what the user wrote to switch back; None to restore.
    """
    modes = {child: child.training for child in module.modules()}
    own = None  # after an exception too: the module may be trained again
    try:
        model_eval()
        yield
        own = model_train
    finally:
        if own is None:
            for child, training in modes.items():
                child.training = training
    if own is not None:
        own()


def no_gradients(inference_mode: bool) -> torch.inference_mode | torch.no_grad:
    """The context of steps that make no gradients."""
    return torch.inference_mode() if inference_mode else torch.no_grad()
