"""What ModelCheckpoint leaves when a run ends, in its time or before it, and what it tells the index."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest
import torch

from fulmen.callbacks.callback import Callback
from fulmen.callbacks.model_checkpoint import ModelCheckpoint
from fulmen.plugins.io import index
from fulmen.plugins.io.torch_plugin import TorchCheckpointIO
from fulmen.utilities.exceptions import SIGTERMException


class EndAt(Callback):
    """Ends the run before its time at the boundary after the batch of this number, as a signal does."""

    def __init__(self, batch: int, *writers: ModelCheckpoint) -> None:
        self.batch = batch
        self.writers = writers
        self.paths: list[Any] = []

    def on_train_batch_end(self, trainer: Any, *args: Any) -> None:
        if trainer.progress.total_batches == self.batch:
            trainer.boundary.defer(lambda: trainer.boundary.defer(lambda: self._end(trainer)))  # after what is due

    def _end(self, trainer: Any) -> None:
        self.paths = [writer.save_now(trainer, "SIGTERM") for writer in self.writers]
        raise SIGTERMException


@pytest.fixture
def named(tmp_path: Path) -> Any:
    """What the index of the checkpoints says: for each file the reason."""

    def named() -> dict[str, str]:
        known = index.read(str(tmp_path / "checkpoints"))
        assert [known.damage(entry) for entry in known.entries] == [None] * len(known.entries)
        return {entry.path.removesuffix(".ckpt"): entry.reason for entry in known.entries}

    return named


# -- the index --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        ({}, {"epoch=3-step=12": "epoch"}),
        ({"every_n_train_steps": 6, "save_top_k": -1}, {"epoch=1-step=6": "step", "epoch=3-step=12": "step"}),
        ({"train_time_interval": "0s"}, {"epoch=3-step=12": "time"}),
        ({"monitor": "v", "save_last": True}, {"epoch=1-step=6": "epoch", "last": "final"}),
        ({"monitor": "v"}, {"epoch=1-step=6": "epoch", "last": "final"}),
        ({"every_n_train_steps": 5}, {"epoch=3-step=12": "final"}),
        ({"monitor": "v", "save_last": "link"}, {"epoch=1-step=6": "epoch", "last": "final"}),
        ({"save_last": "link"}, {"epoch=3-step=12": "epoch"}),
        ({"save_top_k": 0, "save_last": True}, {"last": "final"}),
    ],
)
def test_every_file_is_named_with_its_reason(fit, policy, named, left, arguments, expected):
    fit(policy(**arguments))

    assert named() == expected
    assert set(expected) == {name for name, held in left().items() if not isinstance(held, str)}


def test_entry_says_how_far_the_run_was_and_what_it_was_ranked_by(fit, policy, tmp_path):
    fit(policy(monitor="v"), accumulate_grad_batches=2)
    best = json.loads((tmp_path / "checkpoints" / "checkpoints.json").read_text())["checkpoints"][0]

    assert {key: best[key] for key in ("path", "step", "epoch", "batch", "metric")} == {
        "path": "epoch=1-step=4.ckpt",
        "step": 4,
        "epoch": 1,
        "batch": 6,
        "metric": {"name": "v", "value": 1.0},
    }


def test_files_with_weights_only_are_marked(fit, policy, tmp_path):
    fit(policy(save_weights_only=True))

    assert [entry.weights_only for entry in index.read(str(tmp_path / "checkpoints")).entries] == [True]


def test_file_that_an_exception_leaves_is_named(fit, policy, named, scored):
    class Breaks(scored):
        def training_step(self, batch: Any, batch_idx: int) -> Any:
            if self.trainer.global_step == 4:
                raise RuntimeError("broken")
            return super().training_step(batch, batch_idx)

    with pytest.raises(RuntimeError, match="broken"):
        fit(policy(save_on_exception=True), model=Breaks([1.0] * 4))

    assert named() == {"epoch=0-step=3": "epoch", "epoch=1-step=4": "exception"}


class SeenAtEachWrite(TorchCheckpointIO):
    """Notes what the index names whenever something is written or removed, and whether it is there."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.seen: list[list[str]] = []

    def _look(self) -> None:
        known = index.read(str(self.folder))
        assert [known.damage(entry) for entry in known.entries] == [None] * len(known.entries)
        self.seen.append([entry.path for entry in known.entries])

    def save_checkpoint(self, *args: Any, **kwargs: Any) -> None:
        self._look()
        super().save_checkpoint(*args, **kwargs)
        self._look()

    def remove_checkpoint(self, path: Any) -> None:
        self._look()
        super().remove_checkpoint(path)
        self._look()


