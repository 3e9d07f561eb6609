"""Every argument of the Trainer on the command line: what it becomes, and what is printed of it."""

from __future__ import annotations

import inspect

import pytest
import torch

from fulmen import Trainer
from fulmen.accelerators import CPUAccelerator
from fulmen.callbacks import EarlyStopping, LearningRateMonitor
from fulmen.cli import LightningArgumentParser, LightningCLI
from fulmen.demos.boring_classes import BoringModel
from fulmen.loggers import CSVLogger, TensorBoardLogger
from fulmen.plugins import AsyncCheckpointIO, HalfPrecision, SLURMEnvironment
from fulmen.profilers import SimpleProfiler
from fulmen.strategies import DDPStrategy, SingleDeviceStrategy

WRITTEN = {
    "accelerator": {"cpu": "cpu", "auto": "auto", "CPUAccelerator": CPUAccelerator},
    "strategy": {
        "ddp": "ddp",
        "auto": "auto",
        "SingleDeviceStrategy": SingleDeviceStrategy,
        "DDPStrategy": DDPStrategy,
    },
    "devices": {"2": 2, "-1": -1, "auto": "auto", "0,1": "0,1", "[0, 1]": [0, 1]},
    "num_nodes": {"2": 2},
    "precision": {"16": 16, "bf16-mixed": "bf16-mixed", "32-true": "32-true", "torch.bfloat16": torch.bfloat16},
    "logger": {
        "true": True,
        "false": False,
        "{class_path: CSVLogger, init_args: {save_dir: x}}": CSVLogger,
        "[{class_path: CSVLogger, init_args: {save_dir: x}}, "
        "{class_path: fulmen.loggers.TensorBoardLogger, init_args: {save_dir: x}}]": [CSVLogger, TensorBoardLogger],
    },
    "callbacks": {
        "LearningRateMonitor": LearningRateMonitor,
        "[LearningRateMonitor, {class_path: EarlyStopping, init_args: {monitor: x}}]": [
            LearningRateMonitor,
            EarlyStopping,
        ],
        "null": None,
    },
    "fast_dev_run": {"true": True, "3": 3},
    "max_epochs": {"3": 3, "null": None, "-1": -1},
    "min_epochs": {"2": 2},
    "max_steps": {"5": 5},
    "min_steps": {"2": 2},
    "max_time": {"00:00:10:00": "00:00:10:00", "30min": "30min", "{hours: 1, minutes: 2}": {"hours": 1, "minutes": 2}},
    "limit_train_batches": {"5": 5, "1": 1, "1.0": 1.0, "0.5": 0.5},
    "limit_val_batches": {"0": 0, "0.25": 0.25},
    "limit_test_batches": {"1": 1},
    "limit_predict_batches": {"1.0": 1.0},
    "overfit_batches": {"2": 2, "0.1": 0.1},
    "val_check_interval": {
        "100": 100,
        "0.25": 0.25,
        "500step": "500step",
        "30min": "30min",
        "{minutes: 3}": {"minutes": 3},
    },
    "check_val_every_n_epoch": {"2": 2, "null": None},
    "num_sanity_val_steps": {"0": 0},
    "log_every_n_steps": {"0": 0},
    "enable_checkpointing": {"false": False},
    "enable_progress_bar": {"false": False},
    "enable_model_summary": {"false": False},
    "accumulate_grad_batches": {"4": 4},
    "gradient_clip_val": {"1": 1, "0.5": 0.5},
    "gradient_clip_algorithm": {"value": "value"},
    "deterministic": {"true": True, "warn": "warn"},
    "benchmark": {"true": True},
    "inference_mode": {"false": False},
    "use_distributed_sampler": {"false": False},
    "profiler": {"simple": "simple", "SimpleProfiler": SimpleProfiler},
    "detect_anomaly": {"true": True},
    "barebones": {"true": True},
    "plugins": {
        "SLURMEnvironment": SLURMEnvironment,
        "[{class_path: AsyncCheckpointIO}, {class_path: HalfPrecision, init_args: {precision: bf16-true}}]": [
            AsyncCheckpointIO,
            HalfPrecision,
        ],
    },
    "sync_batchnorm": {"true": True},
    "reload_dataloaders_every_n_epochs": {"1": 1},
    "default_root_dir": {"/tmp/here": "/tmp/here"},
    "enable_autolog_hparams": {"false": False},
    "model_registry": {"name": "name"},
    "micro_batch_size": {"auto": "auto", "16": 16},
    "compile": {"true": True, "{mode: reduce-overhead}": {"mode": "reduce-overhead"}},
}


@pytest.fixture(scope="module")
def parser() -> LightningArgumentParser:
    parser = LightningArgumentParser(exit_on_error=False)
    parser.add_lightning_class_args(Trainer, "trainer")
    return parser


def shape(value):
    """Objects as their classes."""
    if isinstance(value, list):
        return [shape(element) for element in value]
    return type(value) if type(value).__module__.startswith("fulmen.") else value


def test_every_argument_of_the_trainer_has_an_example_here() -> None:
    assert WRITTEN.keys() >= inspect.signature(Trainer).parameters.keys()


@pytest.mark.parametrize("name", WRITTEN)
def test_argument_is_what_was_written_and_stays_it_when_printed(parser, name) -> None:
    for text, expected in WRITTEN[name].items():
        config = parser.parse_args([f"--trainer.{name}={text}"])

        value = shape(parser.instantiate(config).trainer[name])

        assert (value, type(value)) == (expected, type(expected)), text
        assert parser.parse_string(parser.dump(config, skip_unset=False)).trainer[name] == config.trainer[name], text


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("max_epochs", "two"),
        ("max_epochs", "1.5"),
        ("limit_train_batches", "half"),
        ("enable_checkpointing", "3"),
        ("callbacks", "NoSuchCallback"),
        ("callbacks", "[CSVLogger]"),
        ("max_steps", "null"),
        ("deterministic", "maybe"),
    ],
)
def test_value_of_another_kind_ends_with_two_and_names_the_argument(name, text, capsys) -> None:
    with pytest.raises(SystemExit) as ended:
        LightningCLI(BoringModel, args=[f"--trainer.{name}={text}"], run=False)

    assert ended.value.code == 2
    assert f"trainer.{name}" in capsys.readouterr().err
