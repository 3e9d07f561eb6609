"""A regression that notes what happens to it, on any number of processes."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from fulmen import LightningModule


def samples(count: int) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(7)
    inputs = torch.randn(count, 4, generator=generator, dtype=torch.float64)
    return inputs, torch.sin(inputs.sum(1, keepdim=True)) + inputs[:, :1]


class Regression(LightningModule):
    """Notes losses and gradient norms."""

    def __init__(self, dtype: torch.dtype = torch.float64) -> None:
        super().__init__()
        torch.manual_seed(3)
        self.net = nn.Sequential(nn.Linear(4, 8), nn.Tanh(), nn.Linear(8, 1)).to(dtype)
        self.losses: list[Tensor] = []
        self.norms: list[Tensor] = []

    def error(self, batch: Any) -> Tensor:
        inputs, targets = batch
        return (self.net(inputs) - targets).square()

    def training_step(self, batch: Any, batch_idx: int) -> Any:
        loss = self.error(batch).mean()
        self.losses.append(loss.detach())
        return loss

    def on_before_optimizer_step(self, optimizer: Any) -> None:
        norms = [parameter.grad.norm() for parameter in self.parameters() if parameter.grad is not None]
        self.norms.append(torch.stack(norms).norm() if norms else torch.zeros(()))

    def configure_optimizers(self) -> Any:
        return torch.optim.Adam(self.parameters(), lr=0.05)


class ByLBFGS(Regression):
    def configure_optimizers(self) -> Any:
        return torch.optim.LBFGS(self.parameters(), lr=0.5, max_iter=4, line_search_fn="strong_wolfe")


class SteppingItself(Regression):
    def optimizer_step(self, epoch: int, batch_idx: int, optimizer: Any, optimizer_closure: Any = None) -> None:
        if batch_idx % 2:
            optimizer.step(closure=optimizer_closure)
        else:
            optimizer_closure()


def quiet(**arguments: Any) -> dict[str, Any]:
    quietly = {"logger": False, "enable_checkpointing": False, "enable_progress_bar": False}
    return {"accelerator": "cpu", "enable_model_summary": False, "max_epochs": 2, **quietly, **arguments}


def weights_of(module: nn.Module) -> Tensor:
    return torch.cat([parameter.detach().reshape(-1) for parameter in module.parameters()])
