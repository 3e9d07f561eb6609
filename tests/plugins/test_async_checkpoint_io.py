"""Checkpoints that are written in the background are those that would have been written at once."""

from __future__ import annotations

import errno
import random
import threading
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from fulmen import Callback, LightningModule, Trainer, seed_everything
from fulmen.callbacks import ModelCheckpoint
from fulmen.plugins import AsyncCheckpointIO, TorchCheckpointIO
from fulmen.plugins.io import index


class Gated(TorchCheckpointIO):
    """A slow disk: writes nothing until it is opened."""

    def __init__(self) -> None:
        self.gate = threading.Event()
        self.written: list[str] = []

    def save_checkpoint(self, checkpoint: dict[str, Any], path: Any, storage_options: Any = None) -> None:
        assert self.gate.wait(20)
        super().save_checkpoint(checkpoint, path, storage_options)
        self.written.append(Path(path).name)


class Full(TorchCheckpointIO):
    """A disk with no space left."""

    def save_checkpoint(self, checkpoint: dict[str, Any], path: Any, storage_options: Any = None) -> None:
        raise OSError(errno.ENOSPC, "No space left on device", str(path))


class Model(LightningModule):
    def __init__(self) -> None:
        super().__init__()
        self.encoder = nn.Linear(4, 4)
        self.decoder = nn.Linear(4, 4)
        self.decoder.weight = self.encoder.weight  # tied

    def training_step(self, batch: Tensor, batch_idx: int) -> Tensor:
        return self.decoder(self.encoder(batch)).pow(2).mean()

    def train_dataloader(self) -> Any:
        return torch.utils.data.DataLoader(torch.rand(16, 4), batch_size=2)

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.Adam(self.parameters(), lr=0.1)


class SaveEach(Callback):
    """Saves after each batch."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.batches = 0

    def on_train_batch_end(self, trainer: Trainer, *args: Any) -> None:
        self.batches += 1
        trainer.save_checkpoint(self.folder / f"{self.batches}.ckpt")


def fit(checkpoint_io: Any, *callbacks: Callback, **flags: Any) -> Trainer:
    seed_everything(1, verbose=False)
    trainer = Trainer(
        max_epochs=1,
        accelerator="cpu",
        logger=False,
        enable_checkpointing=flags.pop("enable_checkpointing", False),
        enable_progress_bar=False,
        enable_model_summary=False,
        callbacks=list(callbacks),
        plugins=checkpoint_io,
        **flags,
    )
    trainer.fit(Model())
    return trainer


def test_files_written_while_training_goes_on_equal_those_written_at_once_byte_for_byte(tmp_path: Path) -> None:
    fit(TorchCheckpointIO(), SaveEach(tmp_path / "at_once"))
    fit(AsyncCheckpointIO(), SaveEach(tmp_path / "behind"))

    for number in range(1, 9):
        at_once, behind = (tmp_path / where / f"{number}.ckpt" for where in ("at_once", "behind"))
        assert behind.read_bytes() == at_once.read_bytes()


def test_file_holds_the_state_of_the_moment_of_the_save_when_the_disk_is_slow(tmp_path: Path) -> None:
    weight = torch.zeros(3)
    disk = Gated()
    files = AsyncCheckpointIO(disk)
    files.save_checkpoint({"weight": weight, "list": (counts := [1])}, tmp_path / "a.ckpt")
    weight += 1
    counts.append(2)
    disk.gate.set()
    files.settle()

    saved = TorchCheckpointIO().load_checkpoint(tmp_path / "a.ckpt")
    assert saved["weight"].tolist() == [0, 0, 0]
    assert saved["list"] == [1]


class Marked(Tensor):
    """A user's own kind of tensor."""


def states() -> dict[str, Any]:
    network = nn.Sequential(nn.Linear(3, 3), nn.BatchNorm1d(3))
    optimizer = torch.optim.Adam(network.parameters())
    network(torch.rand(2, 3)).sum().backward()
    optimizer.step()
    text = "one object"
    large = torch.arange(12.0)
    loop: list[Any] = [1]
    loop.append(loop)
    return {
        "module": network.state_dict(),  # with the versions of its parts
        "optimizer": optimizer.state_dict(),
        "views": [large[2:5], large.view(3, 4).t(), large],
        "parameter": network[0].weight,
        "graph": large.clone().requires_grad_() * 2,
        "conjugate": torch.rand(3, dtype=torch.complex64).conj(),
        "sparse": torch.eye(3).to_sparse(),
        "numbers": [torch.tensor(True), torch.rand(2).half(), torch.rand(0, 3), torch.tensor(5)],
        "same": [text, text, (text, large)],
        "array": np.arange(3.0),
        "random": random.Random(1).getstate(),
        "loop": loop,
        "tensor of its own kind": torch.rand(2).as_subclass(Marked),
    }


@pytest.mark.parametrize("name", list(states()))
def test_file_equals_the_one_written_at_once_for_state_of_every_kind(name: str, tmp_path: Path) -> None:
    state = {name: states()[name], "again": states()[name]}
    state["again"] = state[name]
    at_once, behind = tmp_path / "at_once.ckpt", tmp_path / "behind.ckpt"
    TorchCheckpointIO().save_checkpoint(state, at_once)
    files = AsyncCheckpointIO()
    for _ in range(4):  # the later ones are copied to memory that was used before
        files.save_checkpoint(state, behind)
    files.settle()

    assert behind.read_bytes() == at_once.read_bytes()