def test_file_is_named_after_it_is_written_and_forgotten_before_it_goes(fit, policy, tmp_path):
    disk = SeenAtEachWrite(tmp_path / "checkpoints")
    fit(policy(), max_epochs=2, plugins=disk)
    one, two = "epoch=0-step=3.ckpt", "epoch=1-step=6.ckpt"

    assert disk.seen == [[], [], [one], [one], [two], [two]]


def test_last_is_not_named_while_it_is_written_over(fit, policy, tmp_path):
    disk = SeenAtEachWrite(tmp_path / "checkpoints")
    fit(policy(save_top_k=0, save_last=True), max_epochs=2, plugins=disk)

    assert disk.seen == [[]] * 6


class FullDisk(TorchCheckpointIO):
    """Has room for so many checkpoints."""

    def __init__(self, room: int) -> None:
        self.room = room

    def save_checkpoint(self, checkpoint: Any, path: Any, storage_options: Any = None) -> None:
        if self.room == 0:
            raise OSError(28, "No space left on device", str(path))
        self.room -= 1
        super().save_checkpoint(checkpoint, path, storage_options)


def test_last_that_cannot_be_written_over_stays_and_stays_named(fit, policy, left, named):
    with pytest.raises(OSError, match=r"No space left.*last\.ckpt"):
        fit(policy(save_top_k=0, save_last=True), plugins=FullDisk(1))

    assert left() == {"last": (0, 3)}
    assert named() == {"last": "last"}


@pytest.mark.skipif(hasattr(os, "geteuid") and os.geteuid() == 0, reason="root may write anywhere")
def test_folder_that_may_not_be_written_to_is_an_error_that_names_it(fit, policy, tmp_path):
    folder = tmp_path / "checkpoints"
    folder.mkdir(mode=0o500)
    with pytest.raises(PermissionError, match=str(folder)):
        fit(policy())


def test_checkpoints_that_are_kept_elsewhere_are_not_named(fit, policy, tmp_path):
    class Elsewhere(TorchCheckpointIO):
        def save_checkpoint(self, checkpoint: Any, path: Any, storage_options: Any = None) -> None:
            super().save_checkpoint(checkpoint, tmp_path / "elsewhere" / os.path.basename(path))

        def remove_checkpoint(self, path: Any) -> None:
            super().remove_checkpoint(tmp_path / "elsewhere" / os.path.basename(path))

        def digest(self, path: Any) -> Any:
            raise FileNotFoundError(path)

    fit(policy(), plugins=Elsewhere())

    assert index.read(str(tmp_path / "checkpoints")).entries == []


# -- a run that ends in its time --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "files"),
    [
        ({"every_n_epochs": 3}, {"epoch=3-step=12": (4, 12)}),
        ({"every_n_epochs": 3, "save_top_k": -1}, {"epoch=2-step=9": (2, 9), "epoch=3-step=12": (4, 12)}),
        ({"monitor": "v"}, {"epoch=1-step=6": (1, 6), "last": (4, 12)}),
        ({"monitor": "v", "mode": "max"}, {"epoch=3-step=12": (3, 12)}),
        ({"monitor": "v", "save_last": False}, {"epoch=1-step=6": (1, 6)}),
        ({"monitor": "v", "save_top_k": 0}, {}),
        ({"every_n_epochs": 3, "save_last": False}, {"epoch=2-step=9": (2, 9)}),
        ({"monitor": "v", "save_last": "link"}, {"epoch=1-step=6": (1, 6), "last": (4, 12)}),
        ({"every_n_train_steps": 0}, {}),
    ],
)
def test_final_state_is_in_a_file(fit, policy, left, arguments, files):
    fit(policy(**arguments))

    assert left() == files


def test_final_state_that_another_callback_has_saved_is_not_saved_again(fit, policy, left):
    fit(policy(filename="newest"), policy(monitor="v"))

    assert left() == {"epoch=1-step=6": (1, 6), "newest": (3, 12)}


def test_last_of_a_run_that_goes_on_goes_when_a_newer_file_is_there(fit, policy, left):
    checkpoint = policy(monitor="v")
    trainer = fit(checkpoint, values=[3.0, 1.0, 2.0, 4.0, 0.5])
    assert left() == {"epoch=1-step=6": (1, 6), "last": (4, 12)}
    trainer.max_epochs = 5
    with pytest.warns(UserWarning, match="not empty"):
        trainer.fit(trainer.lightning_module)

    assert left() == {"epoch=4-step=15": (4, 15)}
    assert checkpoint.last_model_path == ""


