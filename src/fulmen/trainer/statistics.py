"""One more pass over the training data, of which only the module takes notice: for the statistics of its layers."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch.nn import SyncBatchNorm

from fulmen.loops.progress import ABSENT
from fulmen.trainer import resume
from fulmen.utilities.seed import isolate_rng

if TYPE_CHECKING:
    from fulmen.trainer.trainer import Trainer


def pass_over_training_data(trainer: Trainer) -> None:
    """Run ``training_step`` with each batch of an epoch, without gradients and in the modes of training. What it logs
    is forgotten. What is saved from here on goes on from before this pass.
    """
    data, module = trainer.data, trainer.lightning_module
    data.moment = resume.gather(trainer, save_loggers=False)
    trainer.signals.may_leave_validation = False
    loaders = data.training_loaders_once_more()
    step, work_together = trainer.plan.step_of_part, any(isinstance(one, SyncBatchNorm) for one in module.modules())
    with torch.no_grad(), isolate_rng(), trainer.metrics.unheard():
        for batch_idx, batch, _ in data.evaluation_batches(loaders):
            if batch is not ABSENT and (data.is_group_whole() or not work_together):
                step(batch, batch_idx)
