from __future__ import annotations

import csv
import logging
import math
import os
from argparse import Namespace
from dataclasses import dataclass
from enum import Enum
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml

from fulmen.loggers import CSVLogger, files
from fulmen.loggers.csv_logs import ExperimentWriter
from fulmen.utilities.rank_zero import rank_zero_only


def rows_of(logger: CSVLogger) -> list[dict[str, str]]:
    with open(os.path.join(logger.log_dir, "metrics.csv"), newline="") as file:
        return list(csv.DictReader(file))


@pytest.mark.parametrize("value", [0.1, 1 / 3, 1e-300, 2**53 + 1, -0.0, 5e-324, 123456789.12345679])
def test_csv_python_number_reads_back_equal(tmp_path, value):
    logger = CSVLogger(tmp_path)
    logger.log_metrics({"loss": value}, step=3)
    logger.save()
    text = rows_of(logger)[0]["loss"]
    assert type(value)(text) == value
    assert math.copysign(1, float(text)) == math.copysign(1, value)


@pytest.mark.parametrize(
    "value", [torch.tensor(0.1), torch.tensor([1 / 3], dtype=torch.float64), np.float32(0.1), np.float64(0.1)]
)
def test_csv_array_scalar_reads_back_equal_in_float64(tmp_path, value):
    logger = CSVLogger(tmp_path)
    logger.log_metrics({"loss": value})
    logger.save()
    assert float(rows_of(logger)[0]["loss"]) == value.item()


def test_csv_not_finite_numbers_read_back(tmp_path):
    logger = CSVLogger(tmp_path)
    logger.log_metrics({"a": float("nan"), "b": -math.inf})
    logger.save()
    assert math.isnan(float(rows_of(logger)[0]["a"]))
    assert float(rows_of(logger)[0]["b"]) == -math.inf


def test_csv_tensor_of_several_elements_is_refused_by_name(tmp_path):
    with pytest.raises(ValueError, match=r"'loss' has the shape \(2,\)"):
        CSVLogger(tmp_path).log_metrics({"loss": torch.ones(2)})


def test_csv_dict_value_becomes_columns(tmp_path):
    logger = CSVLogger(tmp_path)
    logger.log_metrics({"loss": {"train": 1, "val": 2}}, step=0)
    logger.save()
    assert rows_of(logger) == [{"loss/train": "1", "loss/val": "2", "step": "0"}]


def test_csv_new_name_widens_the_file_and_keeps_every_row(tmp_path):
    logger = CSVLogger(tmp_path)
    logger.log_metrics({"loss": 1.5, "note": 'a "quoted", text'}, step=0)
    logger.save()
    logger.log_metrics({"acc": 0.5}, step=1)
    logger.save()
    assert rows_of(logger) == [
        {"acc": "", "loss": "1.5", "note": 'a "quoted", text', "step": "0"},
        {"acc": "0.5", "loss": "", "note": "", "step": "1"},
    ]
    with open(os.path.join(logger.log_dir, "metrics.csv")) as file:
        assert file.readline() == "acc,loss,note,step\n"


def test_csv_failure_while_widening_keeps_file_and_rows(tmp_path):
    class Unprintable:
        def __str__(self) -> str:
            raise RuntimeError("no text")

    writer = ExperimentWriter(str(tmp_path))
    writer.log_metrics({"loss": 1.0}, step=0)
    writer.save()
    before = Path(writer.metrics_file_path).read_bytes()
    writer.log_metrics({"acc": Unprintable()}, step=1)
    with pytest.raises(RuntimeError, match="no text"):
        writer.save()
    assert Path(writer.metrics_file_path).read_bytes() == before
    assert sorted(os.listdir(tmp_path)) == ["hparams.yaml", "metrics.csv"]
    writer.metrics[0]["acc"] = 2.0
    writer.save()
    assert Path(writer.metrics_file_path).read_text() == "acc,loss,step\n,1.0,0\n2.0,,1\n"


