"""A signal or a clock of one process makes all of them save, validate or end after the same batch."""

from __future__ import annotations

import json
import os
import signal
import sys
import time
from contextlib import suppress
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
import torch
from tests.distributed.processes import Failed, run
from torch.utils.data import DataLoader

from fulmen import Callback, LightningModule, Trainer
from fulmen.callbacks import ModelCheckpoint, Timer
from fulmen.plugins.environments import ExitCodeRequeue


class Module(LightningModule):
    def __init__(self, send: dict[int, tuple[int, int]]) -> None:
        super().__init__()
        self.send = send  # by rank: after which batch, which signal
        self.layer = torch.nn.Linear(3, 1)

    def training_step(self, batch: torch.Tensor, batch_idx: int) -> torch.Tensor:
        time.sleep(0.01)
        at, number = self.send.get(self.global_rank, (-1, 0))
        if self.global_step == at:
            os.kill(os.getpid(), number)
        return self.layer(batch).mean()

    def validation_step(self, batch: torch.Tensor, batch_idx: int) -> None:
        pass

    def configure_optimizers(self) -> Any:
        return torch.optim.SGD(self.parameters(), lr=0.1)


class Diary(Callback):
    """Writes down what happened after which batch."""

    def __init__(self) -> None:
        self.validations: list[int] = []

    def on_validation_start(self, trainer: Trainer, pl_module: Any) -> None:
        self.validations.append(trainer.global_step)


def trainer_of(**arguments: Any) -> Trainer:
    return Trainer(
        accelerator="cpu",
        devices=int(os.environ["WORLD_SIZE"]),
        num_sanity_val_steps=0,
        logger=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        **{"max_epochs": -1, "max_steps": 3000, **arguments},
    )


def loader() -> DataLoader:
    return DataLoader(torch.ones(200, 3), batch_size=2)


class Stops(Callback):
    """Sets ``should_stop`` on some ranks after a batch, or at the end of an epoch."""

    def __init__(self, ranks: list[int], after: int, hook: str) -> None:
        self.ranks, self.after = ranks, after
        setattr(self, hook, self.stop)

    def stop(self, trainer: Trainer, *args: Any) -> None:
        if trainer.global_rank in self.ranks and trainer.global_step == self.after:
            trainer.should_stop = True


def train_until_stopped(ranks: list[int], after: int, hook: str) -> dict[str, Any]:
    diary, module = Diary(), Module({})
    trainer = trainer_of(callbacks=[Stops(ranks, after, hook), diary], enable_checkpointing=False)
    trainer.fit(module, loader(), DataLoader(torch.ones(4, 3)))
    return {"steps": trainer.global_step, "validations": diary.validations, "weights": module.layer.weight.tolist()}


@pytest.mark.parametrize(("world", "ranks"), [(2, [1]), (4, [0, 2])])
def test_should_stop_on_some_ranks_ends_all_after_the_same_batch(world, ranks):
    found = run(world, train_until_stopped, ranks, 7, "on_train_batch_end")
    assert all(one == found[0] for one in found)
    assert 7 < found[0]["steps"] < 1000
    assert found[0]["validations"][-1] == found[0]["steps"]


@pytest.mark.parametrize(
    ("after", "hook"), [(7, "on_train_batch_end"), (7, "on_before_zero_grad"), (50, "on_train_epoch_end")]
)
def test_should_stop_on_all_ranks_ends_them_as_one_process(after, hook):
    found = run(2, train_until_stopped, [0, 1], after, hook)
    assert [one["steps"] for one in found] == [after + (hook == "on_before_zero_grad")] * 2
    assert found[0]["validations"] == found[1]["validations"] == [found[0]["steps"]]


class Evaluated(Callback):
    """Sends a signal in the middle of the second validation, once, and counts the batches that were validated on."""

    def __init__(self, rank: int | None) -> None:
        self.rank, self.count = rank, 0

    def state_dict(self) -> dict[str, Any]:
        return {}

    def setup(self, trainer: Trainer, pl_module: Any, stage: str) -> None:
        pl_module.validation_step = lambda batch, batch_idx: self.step(trainer)

    def step(self, trainer: Trainer) -> None:
        self.count += 1
        time.sleep(0.01)
        if self.count == 220 and trainer.global_rank == self.rank:
            os.kill(os.getpid(), signal.SIGTERM)


