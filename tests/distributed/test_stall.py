"""A process that is stuck is named, with what all of them do."""

from __future__ import annotations

import time
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
import torch
from tests.distributed.processes import Failed, run
from torch.utils.data import DataLoader, Dataset

from fulmen import LightningModule, Trainer
from fulmen.callbacks import ModelCheckpoint
from fulmen.plugins.io import TorchCheckpointIO
from fulmen.strategies import DDPStrategy

TIMEOUT = 1.5


class Samples(Dataset):
    def __init__(self, stuck: tuple[str, int]) -> None:
        self.place, self.rank = stuck
        self.given = 0

    def __len__(self) -> int:
        return 16

    def __getitem__(self, index: int) -> torch.Tensor:
        self.given += 1
        if self.place == "data" and self.rank == torch.distributed.get_rank() and self.given == 5:
            get_stuck()
        if self.place == "slow start" and self.given == 1:
            time.sleep(2 * TIMEOUT)
        return torch.ones(3)


def get_stuck() -> None:
    time.sleep(3 * TIMEOUT + 1.5)


class Module(LightningModule):
    def __init__(self, stuck: tuple[str, int]) -> None:
        super().__init__()
        self.place, self.rank = stuck
        self.layer = torch.nn.Linear(3, 1)

    def training_step(self, batch: torch.Tensor, batch_idx: int) -> torch.Tensor:
        if self.place == "training_step" and self.global_rank == self.rank and batch_idx == 2:
            get_stuck()
        return self.layer(batch).mean()

    def validation_step(self, batch: torch.Tensor, batch_idx: int) -> None:
        if self.place == "long validation":
            time.sleep(TIMEOUT / 2)

    def configure_optimizers(self) -> Any:
        return torch.optim.SGD(self.parameters(), lr=0.1)


class SlowWriter(TorchCheckpointIO):
    def save_checkpoint(self, checkpoint: Any, path: Any, storage_options: Any = None) -> None:
        time.sleep(2 * TIMEOUT)
        super().save_checkpoint(checkpoint, path, storage_options)


def train(place: str, rank: int, on_stall: Any) -> int:
    strategy = DDPStrategy()
    strategy.stall_timeout, strategy.on_stall = timedelta(seconds=TIMEOUT), on_stall
    trainer = Trainer(
        accelerator="cpu",
        devices=2,
        strategy=strategy,
        max_epochs=1,
        num_sanity_val_steps=0,
        callbacks=[ModelCheckpoint(dirpath="checkpoints")] if place == "long save" else [],
        enable_checkpointing=place == "long save",
        plugins=[SlowWriter()] if place == "long save" else [],
        logger=False,
        enable_progress_bar=False,
        enable_model_summary=False,
    )
    stuck = (place, rank)
    trainer.fit(Module(stuck), DataLoader(Samples(stuck), 2), DataLoader(Samples(("", 0)), 2))
    return trainer.global_step


@pytest.mark.parametrize(
    ("place", "rank", "work", "function"),
    [
        ("data", 1, "waiting for data", "__getitem__"),
        pytest.param("training_step", 0, "training", "training_step", marks=pytest.mark.slow),
        pytest.param("data", 0, "waiting for data", "__getitem__", marks=pytest.mark.slow),
        pytest.param("training_step", 1, "training", "training_step", marks=pytest.mark.slow),
    ],
)
def test_a_process_that_is_stuck_is_named_with_the_stacks_of_all(
    tmp_path: Path, place: str, rank: int, work: str, function: str
) -> None:
    with pytest.raises(Failed) as caught:
        run(2, train, place, rank, "end", cwd=tmp_path, timeout=50)
    report = caught.value.outputs[0]
    assert f"rank {rank} is behind (epoch 0, batch " in report
    assert f"{work}); rank {1 - rank} waits for it" in report
    stack = [line for line in report.splitlines() if line.startswith(f"[rank {rank}]")]
    assert any(f"in {function}" in line for line in stack)
    assert any("in get_stuck" in line for line in stack)
    assert any(line.startswith(f"[rank {1 - rank}]") and "fit_loop" in line for line in report.splitlines())
    for other, output in enumerate(caught.value.outputs):
        assert f"rank {other} ends because rank {rank} is behind" in output
    assert all(caught.value.codes)


def reported(place: str, rank: int) -> tuple[int, str]:
    import contextlib
    import io

    with contextlib.redirect_stderr(io.StringIO()) as said:
        steps = train(place, rank, "report")
    return steps, said.getvalue()


@pytest.mark.slow
def test_a_job_whose_stalls_are_only_reported_goes_on(tmp_path: Path) -> None:
    (steps, report), _ = run(2, reported, "data", 1, cwd=tmp_path)
    assert steps == 4
    assert report.count("no process has advanced") == 1


@pytest.mark.parametrize(
    "place",
    [
        pytest.param("long validation", marks=pytest.mark.slow),
        pytest.param("long save", marks=pytest.mark.slow),
        pytest.param("slow start", marks=pytest.mark.slow),
    ],
)
def test_what_takes_long_by_its_nature_is_not_reported(tmp_path: Path, place: str) -> None:
    (steps, report), _ = run(2, reported, place, 0, cwd=tmp_path)
    assert steps == 4
    assert "no process has advanced" not in report
