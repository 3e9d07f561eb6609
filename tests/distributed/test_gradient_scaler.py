"""16-bit mixed precision on several processes: all leave the same steps out."""

from __future__ import annotations

import os
from typing import Any

import pytest
import torch
from tests.distributed.processes import run
from torch.amp.grad_scaler import GradScaler

from fulmen import LightningModule, Trainer
from fulmen.plugins import MixedPrecision

STEPS = 6


class Model(LightningModule):
    """Its loss is infinite in step 2 on rank 1 only."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = torch.nn.Linear(3, 1)

    def training_step(self, batch: Any, batch_idx: int) -> torch.Tensor:
        loss = self.layer(batch).float().square().mean()
        spoils = batch_idx == 2 and os.environ["LOCAL_RANK"] == "1"
        return loss * float("inf") if spoils else loss

    def configure_optimizers(self) -> Any:
        return torch.optim.SGD(self.parameters(), lr=0.1)


def trained(devices: int, strategy: str) -> tuple[dict[str, torch.Tensor], dict[str, Any], int]:
    torch.manual_seed(1)
    module = Model()
    trainer = Trainer(
        accelerator="cpu",
        devices=devices,
        strategy=strategy,
        max_steps=STEPS,
        gradient_clip_val=0.5,
        plugins=MixedPrecision("16-mixed", "cpu", GradScaler("cpu", init_scale=2.0**20, growth_interval=2)),
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
    )
    trainer.fit(module, torch.randn(2 * STEPS, 4, 3))
    whole = {name: getattr(one, "full_tensor", lambda one=one: one)() for name, one in module.state_dict().items()}
    return whole, trainer.precision_plugin.state_dict(), trainer.global_step


@pytest.mark.parametrize("strategy", ["ddp", "fsdp"])
def test_gradient_that_is_infinite_on_one_rank_is_left_out_on_all(strategy: str) -> None:
    (first, first_scaler, steps), (second, second_scaler, _) = run(2, trained, 2, strategy)
    assert all(torch.equal(first[name], second[name]) for name in first)
    assert all(tensor.isfinite().all() for tensor in first.values())
    assert first_scaler == second_scaler
    assert first_scaler["skipped_steps"] >= 1
    assert steps == STEPS
