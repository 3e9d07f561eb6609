"""Averaged weights of several processes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from tests.distributed.processes import run
from torch import nn
from torch.optim.swa_utils import update_bn
from torch.utils.data import DataLoader, TensorDataset

from fulmen import LightningModule, Trainer
from fulmen.callbacks import EMAWeightAveraging, ModelPruning, StochasticWeightAveraging, WeightAveraging
from fulmen.strategies import FSDPStrategy


class Net(LightningModule):
    """Notes the loss of each validation.

    Args:
        counts: it has a buffer that differs between the processes.
    """

    def __init__(self, counts: bool) -> None:
        super().__init__()
        self.counts = counts
        self.enter = nn.Linear(3, 5)
        self.blocks = nn.ModuleList([nn.Linear(5, 5) for _ in range(2)])
        self.leave = nn.Linear(5, 1)
        self.register_buffer("seen", torch.zeros(3))
        self.validated: list[float] = []

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if self.training and self.counts:
            self.seen += x.detach().sum(0)
        x = self.enter(x + 0.001 * self.seen)
        for block in self.blocks:
            x = x + torch.tanh(block(x))
        return self.leave(x)

    def training_step(self, batch: Any, batch_idx: int) -> torch.Tensor:
        return nn.functional.mse_loss(self(batch[0]), batch[1])

    def validation_step(self, batch: Any, batch_idx: int) -> None:
        loss = self.training_step(batch, batch_idx)
        self.log("val_loss", loss)

    def on_validation_epoch_end(self) -> None:
        self.validated.append(float(self.trainer.callback_metrics["val_loss"]))

    def configure_optimizers(self) -> Any:
        return torch.optim.AdamW(self.parameters(), lr=0.05)


class EverySecondStep(WeightAveraging):
    """As a user writes it, in a module of his own."""

    def should_update(self, step_idx: int | None = None, epoch_idx: int | None = None) -> bool:
        return step_idx is not None and step_idx % 2 == 1


STRATEGIES: dict[str, Any] = {
    "shards": lambda: FSDPStrategy(state_dict_type="sharded"),
    "gathered": lambda: FSDPStrategy(sharding_strategy="SHARD_GRAD_OP"),  # parameters stay gathered after evaluation
}


def whole(tensor: Any) -> torch.Tensor:
    return (tensor.full_tensor() if hasattr(tensor, "full_tensor") else tensor).detach().cpu().clone()


class Normed(Net):
    def __init__(self) -> None:
        super().__init__(counts=False)
        self.blocks = nn.ModuleList([nn.BatchNorm1d(5)])


CALLBACKS: dict[str, Any] = {
    "own": EverySecondStep,
    "ema": lambda: EMAWeightAveraging(decay=0.9),
    "elsewhere": lambda: EMAWeightAveraging(device="cpu"),
    "late": lambda: StochasticWeightAveraging(0.01, swa_epoch_start=2),
    "pruned": lambda: ModelPruning("random_unstructured", resample_parameters=True, amount=0.3),
}


def data_of(samples: int = 24) -> TensorDataset:
    generator = torch.Generator().manual_seed(3)
    return TensorDataset(torch.randn(samples, 3, generator=generator), torch.randn(samples, 1, generator=generator))


def trained(
    strategy: str,
    world: int,
    kind: str,
    path: Any = None,
    resume: Any = None,
    epochs: int = 3,
    counts: bool = False,
    samples: int = 24,
) -> dict[str, Any]:
    torch.manual_seed(1 if resume is None else 2)
    module = Normed() if kind == "late" else Net(counts)
    loader = DataLoader(data_of(samples), batch_size=8 // world)
    trainer = Trainer(
        accelerator="cpu",
        devices=world,
        strategy=STRATEGIES.get(strategy, lambda: strategy)(),
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        num_sanity_val_steps=0,
        max_epochs=epochs,
        callbacks=CALLBACKS[kind](),
        accumulate_grad_batches=2,
    )
    trainer.fit(module, loader, loader, ckpt_path=resume)
    if path is not None:
        trainer.save_checkpoint(path)
    weights = {name: whole(value) for name, value in module.state_dict().items()}
    return {"weights": weights, "validated": module.validated}


@pytest.mark.parametrize(
    ("strategy", "kind"), [("ddp", "own"), ("shards", "own"), pytest.param("fsdp", "ema", marks=pytest.mark.slow)]
)
def test_run_with_averages_goes_on_exactly_in_two_processes(tmp_path: Path, strategy: str, kind: str) -> None:
    path, counts = tmp_path / "k.ckpt", strategy == "ddp"
    complete = run(2, trained, strategy, 2, kind, None, None, 3, counts)
    run(2, trained, strategy, 2, kind, path, None, 2, counts)
    resumed = run(2, trained, strategy, 2, kind, None, path, 3, counts)

    assert complete[0]["validated"] == complete[1]["validated"]
    for rank in (0, 1):
        torch.testing.assert_close(resumed[rank]["weights"], complete[rank]["weights"], rtol=0, atol=0)
        assert resumed[rank]["validated"] == complete[rank]["validated"][2:]


@pytest.mark.parametrize(("strategy", "kind"), [("gathered", "own"), ("ddp", "ema")])
def test_averages_of_two_processes_are_those_of_one_with_their_batches(strategy: str, kind: str) -> None:
    alone = trained("auto", 1, kind)
    for each in run(2, trained, strategy, 2, kind):
        torch.testing.assert_close(each["weights"], alone["weights"], rtol=0, atol=1e-5)
        assert each["validated"] == pytest.approx(alone["validated"], abs=1e-5)


def test_averages_kept_elsewhere_are_refused_with_shards() -> None:
    with pytest.raises(AssertionError, match=r"EMAWeightAveraging\(device='cpu'\) under FSDPStrategy"):
        run(2, trained, "fsdp", 2, "elsewhere")


def test_process_without_a_last_batch_averages_with_the_others() -> None:
    first, second = run(2, trained, "ddp", 2, "own", None, None, 3, False, 12)

    torch.testing.assert_close(second["weights"], first["weights"], rtol=0, atol=0)


def test_statistics_of_batch_norms_are_those_of_the_batches_of_all_processes() -> None:
    first, second = run(2, trained, "ddp", 2, "late")
    torch.testing.assert_close(second["weights"], first["weights"], rtol=0, atol=0)

    alone = Normed()
    alone.load_state_dict(first["weights"])
    update_bn(DataLoader(data_of(), batch_size=4), alone)
    torch.testing.assert_close(dict(alone.state_dict()), first["weights"], rtol=0, atol=1e-6)


def test_random_pruning_is_the_same_in_all_processes(tmp_path: Path) -> None:
    first, second = run(2, trained, "ddp", 2, "pruned", tmp_path / "k.ckpt", None, 2)
    torch.testing.assert_close(second["weights"], first["weights"], rtol=0, atol=0)

    resumed = run(2, trained, "ddp", 2, "pruned", None, tmp_path / "k.ckpt")
    complete = run(2, trained, "ddp", 2, "pruned")
    torch.testing.assert_close(resumed[1]["weights"], complete[0]["weights"], rtol=0, atol=0)


@pytest.mark.parametrize(
    ("kind", "message"),
    [("late", "StochasticWeightAveraging cannot average under FSDPStrategy"), ("pruned", "ModelPruning cannot prune")],
)
def test_what_needs_whole_parameters_is_refused_with_shards(kind: str, message: str) -> None:
    with pytest.raises(AssertionError, match=message):
        run(2, trained, "fsdp", 2, kind)
