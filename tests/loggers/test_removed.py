"""The directory of a run is removed while it lasts: training goes on, and warnings say what is lost."""

from __future__ import annotations

import csv
import json
import shutil
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from fulmen import Callback, Trainer
from fulmen.callbacks import ModelCheckpoint
from fulmen.demos.boring_classes import BoringModel
from fulmen.loggers import CSVLogger, TensorBoardLogger
from fulmen.plugins import AsyncCheckpointIO, TorchCheckpointIO


class Model(BoringModel):
    """Logs the step that it makes, and a ``score`` for each epoch that is worse than the one before."""

    def __init__(self) -> None:
        super().__init__()
        self.save_hyperparameters({"width": 32})

    def training_step(self, batch: Any, batch_idx: int) -> Any:
        self.log("made", float(self.global_step))
        return super().training_step(batch, batch_idx)

    def on_train_epoch_end(self) -> None:
        self.log("score", float(self.current_epoch))


class Remove(Callback):
    """Somebody removes something when the third of five epochs begins."""

    def __init__(self, path: Callable[[Trainer], Path]) -> None:
        self.path = path

    def on_train_epoch_start(self, trainer: Trainer, *args: Any) -> None:
        if trainer.current_epoch == 2:
            trainer.strategy.checkpoint_io.settle()
            path = self.path(trainer)
            shutil.rmtree(path) if path.is_dir() else path.unlink()


def run(logger: Any, path: Callable[[Trainer], Path], **options: Any) -> tuple[ModelCheckpoint, list[str]]:
    """Train five epochs of two steps; returns the checkpoint callback and the warnings."""
    best = ModelCheckpoint(monitor="score", filename="{epoch}", save_top_k=2, save_last=True)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        trainer = Trainer(
            accelerator="cpu",
            max_epochs=5,
            limit_train_batches=2,
            limit_val_batches=0,
            log_every_n_steps=1,
            logger=logger,
            enable_progress_bar=False,
            enable_model_summary=False,
            callbacks=[Remove(path), best],
            **options,
        )
        trainer.fit(Model())
    return best, [str(each.message) for each in caught if "removed" in str(each.message)]


def log_dir(trainer: Trainer) -> Path:
    return Path(str(trainer.log_dir))


def rows(logger: CSVLogger) -> list[float]:
    with open(f"{logger.log_dir}/metrics.csv") as file:
        return [float(row["made"]) for row in csv.DictReader(file) if row["made"]]


def test_csv_run_goes_on_in_a_new_directory(tmp_path):
    logger = CSVLogger(tmp_path, flush_logs_every_n_steps=1)

    _, said = run(logger, log_dir)

    assert rows(logger) == [4, 5, 6, 7, 8, 9]
    assert (tmp_path / "lightning_logs" / "version_0" / "hparams.yaml").read_text() == "width: 32\n"
    assert len(said) == 2
    assert "The 6 rows that were in metrics.csv are lost" in said[0]


def test_csv_file_that_is_removed_is_begun_with_its_header(tmp_path):
    logger = CSVLogger(tmp_path)

    _, said = run(logger, lambda trainer: log_dir(trainer) / "metrics.csv")

    assert rows(logger) == [4, 5, 6, 7, 8, 9]
    assert len(said) == 1


def test_tensorboard_run_goes_on_in_a_new_directory(tmp_path):
    logger = TensorBoardLogger(tmp_path)

    _, said = run(logger, log_dir)

    found = EventAccumulator(logger.log_dir).Reload()
    assert [event.value for event in found.Scalars("made")] == [4, 5, 6, 7, 8, 9]
    assert (Path(logger.log_dir) / "hparams.yaml").exists()
    assert len(said) == 2
    assert "event files" in said[0]


@pytest.mark.parametrize("plugin", [TorchCheckpointIO, AsyncCheckpointIO])
def test_best_files_that_are_removed_make_room_for_the_next_ones(plugin, tmp_path):
    """They were better than all that follow."""
    folder = tmp_path / "lightning_logs" / "version_0" / "checkpoints"

    best, said = run(CSVLogger(tmp_path), log_dir, plugins=plugin())

    assert sorted(path.name for path in folder.glob("*.ckpt")) == ["epoch=2.ckpt", "epoch=3.ckpt", "last.ckpt"]
    assert sorted(Path(path).name for path in best.best_k_models) == ["epoch=2.ckpt", "epoch=3.ckpt"]
    assert best.best_model_path == str(folder / "epoch=2.ckpt")
    named = [entry["path"] for entry in json.loads((folder / "checkpoints.json").read_text())["checkpoints"]]
    assert sorted(named) == ["epoch=2.ckpt", "epoch=3.ckpt", "last.ckpt"]
    assert "epoch=0.ckpt" in said[-1]
    assert "epoch=1.ckpt" in said[-1]


def test_one_file_that_is_removed_is_named_no_more(tmp_path):
    folder = tmp_path / "lightning_logs" / "version_0" / "checkpoints"

    best, said = run(CSVLogger(tmp_path), lambda trainer: folder / "epoch=0.ckpt")

    assert sorted(Path(path).name for path in best.best_k_models) == ["epoch=1.ckpt", "epoch=2.ckpt"]
    named = [entry["path"] for entry in json.loads((folder / "checkpoints.json").read_text())["checkpoints"]]
    assert sorted(named) == ["epoch=1.ckpt", "epoch=2.ckpt", "last.ckpt"]
    assert len(said) == 1
