"""Checkpoints that are written in the background: the same files, announced once they are there."""

from __future__ import annotations

import json
import threading
import time
from pathlib import Path
from typing import Any

import pytest

from fulmen import Callback, Trainer
from fulmen.callbacks import ModelCheckpoint
from fulmen.plugins import AsyncCheckpointIO, TorchCheckpointIO

POLICIES: dict[str, dict[str, Any]] = {
    "newest": {},
    "best": {"monitor": "v", "filename": "{epoch}-{v}"},
    "best two and last": {"monitor": "v", "save_top_k": 2, "save_last": True},
    "best and a link to it": {"monitor": "v", "save_last": "link"},
    "all, with names that are taken": {"filename": "one", "save_top_k": -1, "every_n_train_steps": 1},
    "newest of every step": {"every_n_train_steps": 1},
}


def names_and_contents(folder: Path) -> dict[str, bytes]:
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file() and path.suffix == ".ckpt"
    }


def entries(folder: Path) -> list[dict[str, Any]]:
    listed = json.loads((folder / "checkpoints.json").read_text())["checkpoints"]
    return [{key: value for key, value in entry.items() if key != "written"} for entry in listed]


@pytest.mark.parametrize("name", POLICIES)
def test_policy_leaves_the_files_that_it_leaves_when_they_are_written_at_once(name, fit, tmp_path, monkeypatch):
    left = []
    for plugin in (TorchCheckpointIO(), AsyncCheckpointIO()):
        place = tmp_path / type(plugin).__name__
        place.mkdir()
        monkeypatch.chdir(place)
        policy = ModelCheckpoint(dirpath=place, **POLICIES[name])
        fit(policy, plugins=plugin)
        kept = {path.removeprefix(str(place)): float(score) for path, score in policy.best_k_models.items()}
        paths = [path.removeprefix(str(place)) for path in (policy.best_model_path, policy.last_model_path)]
        left.append(
            (sorted(names_and_contents(place)), [e | {"checksum": "", "size": 0} for e in entries(place)], kept, paths)
        )

    assert left[0] == left[1]


class Gated(TorchCheckpointIO):
    """A slow disk: writes nothing until it is opened."""

    def __init__(self) -> None:
        self.gate = threading.Event()

    def save_checkpoint(self, checkpoint: dict[str, Any], path: Any, storage_options: Any = None) -> None:
        assert self.gate.wait(20)
        super().save_checkpoint(checkpoint, path, storage_options)


def test_best_file_is_announced_only_once_it_is_durable(fit, policy, tmp_path):
    disk, seen = Gated(), []
    checkpoint = policy(monitor="v", save_top_k=-1)

    class Look(Callback):
        def on_train_batch_start(self, trainer: Trainer, *args: Any) -> None:
            path = checkpoint.best_model_path
            seen.append((trainer.current_epoch, path))
            assert not path or Path(path).is_file()
            if trainer.current_epoch == 1:
                disk.gate.set()

    fit(checkpoint, Look(), plugins=AsyncCheckpointIO(disk))

    assert (1, "") in seen  # saved at the end of the first epoch, and not there yet
    assert checkpoint.best_model_path == str(tmp_path / "checkpoints" / "epoch=1-step=6.ckpt")


def test_file_that_falls_out_is_removed_only_once_the_better_one_is_durable(fit, policy, tmp_path):
    disk, seen = Gated(), []
    checkpoint = policy(monitor="v", filename="{epoch}")

    class Look(Callback):
        def on_train_epoch_start(self, trainer: Trainer, *args: Any) -> None:
            if trainer.current_epoch == 1:
                disk.gate.set()
                trainer.strategy.checkpoint_io.settle()
                disk.gate.clear()
            if trainer.current_epoch == 2:
                seen.extend(sorted(path.name for path in (tmp_path / "checkpoints").glob("*.ckpt")))
                disk.gate.set()

    fit(checkpoint, Look(), plugins=AsyncCheckpointIO(disk))

    assert seen == ["epoch=0.ckpt"]
    assert not (tmp_path / "checkpoints" / "epoch=0.ckpt").exists()
    assert Path(checkpoint.best_model_path).is_file()


class Slow(TorchCheckpointIO):
    """A disk that takes longer than a step."""

    def save_checkpoint(self, checkpoint: dict[str, Any], path: Any, storage_options: Any = None) -> None:
        time.sleep(0.02)
        super().save_checkpoint(checkpoint, path, storage_options)


def test_index_names_only_files_that_are_there_while_others_are_being_written(fit, policy, tmp_path):
    index, seen = tmp_path / "checkpoints" / "checkpoints.json", []

    class Look(Callback):
        def on_train_batch_start(self, trainer: Trainer, *args: Any) -> None:
            for entry in entries(index.parent) if index.exists() else []:
                assert (index.parent / entry["path"]).stat().st_size == entry["size"]
                seen.append(entry["path"])

    fit(policy(every_n_train_steps=1, save_top_k=-1), Look(), plugins=AsyncCheckpointIO(Slow()))

    assert len(set(seen)) > 5
    assert len(entries(index.parent)) == 12
