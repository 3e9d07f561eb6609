"""Training on several processes."""

from __future__ import annotations

from typing import Any

import torch
from tests.distributed.processes import run
from torch.utils.data import DataLoader, TensorDataset

from fulmen import LightningModule, Trainer


class Regression(LightningModule):
    def __init__(self) -> None:
        super().__init__()
        self.layer = torch.nn.Linear(3, 1)

    def training_step(self, batch: Any, batch_idx: int) -> torch.Tensor:
        inputs, targets = batch
        return torch.nn.functional.mse_loss(self.layer(inputs), targets)

    def configure_optimizers(self) -> Any:
        return torch.optim.SGD(self.parameters(), lr=0.1)


def trained(world: int, batch_size: int) -> dict[str, torch.Tensor]:
    torch.manual_seed(1)
    data = TensorDataset(torch.randn(32, 3), torch.randn(32, 1))
    module = Regression()
    trainer = Trainer(
        accelerator="cpu",
        devices=world,
        max_epochs=2,
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
    )
    trainer.fit(module, DataLoader(data, batch_size=batch_size))
    return module.state_dict()


def test_ddp_of_two_processes_gives_all_the_same_weights() -> None:
    first, second = run(2, trained, 2, 4)
    assert all(torch.equal(first[name], second[name]) for name in first)