# -- a run that ends before its time ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "batch", "files"),
    [
        ({}, 4, {"epoch=0-step=3": (0, 3), "last": (1, 4)}),
        ({"save_last": False}, 4, {"epoch=0-step=3": (0, 3), "last": (1, 4)}),
        ({"save_last": "link"}, 4, {"epoch=0-step=3": (0, 3), "last": (1, 4)}),
        ({"save_last": True}, 4, {"epoch=0-step=3": (0, 3), "last": (1, 4)}),
        ({"save_top_k": 0}, 4, {"last": (1, 4)}),
        ({"save_top_k": 0, "save_last": False}, 4, {}),
        ({"save_weights_only": True}, 4, {"epoch=0-step=3": (0, 3)}),
        ({"every_n_train_steps": 4}, 4, {"epoch=1-step=4": (1, 4)}),
    ],
)
def test_state_of_the_end_is_in_exactly_one_file(fit, policy, left, named, arguments, batch, files):
    checkpoint = policy(**arguments)
    end = EndAt(batch, checkpoint)
    with pytest.raises(SIGTERMException):
        fit(checkpoint, end)

    assert left() == files
    assert named().get("last", "SIGTERM") == "SIGTERM"
    held = [name for name, place in files.items() if place == (1, 4)]
    assert [Path(path).stem if path else None for path in end.paths] == (held or [None])


def test_state_in_the_middle_of_an_accumulation_window_is_another_one(fit, policy, left):
    checkpoint = policy(every_n_train_steps=1)
    with pytest.raises(SIGTERMException):
        fit(checkpoint, EndAt(4, checkpoint), accumulate_grad_batches=2)

    assert left() == {"epoch=0-step=2": (0, 2), "last": (1, 2)}
    assert torch.load(checkpoint.last_model_path, weights_only=True)["loops"]["progress"]["total_batches"] == 4


def test_second_callback_finds_that_the_state_is_saved(fit, policy, left):
    first, second = policy(filename="a"), policy(monitor="v", filename="b")
    end = EndAt(4, first, second)
    with pytest.raises(SIGTERMException):
        fit(first, second, end)

    assert end.paths == [str(Path(first.dirpath) / "last.ckpt")] * 2
    assert list(left()) == ["a", "b", "last"]


def test_nothing_is_saved_outside_of_training(fit, policy, left):
    checkpoint = policy()
    trainer = fit(checkpoint, max_epochs=1)

    assert checkpoint.save_now(trainer, "SIGTERM") is None
    assert list(left()) == ["epoch=0-step=3"]


@pytest.mark.parametrize("arguments", [{}, {"monitor": "v"}, {"save_last": True}, {"save_last": "link"}])
def test_run_that_ended_before_its_time_and_goes_on_leaves_the_files_of_one_run(fit, policy, left, arguments, tmp_path):
    whole = policy(**arguments)
    fit(whole)
    expected = left()
    os.rename(tmp_path / "checkpoints", tmp_path / "whole")
    first = policy(**arguments)
    with pytest.raises(SIGTERMException):
        fit(first, EndAt(4, first))
    resumed = policy(**arguments)
    fit(resumed, ckpt_path="auto", values=[1.0, 2.0, 4.0])

    assert left() == expected
    for name in ("best_model_path", "last_model_path", "best_model_score", "current_score"):
        assert getattr(resumed, name) == getattr(whole, name)


# -- the state of the callback ----------------------------------------------------------------------------------------


def test_time_since_the_last_save_goes_on_in_the_next_process(fit, policy):
    checkpoint = policy(train_time_interval="1h", save_last=True)
    with pytest.raises(SIGTERMException):
        fit(checkpoint, EndAt(4, checkpoint))
    path = Path(checkpoint.dirpath) / "last.ckpt"
    content = torch.load(path, weights_only=True)
    content["callbacks"][checkpoint.state_key]["run"]["trigger"]["seconds"] = 3600.0
    torch.save(content, path)
    resumed = policy(train_time_interval="1h", save_last=True)
    fit(resumed, ckpt_path=str(path), values=[1.0] * 4)

    assert Path(resumed.best_model_path).stem == "epoch=1-step=5"


def test_save_that_waits_for_its_metric_still_does_so_in_the_next_process(fit, policy, scored, left):
    arguments = {"monitor": "v", "every_n_train_steps": 2, "save_last": True}
    checkpoint = policy(**arguments)
    with pytest.raises(SIGTERMException):
        fit(checkpoint, EndAt(2, checkpoint), max_epochs=1)
    assert left() == {"last": (0, 2)}
    fit(policy(**arguments), ckpt_path="auto", max_epochs=1)

    assert list(left()) == ["epoch=0-step=3", "last"]