def test_save_waits_when_the_disk_is_slower_than_the_saves(tmp_path: Path) -> None:
    disk = Gated()
    files = AsyncCheckpointIO(disk)
    for number in range(2):
        files.save_checkpoint({"n": number}, tmp_path / f"{number}.ckpt")
    third = threading.Thread(target=files.save_checkpoint, args=({"n": 2}, tmp_path / "2.ckpt"))
    third.start()
    third.join(0.2)
    assert third.is_alive()

    disk.gate.set()
    third.join(20)
    files.settle()
    assert disk.written == ["0.ckpt", "1.ckpt", "2.ckpt"]


def test_end_of_fit_waits_for_the_disk(tmp_path: Path) -> None:
    disk = Gated()
    threading.Timer(0.3, disk.gate.set).start()
    fit(AsyncCheckpointIO(disk), SaveOnce(tmp_path, at=8))
    assert disk.written == ["8.ckpt"]


class SaveOnce(SaveEach):
    def __init__(self, folder: Path, at: int) -> None:
        super().__init__(folder)
        self.at = at

    def on_train_batch_end(self, trainer: Trainer, *args: Any) -> None:
        self.batches += 1
        if self.batches == self.at:
            trainer.save_checkpoint(self.folder / f"{self.batches}.ckpt")
            wait_for_the_writer(trainer)


def wait_for_the_writer(trainer: Trainer) -> None:
    """Until it has failed, or for a moment if it has not."""
    deadline = time.monotonic() + 0.2
    while not trainer.boundary.waiting and time.monotonic() < deadline:
        time.sleep(0.001)


def test_error_of_the_writer_is_raised_at_the_next_step_boundary(tmp_path: Path) -> None:
    saver = SaveOnce(tmp_path, at=3)
    with pytest.raises(OSError, match="No space left on device") as caught:
        fit(AsyncCheckpointIO(Full()), saver)
    assert caught.value.filename == str(tmp_path / "3.ckpt")
    assert saver.batches == 3


def test_error_of_the_last_write_is_raised_by_fit(tmp_path: Path) -> None:
    class SaveAtTheEnd(Callback):
        def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
            trainer.save_checkpoint(tmp_path / "end.ckpt")

    with pytest.raises(OSError, match="No space left"):
        fit(AsyncCheckpointIO(Full()), SaveAtTheEnd())


def test_error_of_a_save_outside_of_a_run_is_raised_by_it(tmp_path: Path) -> None:
    trainer = fit(AsyncCheckpointIO(Full()))
    with pytest.raises(OSError, match="No space left"):
        trainer.save_checkpoint(tmp_path / "a.ckpt")


def test_checkpoint_that_is_still_being_written_can_be_read_at_once(tmp_path: Path) -> None:
    disk = Gated()
    files = AsyncCheckpointIO(disk)
    files.save_checkpoint({"n": 1}, tmp_path / "a.ckpt")
    threading.Timer(0.1, disk.gate.set).start()
    assert files.load_checkpoint(tmp_path / "a.ckpt") == {"n": 1}


def test_checkpoint_that_is_still_being_written_can_be_removed(tmp_path: Path) -> None:
    disk = Gated()
    files = AsyncCheckpointIO(disk)
    files.save_checkpoint({"n": 1}, tmp_path / "a.ckpt")
    threading.Timer(0.1, disk.gate.set).start()
    files.remove_checkpoint(tmp_path / "a.ckpt")
    assert disk.written == ["a.ckpt"]
    assert not list(tmp_path.iterdir())


def test_plugin_can_be_used_by_another_trainer_after_a_run(tmp_path: Path) -> None:
    files = AsyncCheckpointIO()
    for folder in ("first", "second"):
        fit(files, SaveEach(tmp_path / folder))
    assert (tmp_path / "second" / "8.ckpt").read_bytes() == (tmp_path / "first" / "8.ckpt").read_bytes()


def test_no_thread_is_left_after_a_run(tmp_path: Path) -> None:
    before = set(threading.enumerate())
    fit(AsyncCheckpointIO(), SaveEach(tmp_path))
    assert not set(threading.enumerate()) - before


def test_file_that_is_written_over_in_the_background_is_not_named_meanwhile(tmp_path: Path) -> None:
    class Watched(TorchCheckpointIO):
        """Writes down what the index says while a new file is there that it does not know."""

        named: list[str]
        written = threading.Event()

        def save_checkpoint(self, checkpoint: dict[str, Any], path: Any, storage_options: Any = None) -> None:
            super().save_checkpoint(checkpoint, path, storage_options)
            known = index.read(str(tmp_path))
            self.named += [entry.path for entry in known.entries if known.damage(entry) is not None]
            self.written.set()

    class Slow(Model):
        """Ends its step only when the file of the step before is there, but not announced yet."""

        def on_train_batch_end(self, *args: Any) -> None:
            if self.global_step > 1:
                assert disk.written.wait(20)
                disk.written.clear()
                time.sleep(0.02)

    disk = Watched()
    disk.named = []
    trainer = Trainer(
        max_epochs=1,
        accelerator="cpu",
        logger=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        callbacks=ModelCheckpoint(tmp_path, every_n_train_steps=1, save_top_k=0, save_last=True),
        plugins=AsyncCheckpointIO(disk),
    )
    trainer.fit(Slow())

    assert disk.named == []
    assert [entry.path for entry in index.read(str(tmp_path)).entries] == ["last.ckpt"]
