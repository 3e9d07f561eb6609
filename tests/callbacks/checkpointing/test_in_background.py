"""Checkpoints that are written in the background: the same files, announced once they are there."""

from __future__ import annotations

import errno
import json
import os
import threading
import time
from pathlib import Path
from typing import Any

import pytest

from fulmen import Callback, Trainer
from fulmen.callbacks import ModelCheckpoint
from fulmen.plugins import AsyncCheckpointIO, TorchCheckpointIO
from fulmen.plugins.io import index

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


class GateOfEpochs(Callback):
    """Lets the disk write what the first epoch saved, and holds what the second one saves, for an epoch or two."""

    def __init__(self, disk: Gated, folder: Path, epochs: int) -> None:
        self.disk, self.folder, self.epochs = disk, folder, epochs
        self.seen: list[list[str]] = []  #: in the folder, and in its index, when the third epoch begins
        disk.gate.set()

    def on_train_epoch_start(self, trainer: Trainer, *args: Any) -> None:
        if trainer.current_epoch == 1:
            trainer.strategy.checkpoint_io.settle()
            self.disk.gate.clear()
        if trainer.current_epoch == 2:
            self.seen = [sorted(path.name for path in self.folder.glob("*.ckpt"))]
            self.seen.append(sorted(entry["path"] for entry in entries(self.folder)))
        if trainer.current_epoch == 1 + self.epochs:
            self.disk.gate.set()

    def on_train_end(self, *args: Any) -> None:
        self.disk.gate.set()


@pytest.mark.parametrize("save_last", [None, True])
def test_file_that_falls_out_is_removed_only_once_the_better_one_is_durable(save_last, fit, policy, tmp_path):
    """With the last state the same step writes a second file, and waits for neither."""
    disk = Gated()
    checkpoint = policy(monitor="v", filename="{epoch}", save_last=save_last)
    epochs = GateOfEpochs(disk, tmp_path / "checkpoints", epochs=1)

    fit(checkpoint, epochs, plugins=AsyncCheckpointIO(disk))

    there = ["epoch=0.ckpt", "last.ckpt"] if save_last else ["epoch=0.ckpt"]
    assert epochs.seen == [there, there]
    assert not (tmp_path / "checkpoints" / "epoch=0.ckpt").exists()
    assert Path(checkpoint.best_model_path).is_file()


def test_name_of_a_file_that_is_about_to_be_removed_is_free(fit, policy, tmp_path):
    disk = Gated()
    epochs = GateOfEpochs(disk, tmp_path / "checkpoints", epochs=2)

    fit(policy(filename="{v:.0f}"), epochs, plugins=AsyncCheckpointIO(disk), values=(1.0, 2.0, 1.0, 2.0), max_epochs=3)

    assert epochs.seen[0] == ["v=1.ckpt"]
    assert [entry["path"] for entry in entries(tmp_path / "checkpoints")] == ["v=1.ckpt"]


def test_step_that_replaces_the_best_and_the_last_file_flushes_nothing_to_the_disk(fit, policy, monkeypatch):
    threads, fsync = [], os.fsync

    def noted(descriptor: int) -> None:
        threads.append(threading.current_thread().name)
        fsync(descriptor)

    monkeypatch.setattr(os, "fsync", noted)
    checkpoint = policy(monitor="v", save_last=True)

    fit(checkpoint, NotedFit(threads), plugins=AsyncCheckpointIO(), values=(4.0, 3.0, 2.0, 1.0))

    steps = threads[: threads.index("end of training")]
    assert len(steps) > 20
    assert {name.partition("_")[0] for name in steps} == {"checkpoint-writer"}


class NotedFit(Callback):
    def __init__(self, record: list[str]) -> None:
        self.record = record

    def on_train_end(self, trainer: Trainer, *args: Any) -> None:
        self.record.append("end of training")


class FullAfter(TorchCheckpointIO):
    """A disk that takes a few files, and then no more."""

    def __init__(self, files: int) -> None:
        self.room = files

    def save_checkpoint(self, checkpoint: dict[str, Any], path: Any, storage_options: Any = None) -> None:
        self.room -= 1
        if self.room < 0:
            raise OSError(errno.ENOSPC, "No space left on device", str(path))
        super().save_checkpoint(checkpoint, path, storage_options)


@pytest.mark.parametrize("room", [2, 3])
def test_file_that_does_not_fit_leaves_those_before_it_and_their_index(room, fit, policy, tmp_path):
    folder = tmp_path / "checkpoints"

    with pytest.raises(OSError, match="No space left"):
        fit(policy(monitor="v", filename="{epoch}", save_last=True), plugins=AsyncCheckpointIO(FullAfter(room)))

    named = {2: ["epoch=0.ckpt", "last.ckpt"], 3: ["epoch=1.ckpt", "last.ckpt"]}[room]
    assert sorted(path.name for path in folder.glob("*.ckpt")) == named
    assert sorted(entry["path"] for entry in entries(folder)) == named
    known = index.read(str(folder))
    assert [known.damage(entry) for entry in known.entries] == [None, None]


def test_damaged_index_is_made_anew_in_the_background(fit, policy, tmp_path):
    path = tmp_path / "checkpoints" / "checkpoints.json"

    class Damage(Callback):
        def on_train_epoch_start(self, trainer: Trainer, *args: Any) -> None:
            if trainer.current_epoch == 2:
                trainer.strategy.checkpoint_io.settle()
                path.write_text("{")

    with pytest.warns(UserWarning, match="put aside"):
        fit(policy(filename="{epoch}", save_top_k=-1), Damage(), plugins=AsyncCheckpointIO())

    assert [entry["path"] for entry in entries(path.parent)] == [f"epoch={epoch}.ckpt" for epoch in range(4)]


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
