"""Checkpoints of modules whose parameters are spread over processes: written whole or in shards, and gone on from by
any number of processes.
"""

from __future__ import annotations

import contextlib
import io
import json
import os
import pickle
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import torch
from tests.distributed.processes import run
from tests.distributed.test_fsdp import Net, loader, trainer_of, whole

from fulmen import Callback
from fulmen.__main__ import main
from fulmen.callbacks import ModelCheckpoint
from fulmen.plugins.environments.lightning import find_free_network_port
from fulmen.plugins.io import AsyncCheckpointIO
from fulmen.plugins.io.distributed_plugin import DistributedCheckpointIO
from fulmen.plugins.io.torch_plugin import read_checkpoint
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


def in_a_window(kind: str, path: str, ckpt: str | None) -> dict[str, Any]:
    """Save within the second accumulation window, or go on from there."""
    torch.manual_seed(1)
    module = Net()

    class Save(Callback):
        def on_train_batch_end(self, trainer: Any, pl_module: Any, outputs: Any, batch: Any, batch_idx: int) -> None:
            if ckpt is None and trainer.progress.total_batches == 4:  # before the fifth
                trainer.boundary.defer(lambda: trainer.save_checkpoint(path))

    strategy = strategy_of(kind)
    trainer = trainer_of(strategy, 2, max_epochs=1, accumulate_grad_batches=3, callbacks=[Save()], precision="64-true")
    trainer.fit(module, loader(56, 4), ckpt_path=ckpt)
    return state_of(trainer, module)


@pytest.mark.parametrize("kind", ["full", "sharded"])
def test_a_run_goes_on_within_an_accumulation_window(kind: str, tmp_path: Path) -> None:
    path = str(tmp_path / "run.ckpt")
    straight = run(2, in_a_window, kind, path, None)[0]
    resumed = run(2, in_a_window, kind, path, path)[0]
    for name, value in straight["weights"].items():
        torch.testing.assert_close(resumed["weights"][name], value, rtol=0, atol=1e-12)


def with_callback(folder: str, asynchronous: bool, steps: int) -> Any:
    torch.manual_seed(1)
    module, strategy = Net(), FSDPStrategy(state_dict_type="sharded")
    checkpoint = ModelCheckpoint(
        folder, every_n_train_steps=1, save_top_k=2, monitor="step", mode="max", save_last=True
    )
    arguments: dict[str, Any] = {"plugins": [AsyncCheckpointIO()]} if asynchronous else {}
    trainer = trainer_of(
        strategy, 2, max_steps=steps, max_epochs=-1, callbacks=[checkpoint], enable_checkpointing=True, **arguments
    )
    trainer.fit(module, loader(24, 4))
    return checkpoint.best_model_path, state_of(trainer, module)


@pytest.mark.parametrize("asynchronous", [False, True])
def test_a_callback_keeps_folders_of_shards_and_removes_those_that_fall_out(asynchronous: bool, tmp_path: Path) -> None:
    (best, end), other = run(2, with_callback, str(tmp_path), asynchronous, 4)
    assert best == other[0] == str(tmp_path / "epoch=1-step=4.ckpt")
    assert sorted(os.listdir(tmp_path)) == [
        "checkpoints.json",
        "epoch=0-step=3.ckpt",
        "epoch=1-step=4.ckpt",
        "last.ckpt",
    ]
    entries = json.loads((tmp_path / "checkpoints.json").read_text())["checkpoints"]
    assert {entry["path"] for entry in entries} == {"epoch=0-step=3.ckpt", "epoch=1-step=4.ckpt", "last.ckpt"}
    for entry in entries:
        assert entry["size"] == sum(file.stat().st_size for file in (tmp_path / entry["path"]).iterdir())
    module = Net.load_from_checkpoint(best)
    assert all(torch.equal(value, end["weights"][name]) for name, value in module.state_dict().items())


def saving_on(path: str) -> None:
    torch.manual_seed(1)
    module = Net(width=64)
    trainer = trainer_of(FSDPStrategy(state_dict_type="sharded"), 2, max_steps=1, max_epochs=-1)
    trainer.fit(module, loader(24, 4))
    while True:
        trainer.save_checkpoint(path)
        print("saved", flush=True)


KILLED = """
import os, sys
from tests.distributed.test_sharded_checkpoints import saving_on
saving_on(sys.argv[1])
"""


