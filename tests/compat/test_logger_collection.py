"""The loggers of 1.x, and the private names that other packages take from Lightning's."""

from __future__ import annotations

from typing import Any

import pytest

from fulmen import Trainer
from fulmen.compat.logger_collection import LoggerCollection
from fulmen.loggers import CSVLogger

from .census import is_there

pytestmark = pytest.mark.filterwarnings("ignore::fulmen.utilities.warnings.LightningDeprecationWarning")


@pytest.mark.parametrize(
    "name",
    [
        *(f"lightning.fabric.utilities.logger.{name}" for name in ("_add_prefix", "_convert_params", "_flatten_dict")),
        "lightning.fabric.utilities.logger._sanitize_callable_params",
        "lightning.fabric.utilities.logger._sanitize_params",
        "lightning.pytorch.loggers.utilities._scan_checkpoints",
        *(f"pytorch_lightning.utilities.logger.{name}" for name in ("_flatten_dict", "_sanitize_params")),
        "pytorch_lightning.utilities.logger._scan_checkpoints",
        *(f"pytorch_lightning.loggers.base.{name}" for name in ("DummyExperiment", "DummyLogger", "LoggerCollection")),
        "pytorch_lightning.loggers.base.rank_zero_experiment",
    ],
)
def test_a_private_name_that_others_take_is_there(name: str) -> None:
    assert is_there(name)


def test_several_loggers_as_one_hear_everything(tmp_path: Any) -> None:
    both = LoggerCollection([CSVLogger(tmp_path / name, name=name, version=name * 2) for name in "ab"])
    both.log_hyperparams({"lr": 0.5})
    both.log_metrics({"loss": 1.0}, step=3)
    both.finalize("success")
    for name in "ab":
        folder = tmp_path / name / name / (name * 2)
        assert (folder / "metrics.csv").read_text() == "loss,step\n1.0,3\n"
        assert (folder / "hparams.yaml").read_text() == "lr: 0.5\n"
    assert (both.name, both.version, both.save_dir) == ("a_b", "aa_bb", str(tmp_path / "a"))
    assert len(both.experiment) == len(both) == 2


def test_a_trainer_takes_the_loggers_out_of_a_collection(tmp_path: Any) -> None:
    both = LoggerCollection([CSVLogger(tmp_path / "a"), CSVLogger(tmp_path / "b")])
    trainer = Trainer(accelerator="cpu", logger=both)
    assert trainer.loggers == [both[0], both[1]]