def validate_until_signal(rank: int | None, ckpt_path: str | None) -> tuple[int, int, list[float]]:
    evaluated, module = Evaluated(rank), Module({})
    trainer = trainer_of(max_epochs=2, default_root_dir=".", callbacks=evaluated)
    few, many = DataLoader(torch.ones(8, 3), batch_size=2), DataLoader(torch.ones(400, 3))
    with suppress(SystemExit):
        trainer.fit(module, few, many, ckpt_path=ckpt_path)
    return evaluated.count, trainer.global_step, module.layer.weight.flatten().tolist()


def test_validation_of_several_processes_is_left_for_a_signal_and_done_again(tmp_path):
    left = run(2, validate_until_signal, 1, None, cwd=tmp_path)
    assert left[0][0] == left[1][0] < 400
    assert left[0][1] == 4
    resumed = run(2, validate_until_signal, None, "auto", cwd=tmp_path)
    assert [count for count, *_ in resumed] == [200, 200]
    assert [step for _, step, _ in resumed] == [4, 4]


class Regression(LightningModule):
    """Random numbers to learn, and a signal to the last process when so many batches were trained on."""

    def __init__(self, at: int | None) -> None:
        super().__init__()
        self.at, self.losses = at, []
        torch.manual_seed(1)
        self.layers = torch.nn.Sequential(torch.nn.Linear(16, 32), torch.nn.Tanh(), torch.nn.Linear(32, 4))

    def training_step(self, batch: torch.Tensor, batch_idx: int) -> torch.Tensor:
        time.sleep(0.005)
        if batch_idx == self.at and self.global_rank == 1:
            os.kill(os.getpid(), signal.SIGTERM)
        loss = (self.layers(batch) - batch[:, :4].sin()).square().mean()
        self.losses.append(loss.item())
        return loss

    def configure_optimizers(self) -> Any:
        return torch.optim.Adam(self.parameters(), lr=0.01)


def train_sharded_until_signal(at: int | None, ckpt_path: str | None) -> tuple[list[float], int]:
    module = Regression(at)
    trainer = trainer_of(
        strategy="fsdp", max_epochs=1, accumulate_grad_batches=3, default_root_dir=".", callbacks=[ModelCheckpoint()]
    )
    points = torch.randn(900, 16, generator=torch.Generator().manual_seed(2))
    with suppress(SystemExit):
        trainer.fit(module, DataLoader(points, batch_size=3), ckpt_path=ckpt_path)
    return module.losses, trainer.global_step


def made(folder: Path) -> Path:
    folder.mkdir()
    return folder


@pytest.mark.parametrize("at", [20, 21])  # the batches of a window are three
def test_sharded_run_asked_to_end_within_a_window_is_the_undisturbed_one_when_it_goes_on(tmp_path, at):
    whole, _ = run(2, train_sharded_until_signal, None, None, cwd=made(tmp_path / "whole"))[0]
    left, steps = run(2, train_sharded_until_signal, at, None, cwd=made(tmp_path / "left"))[0]
    assert 0 < steps < 50
    rest, _ = run(2, train_sharded_until_signal, None, "auto", cwd=tmp_path / "left")[0]
    assert left + rest == whole


def train_until_signal(send: dict[int, tuple[int, int]]) -> None:
    checkpoint = ModelCheckpoint(dirpath="checkpoints", every_n_epochs=10_000)
    requeue = ExitCodeRequeue(99, [signal.SIGUSR1])
    trainer = trainer_of(callbacks=[checkpoint], plugins=[requeue])
    try:
        trainer.fit(Module(send), loader())
    finally:
        print("ended at", trainer.global_step)
        sys.stdout.flush()


