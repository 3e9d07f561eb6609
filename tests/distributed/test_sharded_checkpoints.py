"""Checkpoints of modules whose parameters are spread over processes: written whole or in shards, and gone on from by
any number of processes.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from tests.distributed.processes import run
from tests.distributed.test_fsdp import Net, loader, trainer_of, whole

from fulmen import Callback
from fulmen.strategies import FSDPStrategy


class State(Callback):
    """Notes what a run begins with, as one process has it."""

    def on_train_start(self, trainer: Any, pl_module: Any) -> None:
        self.found = state_of(trainer, pl_module)


def state_of(trainer: Any, module: Any) -> dict[str, Any]:
    states = trainer.optimizers[0].state_dict()["state"]
    return {
        "weights": {name: whole(value) for name, value in module.state_dict().items()},
        "optimizer": {
            f"{number}.{name}": whole(value) for number, one in states.items() for name, value in one.items()
        },
    }


def equal(one: dict[str, Any], other: dict[str, Any]) -> bool:
    return all(
        one[part].keys() == other[part].keys() and all(torch.equal(value, other[part][name]) for name, value in each)
        for part in ("weights", "optimizer")
        for each in (one[part].items(),)
    )


def strategy_of(kind: str) -> Any:
    return FSDPStrategy(state_dict_type=kind) if kind in ("full", "sharded") else kind  # type: ignore[arg-type]


def saved(world: int, kind: str, path: str) -> dict[str, Any]:
    torch.manual_seed(1)
    module = Net()
    trainer = trainer_of(strategy_of(kind), world, max_steps=3, max_epochs=-1)
    trainer.fit(module, loader(24, 4))
    trainer.save_checkpoint(path)
    return state_of(trainer, module)


def gone_on(world: int, kind: str, path: str, steps: int = 5) -> dict[str, Any]:
    torch.manual_seed(2)
    module, state = Net(), State()
    trainer = trainer_of(strategy_of(kind), world, max_steps=steps, max_epochs=-1, callbacks=[state])
    trainer.fit(module, loader(24, 4), ckpt_path=path)
    return {"start": state.found, "end": state_of(trainer, module)}


@pytest.mark.parametrize("kind", ["full", "sharded"])
def test_a_run_goes_on_from_a_checkpoint_with_any_number_of_processes(kind: str, tmp_path: Path) -> None:
    path = str(tmp_path / "run.ckpt")
    before = run(2, saved, 2, kind, path)[0]
    assert (tmp_path / "run.ckpt").is_dir() is (kind == "sharded")
    assert equal(gone_on(1, "auto", path)["start"], before)
    for each in run(4, gone_on, 4, "sharded", path):
        assert equal(each["start"], before)
    for each in run(2, gone_on, 2, "ddp", path):
        assert equal(each["start"], before)


def test_a_run_that_goes_on_with_as_many_processes_ends_as_one_that_never_stopped(tmp_path: Path) -> None:
    path = str(tmp_path / "run.ckpt")
    run(2, saved, 2, "sharded", path)
    resumed = run(2, gone_on, 2, "sharded", path)[0]["end"]
    straight = run(2, trained_to, 2, 5)[0]
    assert equal(resumed, straight)


def trained_to(world: int, steps: int) -> dict[str, Any]:
    torch.manual_seed(1)
    module = Net()
    trainer = trainer_of("fsdp", world, max_steps=steps, max_epochs=-1)
    trainer.fit(module, loader(24, 4))
    return state_of(trainer, module)


def test_a_sharded_checkpoint_is_loaded_without_processes(tmp_path: Path) -> None:
    path = tmp_path / "run.ckpt"
    before = run(2, saved, 2, "sharded", str(path))[0]
    module = Net.load_from_checkpoint(path)
    assert module.hparams == {"width": 5, "lr": 0.05}
    assert all(torch.equal(value, before["weights"][name]) for name, value in module.state_dict().items())
