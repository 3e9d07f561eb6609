"""What made the first number that is not finite is found in the forward and in the backward."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from fulmen import LightningModule, Trainer
from fulmen.callbacks import NonFiniteGuard
from fulmen.replay import Replay
from fulmen.utilities.exceptions import NonFiniteException

Fault = Callable[[Tensor], Tensor]


def division(x: Tensor) -> Tensor:
    return x / torch.zeros(3)  # here


def difference_of_infinities(x: Tensor) -> Tensor:
    y = x.exp() * 1e38 * 1e38
    return y - y  # here


def masked_row(x: Tensor) -> Tensor:
    masked = x.masked_fill(torch.ones(3, dtype=torch.bool), float("-inf"))
    return masked.softmax(dim=-1)  # here


def harmless_mask(x: Tensor) -> Tensor:
    y = x.masked_fill(torch.tensor([True, False, False]), float("-inf")).softmax(dim=-1)
    return (y * 0).sqrt()  # here


def in_place(x: Tensor) -> Tensor:
    y = x.abs() - 100
    return y.log_()  # here


def infinity_looked_at(x: Tensor) -> Tensor:
    y = 1 / (x * 0).abs()  # here
    return y.detach().mul_(2) + y.abs().mul_(2)


def derivative(x: Tensor) -> Tensor:
    return (x - x.detach()).abs().pow(0.5)  # here


class Model(LightningModule):
    def __init__(self, fault: Fault) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.fault = fault
        self.layer = nn.Linear(2, 3)

    def training_step(self, batch: Tensor, batch_idx: int) -> Tensor:
        y = self.layer(batch)
        return (self.fault(y) if self.global_step == 1 else y).sum()

    def configure_optimizers(self) -> Any:
        return torch.optim.SGD(self.parameters(), lr=0.1)


@pytest.mark.parametrize(
    ("fault", "operation"),
    [
        (division, "torch.Tensor.div"),
        (difference_of_infinities, "torch.Tensor.sub"),
        (masked_row, "torch.Tensor.softmax"),
        (harmless_mask, "SqrtBackward in the derivative"),
        (infinity_looked_at, "torch.Tensor.__rtruediv__"),
        (in_place, "torch.Tensor.log_"),
        (derivative, "PowBackward in the derivative"),
    ],
)
def test_operation_is_the_first_that_made_it_of_finite_numbers(fault: Fault, operation: str, tmp_path: Path) -> None:
    quiet = dict.fromkeys(("logger", "enable_checkpointing", "enable_progress_bar", "enable_model_summary"), False)
    data = [torch.ones(4, 2)] * 3

    def fit() -> None:
        trainer = Trainer(
            max_epochs=1,
            accelerator="cpu",
            callbacks=[NonFiniteGuard()],
            default_root_dir=tmp_path,
            **quiet,  # type: ignore[arg-type]
        )
        trainer.fit(Model(fault), data)

    with pytest.raises(NonFiniteException):
        fit()
    with Replay(tmp_path) as replay:
        fit()
    told = next(row for row in replay.report.splitlines() if row.startswith("  operation"))
    assert operation in told
    assert "# here" in told
    assert ("infinity    before" in replay.report) == (fault in (difference_of_infinities, masked_row))