@pytest.mark.parametrize(
    ("send", "code"),
    [
        pytest.param({1: (7, signal.SIGTERM)}, 143, id="SIGTERM-to-rank-1"),
        pytest.param({0: (7, signal.SIGTERM), 1: (9, signal.SIGTERM)}, 143, id="SIGTERM-to-all"),
        pytest.param({0: (7, signal.SIGTERM)}, 143, id="SIGTERM-to-rank-0", marks=pytest.mark.slow),
        pytest.param({1: (7, signal.SIGUSR1)}, 99, id="SIGUSR1-to-rank-1"),
        pytest.param({0: (7, signal.SIGUSR1), 1: (9, signal.SIGTERM)}, 99, id="both", marks=pytest.mark.slow),
    ],
)
def test_a_signal_to_any_process_saves_once_and_ends_all_after_the_same_batch(
    tmp_path: Path, send: dict[int, tuple[int, int]], code: int
) -> None:
    with pytest.raises(Failed) as caught:
        run(2, train_until_signal, send, cwd=tmp_path)
    assert caught.value.codes == [code, code]
    ends = [output.split("ended at ")[1].split()[0] for output in caught.value.outputs]
    assert ends[0] == ends[1]
    saved = json.loads((tmp_path / "checkpoints" / "checkpoints.json").read_text())["checkpoints"]
    assert [str(one["step"]) for one in saved] == ends[:1]


def train_until_time_is_over() -> tuple[int, int]:
    seconds = 1.0 if os.environ["LOCAL_RANK"] == "0" else 100.0  # rank 0's clock decides
    timer = Timer(timedelta(seconds=seconds))
    trainer = trainer_of(callbacks=[timer], enable_checkpointing=False)
    begin = time.monotonic()
    trainer.fit(Module({}), loader())
    return trainer.global_step, round(time.monotonic() - begin)


def test_the_clock_of_rank_zero_ends_all_after_the_same_batch(tmp_path: Path) -> None:
    (steps, seconds), (other_steps, _) = run(2, train_until_time_is_over, cwd=tmp_path)
    assert steps == other_steps
    assert 0 < steps < 3000
    assert seconds < 20


def train_by_the_clock() -> tuple[list[int], list[str]]:
    checkpoint = ModelCheckpoint(
        dirpath="checkpoints", train_time_interval=timedelta(seconds=0.7), save_top_k=-1, filename="{step}"
    )
    diary = Diary()
    trainer = trainer_of(callbacks=[checkpoint, diary], max_steps=250, val_check_interval="1s")
    trainer.fit(Module({}), loader(), DataLoader(torch.ones(4, 3)))
    return diary.validations, sorted(checkpoint.best_k_models)


def test_validations_and_checkpoints_by_the_clock_come_after_the_same_batch(tmp_path: Path) -> None:
    (validations, _), (others, _) = run(2, train_by_the_clock, cwd=tmp_path)
    assert validations == others
    assert len(validations) >= 2
    saved = json.loads((tmp_path / "checkpoints" / "checkpoints.json").read_text())["checkpoints"]
    assert sum(one["reason"] == "time" for one in saved) >= 2


def collectives_of(steps: int) -> int:
    calls = 0

    def count(original: Any) -> Any:
        def counted(*args: Any, **kwargs: Any) -> Any:
            nonlocal calls
            calls += 1
            return original(*args, **kwargs)

        return counted

    for name in ("all_reduce", "broadcast", "barrier", "all_gather", "all_gather_object", "broadcast_object_list"):
        setattr(torch.distributed, name, count(getattr(torch.distributed, name)))
    checkpoint = ModelCheckpoint(dirpath="checkpoints", train_time_interval=timedelta(hours=1))
    trainer = trainer_of(callbacks=[checkpoint, Timer("1h")], max_steps=steps, val_check_interval="1h")
    trainer.fit(Module({}), loader(), DataLoader(torch.ones(4, 3)))
    return calls


def test_clocks_cost_no_collective_per_step(tmp_path: Path) -> None:
    few, many = (run(2, collectives_of, steps, cwd=tmp_path) for steps in (10, 60))
    assert all(after - before < 5 for before, after in zip(few, many, strict=True))  # those of one more epoch
