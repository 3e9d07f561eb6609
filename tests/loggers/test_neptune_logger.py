"""NeptuneLogger, with real runs of Neptune that stay on the disk."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from fulmen.callbacks import ModelCheckpoint
from fulmen.demos.boring_classes import BoringModel
from fulmen.loggers import NeptuneLogger

pytest.importorskip("neptune")
pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")


@pytest.fixture(autouse=True)
def _alone(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)


def made(**options: Any) -> NeptuneLogger:
    quiet = {"capture_stdout": False, "capture_stderr": False, "capture_hardware_metrics": False}
    return NeptuneLogger(mode="offline", source_files=[], git_ref=False, **quiet, **options)


def operations(logger: NeptuneLogger, folder: Path) -> list[tuple[str, str, Any]]:
    """What Neptune has written: kind, path in the run, and value."""
    logger.experiment.stop()
    found = []
    for file in sorted(folder.glob(".neptune/offline/*/data-*.log")):
        decoder, text, place = json.JSONDecoder(), file.read_text(), 0
        while place < len(text.rstrip()):
            entry, place = decoder.raw_decode(text, place)
            entry = entry["obj"]
            found.append((entry["type"], "/".join(entry["path"]), entry.get("value", entry.get("values"))))
            place += len(text[place:]) - len(text[place:].lstrip())
    return found


class Model(BoringModel):
    def __init__(self, lr: float = 0.5, sizes: tuple[int, ...] = (1, 2)) -> None:
        super().__init__()
        self.save_hyperparameters()

    def training_step(self, batch, batch_idx):
        self.log("falls", -float(batch_idx))
        return super().training_step(batch, batch_idx)


def test_a_run_has_series_parameters_checkpoints_and_its_end(trainer_of, tmp_path):
    logger = made(name="first")
    saves = ModelCheckpoint(monitor="falls", every_n_train_steps=2)
    trainer_of(
        logger=logger,
        callbacks=[saves],
        enable_checkpointing=True,
        max_epochs=1,
        limit_train_batches=4,
        limit_val_batches=0,
        log_every_n_steps=1,
    ).fit(Model())
    assert logger.name == "first"
    assert logger.version
    assert logger.save_dir == str(tmp_path / ".neptune")

    found = operations(logger, tmp_path)
    series = [value for kind, path, value in found if (kind, path) == ("LogFloats", "training/falls")]
    assert [(each["step"], each["value"]) for values in series for each in values] == [
        (0, 0.0),
        (1, -1.0),
        (2, -2.0),
        (3, -3.0),
    ]
    assert ("AssignFloat", "training/hyperparams/lr", 0.5) in found
    folder = "training/model/checkpoints"
    files = [(kind, path) for kind, path, _ in found if path.startswith(folder)]
    assert files == [
        ("UploadFile", f"{folder}/epoch=0-step=2"),
        ("UploadFile", f"{folder}/epoch=0-step=4"),
        ("DeleteAttribute", f"{folder}/epoch=0-step=2"),
    ]
    assert ("AssignString", "training/model/best_model_path", saves.best_model_path) in found
    assert ("AssignFloat", "training/model/best_model_score", -3.0) in found
    assert ("AssignString", "training/status", "success") in found


def test_prefix_may_be_empty(tmp_path):
    logger = made(prefix="", log_model_checkpoints=False)
    logger.log_metrics({"loss": torch.tensor(0.5)}, step=3)
    logger.log_model_summary(BoringModel())
    kinds = {path: kind for kind, path, _ in operations(logger, tmp_path)}
    assert kinds["loss"] == "LogFloats"
    assert kinds["model/summary"].startswith("UploadFile")


def test_a_run_that_exists_is_used_and_nothing_beside_it():
    import neptune

    run = neptune.init_run(mode="debug", capture_hardware_metrics=False)
    assert NeptuneLogger(run=run).experiment is run
    with pytest.raises(ValueError, match=r"so that name, tags would have no effect"):
        NeptuneLogger(run=run, name="other", tags=["a"])
    run.stop()


def test_auto_without_an_id_warns():
    with pytest.warns(UserWarning, match=r"Write NeptuneLogger\(with_id=...\)"):
        made().return_to_newest_run()
