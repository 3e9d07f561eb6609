"""The reference: a small network, and training as everyone writes it by hand."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterable
from contextlib import nullcontext
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

from fulmen import LightningModule


class Regressor(LightningModule):
    """Four numbers to one.

    Args:
        configure: makes what ``configure_optimizers`` returns, from the module.
        dropout: how much of the hidden layer is dropped, which draws random numbers.
    """

    def __init__(self, configure: Callable[[nn.Module], Any] | None = None, dropout: float = 0.0) -> None:
        super().__init__()
        self.net = nn.Sequential(nn.Linear(4, 8), nn.Tanh(), nn.Dropout(dropout), nn.Linear(8, 1))
        self.configure = configure if configure is not None else sgd

    def forward(self, x: Tensor) -> Tensor:
        return self.net(x)

    def loss(self, batch: Any) -> Tensor:
        x, y = batch
        return F.mse_loss(self.net(x), y)

    def training_step(self, batch: Any, batch_idx: int) -> Any:
        return self.loss(batch)

    def configure_optimizers(self) -> Any:
        return self.configure(self)


def sgd(module: nn.Module) -> torch.optim.Optimizer:
    return torch.optim.SGD(module.parameters(), lr=0.05, momentum=0.9)


def dataset(samples: int, dtype: torch.dtype = torch.float32) -> TensorDataset:
    """The same samples every time."""
    generator = torch.Generator().manual_seed(samples)
    x = torch.randn(samples, 4, generator=generator, dtype=dtype)
    return TensorDataset(x, x.sum(dim=1, keepdim=True).sin())


def loader(samples: int, batch_size: int = 4, **arguments: Any) -> DataLoader[Any]:
    return DataLoader(dataset(samples), batch_size=batch_size, **arguments)


def train_by_hand(
    module: Any,
    batches: Iterable[Any],
    epochs: int,
    optimizer: torch.optim.Optimizer,
    *,
    accumulate: int = 1,
    before_step: Callable[[], Any] | None = None,
    after_step: Callable[[], Any] | None = None,
    after_epoch: Callable[[], Any] | None = None,
    context: Callable[[], Any] = nullcontext,
    loss_of: Callable[[Any], Tensor] | None = None,
) -> None:
    """Train as everyone writes it: forward, backward, step; the last window of an epoch may be shorter."""
    loss_of = module.loss if loss_of is None else loss_of
    module.train()
    for _ in range(epochs):
        in_epoch = len(batches) if accumulate > 1 else 0  # type: ignore[arg-type]
        for index, batch in enumerate(batches):
            place = index % accumulate
            window = min(accumulate, in_epoch - (index - place)) if accumulate > 1 else 1
            if place == 0:
                optimizer.zero_grad()
            with context():
                loss = loss_of(batch)
            if window > 1:
                loss = loss / window
            loss.backward()
            if place + 1 == window:
                if before_step is not None:
                    before_step()
                optimizer.step()
                if after_step is not None:
                    after_step()
        if after_epoch is not None:
            after_epoch()


def twins(**arguments: Any) -> tuple[Regressor, Regressor]:
    """Two modules with equal weights: one for the trainer, one for the hand-written loop."""
    torch.manual_seed(1)
    one = Regressor(**arguments)
    return one, copy.deepcopy(one)


def assert_same_weights(one: nn.Module, other: nn.Module) -> None:
    """Every parameter and buffer equal, bit for bit."""
    state, expected = one.state_dict(), other.state_dict()
    assert state.keys() == expected.keys()
    for name in expected:
        assert torch.equal(state[name], expected[name]), f"{name}: {state[name]} instead of {expected[name]}"


def assert_same_optimizer(one: torch.optim.Optimizer, other: torch.optim.Optimizer) -> None:
    """Every state tensor and every setting equal, bit for bit."""
    assert same(one.state_dict(), other.state_dict())


def same(one: Any, other: Any) -> bool:
    """Whether two nests of plain data and tensors are equal, bit for bit."""
    if isinstance(other, Tensor):
        return isinstance(one, Tensor) and one.dtype == other.dtype and torch.equal(one, other)
    if isinstance(other, dict):
        return one.keys() == other.keys() and all(same(one[key], other[key]) for key in other)
    if isinstance(other, (list, tuple)):
        return len(one) == len(other) and all(map(same, one, other))
    return one == other