def test_processes_that_are_killed_while_they_save_leave_a_whole_folder(tmp_path: Path) -> None:
    path = tmp_path / "run.ckpt"
    variables = {"WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "NODE_RANK": "0", "OMP_NUM_THREADS": "1"}
    for attempt in range(2):
        port = find_free_network_port()
        started = [
            subprocess.Popen(
                [sys.executable, "-c", KILLED, str(path)],
                env={**os.environ, **variables, "MASTER_PORT": str(port), "LOCAL_RANK": str(rank)},
                cwd=Path(__file__).parents[2],
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
                text=True,
            )
            for rank in range(2)
        ]
        try:
            for _ in range(2 + attempt):
                assert started[0].stdout is not None
                assert started[0].stdout.readline() == "saved\n"
            time.sleep(0.003 * attempt)
        finally:
            for process in started:
                process.send_signal(signal.SIGKILL)
            for process in started:
                process.communicate()
        assert Net.load_from_checkpoint(path).hparams["width"] == 64


class Evil:
    def __reduce__(self) -> Any:
        return os.mkdir, ("made_by_reading",)


@pytest.mark.parametrize("file", [".metadata", "meta.pt"])
def test_reading_a_folder_of_shards_calls_nothing_that_it_names(
    file: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    saved_alone(tmp_path / "run.ckpt")
    if file == ".metadata":
        (tmp_path / "run.ckpt" / file).write_bytes(pickle.dumps(Evil()))
    else:
        torch.save({"evil": Evil()}, tmp_path / "run.ckpt" / file)
    with pytest.raises(pickle.UnpicklingError, match="mkdir"):
        Net.load_from_checkpoint("run.ckpt")
    assert not (tmp_path / "made_by_reading").exists()


def saved_alone(path: Path) -> None:
    torch.manual_seed(1)
    trainer = trainer_of("auto", 1, max_steps=2, max_epochs=-1)
    trainer.fit(Net(), loader(24, 4))
    trainer.strategy.checkpoint_io = DistributedCheckpointIO()
    trainer.save_checkpoint(path)


def test_a_damaged_folder_of_shards_is_told(tmp_path: Path) -> None:
    path = tmp_path / "run.ckpt"
    saved_alone(path)
    shard = next(path.glob("*.distcp"))
    shard.write_bytes(shard.read_bytes()[:-100])
    with pytest.raises(RuntimeError, match=r"run\.ckpt cannot be read, it is damaged"):
        Net.load_from_checkpoint(path)
    shard.unlink()
    with pytest.raises(RuntimeError, match="is missing"):
        Net.load_from_checkpoint(path)


def test_a_sharded_checkpoint_goes_to_a_local_folder_only() -> None:
    with pytest.raises(ValueError, match="state_dict_type='full'"):
        DistributedCheckpointIO().save_checkpoint({}, "s3://bucket/run.ckpt")


def command(*arguments: Any) -> tuple[int, str]:
    output = io.StringIO()
    with contextlib.redirect_stdout(output), contextlib.redirect_stderr(output):
        code = main(["checkpoint", *map(str, arguments)])
    return code, output.getvalue()


def test_consolidate_and_shard_bring_a_checkpoint_there_and_back(tmp_path: Path) -> None:
    folder, file, again = tmp_path / "run.ckpt", tmp_path / "one.ckpt", tmp_path / "again.ckpt"
    saved_alone(folder)
    code, told = command("consolidate", folder, file)
    assert code == 0, told
    assert command("shard", file, again)[0] == 0
    one, other = torch.load(file, weights_only=True), read_checkpoint(again)
    assert list(one) == list(other) == list(read_checkpoint(folder))
    assert one["state_dict"].keys() == other["state_dict"].keys()
    first, second = one["optimizer_states"][0], other["optimizer_states"][0]
    assert first["param_groups"] == second["param_groups"]
    assert all(torch.equal(first["state"][3][name], value) for name, value in second["state"][3].items())
    assert gone_on(1, "auto", str(file), 3)["start"]["weights"].keys() == one["state_dict"].keys()


def test_consolidate_and_shard_lose_nothing(tmp_path: Path) -> None:
    folder, file = tmp_path / "run.ckpt", tmp_path / "one.ckpt"
    saved_alone(folder)
    assert command("consolidate", folder)[0] == 0
    for arguments, told in (
        (("consolidate", folder), "is there already"),
        (("consolidate", tmp_path), "is no folder of shards"),
        (("consolidate", file), "there is no folder"),
        (("shard", folder, file), "is a folder of shards already"),
        (("shard", f"{folder}.consolidated", folder), "is there already"),
        (("shard", f"{folder}.consolidated", tmp_path, "--force"), "is no folder of shards"),
    ):
        code, output = command(*arguments)
        assert code == 2
        assert told in output