def test_csv_save_only_appends_when_nothing_is_new(tmp_path):
    logger = CSVLogger(tmp_path)
    logger.log_metrics({"loss": 1.0}, step=0)
    logger.save()
    path = os.path.join(logger.log_dir, "metrics.csv")
    inode = os.stat(path).st_ino
    logger.log_metrics({"loss": 2.0}, step=1)
    logger.save()
    logger.save()
    assert os.stat(path).st_ino == inode
    assert [row["loss"] for row in rows_of(logger)] == ["1.0", "2.0"]


def test_csv_rows_wait_in_memory_until_so_many_steps_have_passed(tmp_path):
    logger = CSVLogger(tmp_path, flush_logs_every_n_steps=10)
    path = Path(logger.log_dir, "metrics.csv")
    logger.log_metrics({"loss": 1.0}, step=4)
    assert not path.exists()
    logger.log_metrics({"loss": 2.0}, step=9)
    assert len(rows_of(logger)) == 2
    logger.log_metrics({"loss": 3.0}, step=18)
    assert len(rows_of(logger)) == 2
    logger.log_metrics({"loss": 4.0}, step=19)
    assert len(rows_of(logger)) == 4


def test_csv_step_left_out_counts_rows_also_after_saving(tmp_path):
    logger = CSVLogger(tmp_path)
    for _ in range(3):
        logger.log_metrics({"loss": 1.0})
        logger.save()
    assert [row["step"] for row in rows_of(logger)] == ["0", "1", "2"]


def test_csv_second_run_in_a_directory_goes_on_below_and_says_so(tmp_path, caplog):
    first = CSVLogger(tmp_path, version=0)
    first.log_metrics({"loss": 1.0}, step=0)
    first.finalize("success")
    with caplog.at_level(logging.INFO, logger="fulmen"):
        second = CSVLogger(tmp_path, version=0)
        second.log_metrics({"loss": 2.0}, step=1)
        second.log_metrics({"acc": 3.0}, step=2)
        second.finalize("success")
    assert [(row["step"], row["loss"], row["acc"]) for row in rows_of(second)] == [
        ("0", "1.0", ""),
        ("1", "2.0", ""),
        ("2", "", "3.0"),
    ]
    assert [record.getMessage() for record in caplog.records] == [
        f"{second.log_dir}/metrics.csv has 1 rows of an earlier run: new ones go below."
    ]


def test_csv_row_cut_short_by_a_crash_goes_with_a_warning(tmp_path):
    (tmp_path / "metrics.csv").write_text("acc,loss,step\n1.0,2.0,0\n3.0,4")
    writer = ExperimentWriter(str(tmp_path))
    writer.log_metrics({"loss": 5.0}, step=1)
    with pytest.warns(UserWarning, match="cut short"):
        writer.save()
    assert (tmp_path / "metrics.csv").read_text() == "acc,loss,step\n1.0,2.0,0\n,5.0,1\n"


def test_csv_file_without_a_last_line_end_is_continued_on_a_new_line(tmp_path):
    (tmp_path / "metrics.csv").write_text("loss,step\n1.0,0")
    writer = ExperimentWriter(str(tmp_path))
    writer.log_metrics({"loss": 2.0}, step=1)
    writer.save()
    assert (tmp_path / "metrics.csv").read_text() == "loss,step\n1.0,0\n2.0,1\n"


def test_csv_prefix_stands_before_names_but_not_before_step(tmp_path):
    logger = CSVLogger(tmp_path, prefix="big")
    logger.log_metrics({"loss": 1.0}, step=2)
    logger.save()
    assert rows_of(logger) == [{"big-loss": "1.0", "step": "2"}]


def test_csv_version_is_one_more_than_the_highest(tmp_path):
    for name in ("version_0", "version_9", "version_10", "version_x", "version_77_old"):
        (tmp_path / "runs" / name).mkdir(parents=True)
    (tmp_path / "runs" / "version_99").touch()
    logger = CSVLogger(tmp_path, name="runs")
    assert logger.version == 11
    assert logger.log_dir == str(tmp_path / "runs" / "version_11")


def test_csv_version_stays_when_its_directory_appears(tmp_path):
    logger = CSVLogger(tmp_path)
    assert logger.version == 0
    logger.save()
    assert logger.version == 0
    assert CSVLogger(tmp_path).version == 1


