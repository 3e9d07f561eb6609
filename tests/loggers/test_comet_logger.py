"""CometLogger, with real experiments of Comet that stay on the disk."""

from __future__ import annotations

import json
import pickle
import zipfile
from pathlib import Path
from typing import Any

import pytest
import torch

from fulmen.demos.boring_classes import BoringModel
from fulmen.loggers import CometLogger
from fulmen.utilities.warnings import LightningDeprecationWarning

pytest.importorskip("comet_ml")


@pytest.fixture(autouse=True)
def _alone(monkeypatch, tmp_path):
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("COMET_DISABLE_AUTO_LOGGING", "1")
    monkeypatch.setenv("COMET_LOGGING_CONSOLE", "critical")


def made(folder: Path, **options: Any) -> CometLogger:
    quiet = {"log_code": False, "log_git_metadata": False, "log_env_details": False, "auto_output_logging": False}
    return CometLogger(online=False, offline_directory=str(folder), **quiet, **options)


def messages(logger: CometLogger, folder: Path) -> list[dict[str, Any]]:
    """What Comet has written, in the order of its files."""
    logger.experiment.end()
    found = []
    for path in sorted(folder.glob(f"{logger.version}*.zip"), key=lambda path: path.stat().st_mtime_ns):
        with zipfile.ZipFile(path) as archive:
            found += [json.loads(line) for line in archive.read("messages.json").splitlines()]
    return found


def metrics(found: list[dict[str, Any]]) -> list[tuple[str, float, int, int]]:
    sent = [message["payload"]["metric"] for message in found if message["type"] == "metric_msg"]
    return [
        (each["metricName"], each["metricValue"], each["step"], each["epoch"])
        for each in sent
        if each["metricName"] != "process duration"
    ]


class Model(BoringModel):
    def __init__(self, lr: float = 0.5) -> None:
        super().__init__()
        self.save_hyperparameters()

    def training_step(self, batch, batch_idx):
        self.log("loss", batch_idx / 4)
        return super().training_step(batch, batch_idx)


def test_a_run_is_an_experiment_with_its_metrics_parameters_and_graph(trainer_of, tmp_path):
    logger = made(tmp_path / "comet", project="here", prefix="own")
    trainer_of(logger=logger, max_epochs=1, limit_train_batches=2, limit_val_batches=0, log_every_n_steps=1).fit(
        Model()
    )
    assert (logger.name, logger.save_dir) == ("here", str(tmp_path / "comet"))
    assert logger.version == logger.experiment.get_key()

    found = messages(logger, tmp_path / "comet")
    assert metrics(found) == [("own_loss", 0.0, 0, 0), ("own_loss", 0.25, 1, 0)]
    parameters = [message["payload"]["param"] for message in found if message["type"] == "parameter_msg"]
    assert ("lr", 0.5) in [(each["paramName"], each["paramValue"]) for each in parameters]
    assert any(message["type"] == "graph" and "Linear" in message["payload"]["graph"] for message in found)


def test_nothing_is_begun_before_the_experiment_is_asked_for(tmp_path):
    logger = made(tmp_path / "comet", experiment_key="a" * 32)
    assert logger.version == "a" * 32
    logger.finalize("success")
    assert not (tmp_path / "comet").exists()


def test_a_copy_goes_on_in_the_same_experiment(tmp_path):
    logger = made(tmp_path / "comet", mode="create")
    logger.log_metrics({"loss": torch.tensor(1.0)}, step=0)
    again = pickle.loads(pickle.dumps(logger))
    logger.experiment.end()
    again.log_metrics({"loss": 2.0}, step=1)
    assert [value for _, value, *_ in metrics(messages(again, tmp_path / "comet"))] == [1.0, 2.0]


def test_names_of_before_are_taken_with_a_word(tmp_path):
    old: dict[str, Any] = {"project_name": "here", "save_dir": str(tmp_path), "offline": True}
    with pytest.warns(LightningDeprecationWarning) as told:
        logger = CometLogger(**old)
    assert [str(each.message).split("`")[3] for each in told] == ["project", "offline_directory", "online"]
    assert (logger.name, logger.save_dir) == ("here", str(tmp_path))


def test_auto_without_a_key_warns(tmp_path):
    with pytest.warns(UserWarning, match=r"Write CometLogger\(experiment_key=...\)"):
        made(tmp_path).return_to_newest_run()
