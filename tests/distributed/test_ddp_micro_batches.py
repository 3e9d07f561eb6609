"""Micro-batches on several processes, each of which may need another number of them."""

from __future__ import annotations

import os
from typing import Any

import pytest
import torch
from tests.distributed.processes import Failed, run
from tests.distributed.regression import Regression, quiet, samples, weights_of
from tests.trainer.memory_limit import MemoryLimit
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from fulmen import Trainer
from fulmen.strategies import DDPStrategy
from fulmen.utilities.exceptions import MisconfigurationException


class Logging(Regression):
    """Short of memory beyond ``most`` samples."""

    def __init__(self, most: int | None) -> None:
        super().__init__()
        if most is not None:
            self.net.insert(2, MemoryLimit(most))
        self.rows: list[float] = []

    def training_step(self, batch: Any, batch_idx: int) -> Any:
        loss = super().training_step(batch, batch_idx)
        self.log("loss", loss, sync_dist=True, on_step=True, on_epoch=True)
        return loss

    def on_train_batch_end(self, outputs: Any, batch: Any, batch_idx: int) -> None:
        self.rows.append(float(self.trainer.callback_metrics["loss_step"]))


class Summing(Logging):
    def training_step(self, batch: Any, batch_idx: int) -> Any:
        super().training_step(batch, batch_idx)
        return {"loss_sum": self.error(batch).sum(), "weight": len(batch[0])}


class LeavingOut(Logging):
    """Uses a layer in every other batch only, and another one never."""

    def __init__(self, most: int | None) -> None:
        super().__init__(most)
        self.sometimes, self.never = nn.Linear(4, 1).double(), nn.Linear(4, 1).double()

    def training_step(self, batch: Any, batch_idx: int) -> Any:
        loss = super().training_step(batch, batch_idx)
        return loss if batch_idx % 2 else loss + self.sometimes(batch[0]).square().mean()


CASES: dict[str, tuple[type[Logging], bool, dict[str, Any]]] = {
    "mean": (Logging, False, {}),
    "window and clipping": (Logging, False, {"accumulate_grad_batches": 3, "gradient_clip_val": 0.1}),
    "sums": (Summing, False, {"accumulate_grad_batches": 2}),
    "unused parameters": (LeavingOut, True, {}),
}


def train_all(limits: list[int | None], more: dict[str, Any]) -> dict[str, dict[str, Any]]:
    return {name: train(*case, limits[int(os.environ["LOCAL_RANK"])], more) for name, case in CASES.items()}


def train(kind: Any, find_unused: bool, arguments: dict[str, Any], most: int | None, more: Any) -> dict[str, Any]:
    module = kind(most)
    trainer = Trainer(**quiet(devices=2, strategy=DDPStrategy(find_unused_parameters=find_unused), **arguments, **more))
    # the last process has no batch at the end
    trainer.fit(module, DataLoader(TensorDataset(*samples(40)), batch_size=6))
    return {
        "size": trainer.micro_batch_size,
        "weights": weights_of(module),
        "losses": torch.tensor([*module.rows, float(trainer.callback_metrics["loss_epoch"])]),
        "steps": trainer.global_step,
    }


@pytest.fixture(scope="module")
def whole() -> list[Any]:
    return run(2, train_all, [None, None], {}, timeout=120)


@pytest.fixture(scope="module")
def parts() -> list[Any]:
    """The second process is short of memory."""
    return run(2, train_all, [None, 2], {"micro_batch_size": "auto"}, timeout=120)


@pytest.mark.parametrize("case", CASES)
def test_process_that_is_short_of_memory_trains_with_the_others_as_if_it_were_not(
    case: str, whole: list[Any], parts: list[Any]
) -> None:
    assert [one[case]["size"] for one in parts] == [None, 1]
    assert torch.equal(parts[0][case]["weights"], parts[1][case]["weights"])
    for one, other in zip(parts, whole):
        assert one[case]["steps"] == other[case]["steps"]
        torch.testing.assert_close(one[case]["weights"], other[case]["weights"], rtol=0, atol=1e-13)
        torch.testing.assert_close(one[case]["losses"], other[case]["losses"])


def train_with_a_layer_in_vain() -> None:
    train(WithSpare, False, {}, None, {"micro_batch_size": 2})


class WithSpare(Logging):
    def __init__(self, most: int | None) -> None:
        super().__init__(most)
        self.spare = nn.Linear(4, 1).double()


@pytest.mark.slow
def test_parameter_that_is_never_used_is_named() -> None:
    with pytest.raises(Failed, match=r"does not depend on 'spare\.weight', 'spare\.bias'"):
        run(2, train_with_a_layer_in_vain)


def refusal(strategy: str) -> str:
    chosen = DDPStrategy(static_graph=True) if strategy == "static graph" else strategy
    trainer = Trainer(**quiet(devices=2, strategy=chosen, micro_batch_size="auto"))
    with pytest.raises(MisconfigurationException) as raised:
        trainer.fit(Logging(None), DataLoader(TensorDataset(*samples(8)), batch_size=2))
    return str(raised.value)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("strategy", "reason"),
    [
        ("static graph", "with `static_graph=True`, which wants the same backward pass"),
        ("fsdp", "with FSDPStrategy: its processes must all make the same number of passes"),
    ],
)
def test_strategies_that_want_the_same_passes_on_all_are_refused(strategy: str, reason: str) -> None:
    assert all(reason in said for said in run(2, refusal, strategy))
