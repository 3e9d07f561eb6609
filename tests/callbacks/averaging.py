"""A small classifier with dropout and a batch norm, and runs of it that are compared bit for bit."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

from fulmen import LightningModule, Trainer, seed_everything

BATCHES = 5


class Net(LightningModule):
    """Notes what the weights are in each validation step."""

    def __init__(self, norm: bool = True) -> None:
        super().__init__()
        layers = [nn.Linear(3, 6), nn.BatchNorm1d(6) if norm else nn.Identity(), nn.ReLU(), nn.Dropout(0.2)]
        self.net = nn.Sequential(*layers, nn.Linear(6, 2))
        self.validated: list[dict[str, Tensor]] = []

    def forward(self, x: Tensor) -> Tensor:
        return self.net(x)

    def loss(self, batch: Any) -> Tensor:
        return nn.functional.cross_entropy(self(batch[0]), batch[1])

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        return self.loss(batch)

    def validation_step(self, batch: Any, batch_idx: int) -> None:
        self.validated.append(weights_of(self))
        self.log("val_loss", self.loss(batch))

    test_step = validation_step

    def configure_optimizers(self) -> Any:
        return torch.optim.AdamW(self.parameters(), lr=0.05)


class Shared(Net):
    """Two layers with one weight, and a buffer that no file has."""

    def __init__(self) -> None:
        super().__init__()
        self.twice = nn.ModuleList([nn.Linear(3, 3), nn.Linear(3, 3)])
        self.twice[1].weight = self.twice[0].weight
        self.register_buffer("scale", torch.tensor([0.123, 0.7, 3.7]), persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        for layer in self.twice:
            x = layer(x)
        return super().forward(x * self.scale)


def weights_of(module: nn.Module) -> dict[str, Tensor]:
    named = [*module.named_parameters(), *module.named_buffers()]
    return {name: tensor.detach().clone() for name, tensor in named}


def loader(batches: int = BATCHES, shuffle: bool = False) -> Any:
    generator = torch.Generator().manual_seed(3)
    inputs, targets = torch.randn(4 * batches, 3, generator=generator), torch.arange(4 * batches) % 2
    return DataLoader(TensorDataset(inputs, targets), batch_size=4, shuffle=shuffle)


def fit(
    *callbacks: Any,
    model: Any = None,
    path: Any = None,
    train: Any = None,
    validation: Any = None,
    seed: int = 1,
    **arguments: Any,
) -> Any:
    """Fit a model (None: a new :class:`Net`); returns it. Its trainer is ``model.trainer``."""
    seed_everything(seed, verbose=False)
    model = Net() if model is None else model() if callable(model) and not isinstance(model, Net) else model
    trainer = Trainer(
        callbacks=list(callbacks),
        **{
            "max_epochs": 3,
            "accelerator": "cpu",
            "logger": False,
            "enable_checkpointing": False,
            "enable_progress_bar": False,
            "enable_model_summary": False,
            "num_sanity_val_steps": 0,
            "limit_val_batches": 1.0 if validation is not None else 0,
            **arguments,
        },
    )
    trainer.fit(model, loader() if train is None else train, validation or loader(1), ckpt_path=path)
    return model


def assert_same(one: dict[str, Tensor], other: dict[str, Tensor]) -> None:
    assert list(one) == list(other)
    for name, value in one.items():
        assert torch.equal(value, other[name]), name
