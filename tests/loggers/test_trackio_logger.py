"""TrackioLogger, with Trackio's real database."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from fulmen import Callback
from fulmen.callbacks import ModelCheckpoint
from fulmen.demos.boring_classes import BoringModel
from fulmen.loggers import TrackioLogger

trackio = pytest.importorskip("trackio")


@pytest.fixture(autouse=True)
def _alone(monkeypatch, tmp_path):
    """Trackio reads the folder once, when it is imported; its modules have it, and what is in it, under many names."""
    place = trackio.TRACKIO_DIR
    for name, module in list(sys.modules.items()):
        if name.partition(".")[0] == "trackio":
            for key, value in list(vars(module).items()):
                if isinstance(value, Path) and value.is_relative_to(place):
                    monkeypatch.setattr(module, key, tmp_path / value.relative_to(place))


def made(**options: Any) -> TrackioLogger:
    return TrackioLogger(**{"project": "here", "auto_log_cpu": False, "auto_log_gpu": False, **options})


def rows(logger: TrackioLogger) -> list[dict[str, Any]]:
    found = trackio.SQLiteStorage.get_logs(logger.name, logger.version)
    return [{name: value for name, value in row.items() if name != "timestamp"} for row in found]


class Model(BoringModel):
    def __init__(self, lr: float = 0.5) -> None:
        super().__init__()
        self.save_hyperparameters()

    def training_step(self, batch, batch_idx):
        self.log("loss", batch_idx / 4)
        return super().training_step(batch, batch_idx)


class Died(BaseException):
    pass


class Dies(Callback):
    def on_train_batch_end(self, trainer, *arguments):
        if trainer.global_step == 6:
            raise Died


def fit(trainer_of: Any, logger: TrackioLogger, *callbacks: Any, **how: Any) -> None:
    torch.manual_seed(1)
    trainer_of(
        logger=logger,
        callbacks=[ModelCheckpoint(every_n_train_steps=3, save_top_k=-1), *callbacks],
        enable_checkpointing=True,
        max_epochs=1,
        limit_train_batches=8,
        limit_val_batches=0,
        log_every_n_steps=1,
    ).fit(Model(), **how)


def test_a_run_has_its_rows_and_parameters(trainer_of, tmp_path):
    logger = made(prefix="own")
    fit(trainer_of, logger)
    assert rows(logger) == [{"own-loss": step / 4, "own-epoch": 0, "step": step} for step in range(8)]
    assert trackio.SQLiteStorage.get_run_config(logger.name, logger.version)["lr"] == 0.5
    assert Path(tmp_path / "here.db").exists()


def test_a_run_that_died_goes_on_without_a_row_twice(trainer_of, tmp_path):
    with pytest.raises(Died):
        fit(trainer_of, made(name="one"), Dies(), ckpt_path="auto")
    logger = made(name="one")
    fit(trainer_of, logger, ckpt_path="auto")
    assert rows(logger) == [{"loss": step / 4, "epoch": 0, "step": step} for step in range(8)]


def test_a_later_verb_goes_on_in_the_same_run(trainer_of, tmp_path):
    logger = made()
    logger.log_metrics({"a": torch.tensor(1.0)}, 0)
    logger.finalize("success")
    logger.log_metrics({"a": 2.0}, 1)
    logger.finalize("success")
    assert rows(logger) == [{"a": 1.0, "step": 0}, {"a": 2.0, "step": 1}]


def test_checkpoints_become_artifacts(trainer_of, tmp_path):
    logger = made(name="one", log_model=True)
    fit(trainer_of, logger)
    stored = trackio.SQLiteStorage.get_artifacts("here")
    assert [(each["name"], each["type"]) for each in stored] == [("model-one", "model")]


def test_auto_without_a_name_warns():
    with pytest.warns(UserWarning, match=r"Write TrackioLogger\(name=...\)"):
        made().return_to_newest_run()