@pytest.mark.parametrize("name", [None, ""])
def test_csv_without_a_name_has_no_folder_for_it(tmp_path, name):
    logger = CSVLogger(tmp_path, name=name, version="mine")
    assert (logger.name, logger.log_dir) == ("", str(tmp_path / "mine"))


def test_csv_home_and_variables_in_the_directory_are_put_in(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("RUNS", "mine")
    assert CSVLogger("~/$RUNS").root_dir == str(tmp_path / "mine" / "lightning_logs")


class Color(Enum):
    RED = 1


@dataclass
class Part:
    width: int
    path: Path


def test_csv_hyperparameters_are_plain_yaml_in_their_order(tmp_path):
    logger = CSVLogger(tmp_path)
    logger.log_hyperparams(
        {
            "width": 8,
            "lr": 1e-5,
            "color": Color.RED,
            "part": Part(3, Path("a/b")),
            "dtype": torch.float16,
            "betas": (0.9, np.float64(0.5)),
            "scale": torch.tensor(2.0),
            "space": Namespace(x=None, y=True),
            "activation": torch.nn.ReLU,
            1: {"two": "ü"},
        }
    )
    logger.save()
    text = Path(logger.log_dir, "hparams.yaml").read_text()
    read = yaml.safe_load(text)
    assert list(read.items()) == [
        ("width", 8),
        ("lr", 1e-5),
        ("color", "RED"),
        ("part", {"width": 3, "path": "a/b"}),
        ("dtype", "torch.float16"),
        ("betas", [0.9, 0.5]),
        ("scale", 2.0),
        ("space", {"x": None, "y": True}),
        ("activation", "torch.nn.modules.activation.ReLU"),
        (1, {"two": "ü"}),
    ]


def test_csv_hyperparameters_add_up(tmp_path):
    logger = CSVLogger(tmp_path)
    logger.log_hyperparams({"a": 1, "b": 1})
    logger.save()
    logger.log_hyperparams(Namespace(b=2))
    logger.save()
    assert yaml.safe_load(Path(logger.log_dir, "hparams.yaml").read_text()) == {"a": 1, "b": 2}


def test_csv_run_without_hyperparameters_writes_an_empty_file_and_keeps_an_earlier_one(tmp_path):
    first = CSVLogger(tmp_path, version=0)
    first.save()
    path = Path(first.log_dir, "hparams.yaml")
    assert path.read_text() == "{}\n"
    path.write_text("a: 1\n")
    CSVLogger(tmp_path, version=0).save()
    assert path.read_text() == "a: 1\n"


def test_csv_hyperparameters_that_are_no_mapping_are_refused(tmp_path):
    with pytest.raises(TypeError, match="not as 3"):
        CSVLogger(tmp_path).log_hyperparams(3)  # type: ignore[arg-type]


def test_csv_finalize_of_a_run_that_logged_nothing_leaves_no_directory(tmp_path):
    CSVLogger(tmp_path).finalize("success")
    assert os.listdir(tmp_path) == []


def test_csv_other_ranks_write_nothing(tmp_path, monkeypatch):
    monkeypatch.setattr(rank_zero_only, "rank", 1)
    logger = CSVLogger(tmp_path)
    logger.log_metrics({"loss": 1.0}, step=1)
    logger.log_hyperparams({"a": 1})
    logger.experiment.anything_at_all(1, b=2)
    logger.experiment[3].more()
    logger.save()
    logger.finalize("success")
    assert os.listdir(tmp_path) == []


def test_csv_url_is_written_widened_and_continued(tmp_path):
    root = f"memory://{tmp_path}"
    for version, step in ((0, 0), (0, 1), (None, 2)):
        logger = CSVLogger(root, version=version)
        logger.log_hyperparams({"a": 1})
        for name in ("loss", "loss", f"m{step}"):
            logger.log_metrics({name: 1.0}, step=step)
            logger.save()
    assert logger.version == 1
    assert files.read_text(f"{root}/lightning_logs/version_0/hparams.yaml") == "a: 1\n"
    assert files.read_text(f"{root}/lightning_logs/version_0/metrics.csv") == (
        "loss,m0,m1,step\n1.0,,,0\n1.0,,,0\n,1.0,,0\n1.0,,,1\n1.0,,,1\n,,1.0,1\n"
    )
