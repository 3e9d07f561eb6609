"""Training with parameters that are spread over the processes."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from tests.distributed.processes import run
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from fulmen import Callback, LightningModule, Trainer


class Block(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.norm, self.layer = nn.LayerNorm(width), nn.Linear(width, width)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x + torch.tanh(self.layer(self.norm(x)))


class Net(LightningModule):
    def __init__(self, width: int = 5, lr: float = 0.05) -> None:
        super().__init__()
        self.save_hyperparameters()
        self.enter = nn.Linear(3, width)
        self.blocks = nn.ModuleList([Block(width) for _ in range(3)])
        self.leave = nn.Linear(width, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.enter(x)
        for block in self.blocks:
            x = block(x)
        return self.leave(x)

    def training_step(self, batch: Any, batch_idx: int) -> torch.Tensor:
        inputs, targets = batch
        loss = nn.functional.mse_loss(self(inputs), targets)
        self.log("loss", loss)
        return loss

    def configure_optimizers(self) -> Any:
        return torch.optim.AdamW(self.parameters(), lr=self.hparams["lr"])


class Norms(Callback):
    """Notes the norm of all gradients before each step, after clipping."""

    def __init__(self) -> None:
        self.norms: list[float] = []

    def on_before_optimizer_step(self, trainer: Any, pl_module: Any, optimizer: Any) -> None:
        whole_ones = [whole(p.grad) for p in pl_module.parameters() if p.grad is not None]
        self.norms.append(float(nn.utils.get_total_norm(whole_ones)))


def whole(tensor: Any) -> torch.Tensor:
    return (tensor.full_tensor() if hasattr(tensor, "full_tensor") else tensor).detach().cpu().clone()


def loader(samples: int, batch_size: int) -> Any:
    generator = torch.Generator().manual_seed(3)
    data = TensorDataset(torch.randn(samples, 3, generator=generator), torch.randn(samples, 1, generator=generator))
    return DataLoader(data, batch_size=batch_size)


def trainer_of(strategy: Any, world: int, **arguments: Any) -> Trainer:
    return Trainer(
        accelerator="cpu",
        devices=world,
        strategy=strategy,
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        **{"max_epochs": 2, **arguments},
    )


def trained(
    strategy: Any, world: int, samples: int, batch_size: int, arguments: dict[str, Any], kind: str = "Net"
) -> dict[str, Any]:
    torch.manual_seed(1)
    module, norms = globals()[kind](), Norms()
    trainer = trainer_of(strategy, world, callbacks=[norms], **arguments)
    trainer.fit(module, loader(samples, batch_size))
    return {
        "weights": {name: whole(value) for name, value in module.state_dict().items()},
        "norms": norms.norms,
        "class": type(module).__name__,
    }


def assert_close(one: dict[str, Any], other: dict[str, Any], tolerance: float) -> None:
    for name, value in one["weights"].items():
        torch.testing.assert_close(value, other["weights"][name], rtol=0, atol=tolerance)
    torch.testing.assert_close(one["norms"], other["norms"], rtol=tolerance, atol=tolerance)


@pytest.mark.parametrize(
    ("precision", "tolerance", "arguments"),
    [
        ("64-true", 1e-12, {}),
        ("32-true", 1e-6, {"gradient_clip_val": 0.1}),
        ("64-true", 1e-12, {"accumulate_grad_batches": 3, "gradient_clip_val": 0.1}),
        ("64-true", 1e-12, {"gradient_clip_val": 0.01, "gradient_clip_algorithm": "value"}),
    ],
)
def test_fsdp_of_two_processes_trains_as_one_process_with_their_batches(
    precision: str, tolerance: float, arguments: dict[str, Any]
) -> None:
    arguments = {**arguments, "precision": precision}
    alone = trained("auto", 1, 32, 8, arguments)
    for each in run(2, trained, "fsdp", 2, 32, 4, arguments):
        assert_close(alone, each, tolerance)
        assert each["class"] == "Net"


class Sums(Net):
    """Sums of losses with their weights, and none for a batch here and there."""

    def training_step(self, batch: Any, batch_idx: int) -> Any:
        inputs, targets = batch
        weights = (targets[:, 0] > 0).to(inputs.dtype)
        return {"loss_sum": (weights * (self(inputs) - targets)[:, 0] ** 2).sum(), "weight": weights.sum()}


class Skips(Net):
    """Skips batches by their samples: after the module has run, and before it."""

    def training_step(self, batch: Any, batch_idx: int) -> Any:
        inputs, targets = batch
        if (targets < -1.9).any():
            return None
        output = self(inputs / (targets < 1.9).all())  # not finite where it is skipped
        loss = nn.functional.mse_loss(output, targets)
        return loss if loss.isfinite() else None


class Skipping(Net):
    """What :class:`Skips` trains on, of a whole group: the mean over the batches that were not skipped."""

    def training_step(self, batch: Any, batch_idx: int) -> Any:
        inputs, targets = batch
        kept = [part for part in zip(inputs.split(4), targets.split(4)) if (part[1].abs() < 1.9).all()]
        if not kept:
            return None
        inputs, targets = (torch.cat(parts) for parts in zip(*kept))
        return nn.functional.mse_loss(self(inputs), targets)


class Adversaries(Net):
    """Two optimizers by hand, which step in turn within a step."""

    def __init__(self) -> None:
        super().__init__()
        self.automatic_optimization = False

    def training_step(self, batch: Any, batch_idx: int) -> None:
        inputs, targets = batch
        for optimizer in self.optimizers():
            loss = nn.functional.mse_loss(self(inputs), targets)
            optimizer.zero_grad()
            self.manual_backward(loss)
            self.clip_gradients(optimizer, 0.1, "norm")
            optimizer.step()

    def configure_optimizers(self) -> Any:
        first = [*self.enter.parameters(), *self.leave.parameters()]
        return torch.optim.SGD(first, lr=0.1), torch.optim.Adam(self.blocks.parameters(), lr=0.01)


@pytest.mark.parametrize(
    ("kind", "of_one", "samples", "arguments"),
    [
        ("Net", "Net", 26, {"accumulate_grad_batches": 3, "gradient_clip_val": 0.1}),
        ("Sums", "Sums", 26, {"accumulate_grad_batches": 2}),
        ("Skips", "Skipping", 40, {}),
        ("Adversaries", "Adversaries", 26, {}),
    ],
)
def test_fsdp_of_uneven_data_trains_as_one_process_with_all_of_it(
    kind: str, of_one: str, samples: int, arguments: dict[str, Any]
) -> None:
    arguments = {**arguments, "precision": "64-true"}
    alone = trained("auto", 1, samples, 8, arguments, of_one)
    for each in run(2, trained, "fsdp", 2, samples, 4, arguments, kind):
        assert_close(alone, each, 1e-12)
