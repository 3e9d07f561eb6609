"""Import paths that only Lightning 0.x and 1.x had."""

from __future__ import annotations

import sys
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest
import torch
import torchmetrics
from torch import nn

from fulmen import LightningModule, Trainer, seed_everything
from fulmen.accelerators import CUDAAccelerator
from fulmen.callbacks import LearningRateMonitor
from fulmen.compat import install, uninstall
from fulmen.compat.old import names
from fulmen.compat.table import home_of, target_of
from fulmen.loggers import CSVLogger
from fulmen.plugins import MixedPrecision
from fulmen.strategies import DDPStrategy, Strategy

pytestmark = pytest.mark.filterwarnings("ignore::fulmen.utilities.warnings.LightningDeprecationWarning")


@pytest.fixture(autouse=True)
def aliases() -> Any:
    install(children=False)
    yield
    uninstall()


def taken(path: str) -> Any:
    module, _, name = path.rpartition(".")
    return getattr(import_module(module), name)


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        ("pytorch_lightning.callbacks.lr_logger.LearningRateLogger", LearningRateMonitor),
        ("pytorch_lightning.accelerators.GPUAccelerator", CUDAAccelerator),
        ("pytorch_lightning.plugins.DDPPlugin", DDPStrategy),
        ("pytorch_lightning.plugins.training_type.TrainingTypePlugin", Strategy),
        ("pytorch_lightning.plugins.NativeMixedPrecisionPlugin", MixedPrecision),
        ("pytorch_lightning.logging.CSVLogger", CSVLogger),
        ("pytorch_lightning.trainer.seed_everything", seed_everything),
        ("pytorch_lightning.metrics.MeanSquaredError", torchmetrics.MeanSquaredError),
        ("pytorch_lightning.metrics.functional.psnr", torchmetrics.functional.peak_signal_noise_ratio),
    ],
)
def test_what_a_name_was_is_there(path: str, expected: Any) -> None:
    assert taken(path) is expected


def test_every_name_of_the_table_is_there_and_no_advice_is_for_one_that_is() -> None:
    for old, entries in names.NAMES.items():
        for name, entry in entries.items():
            module, _, attribute = entry.partition(":")
            assert hasattr(import_module(module), attribute), (old, name)
    for asked in names.ADVICE:
        path = asked.replace("pl.", "pytorch_lightning.", 1)
        module, _, name = path.rpartition(".")
        assert target_of(path) is None, asked
        home = home_of(module, name)
        assert home is None or not hasattr(import_module(home[0]), home[1]), asked


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("from pytorch_lightning.callbacks import GPUStatsMonitor", "DeviceStatsMonitor took its place"),
        ("from pytorch_lightning.plugins.training_type import DataParallelPlugin", r"strategy=\"ddp\""),
        ("from pytorch_lightning.logging import TestTubeLogger", "write CSVLogger"),
        ("from pytorch_lightning.loops.base import Loop", "hooks of the module"),
        ("from pytorch_lightning import EvalResult", r"self.log\(name, value\)"),
    ],
)
def test_what_will_not_come_fails_at_import_with_what_to_write(line: str, said: str) -> None:
    with pytest.raises(ImportError, match=said):
        exec(line, {})


def test_accuracy_finds_out_from_the_data_what_it_is_of() -> None:
    Accuracy = taken("pytorch_lightning.metrics.Accuracy")
    of_scores, of_probabilities, of_labels = Accuracy(), Accuracy(compute_on_step=False), Accuracy(threshold=0.5)
    of_scores(torch.tensor([[1.0, 2.0, 3.0], [3.0, 2.0, 1.0]]), torch.tensor([2, 1]))
    of_scores(torch.tensor([[1.0, 2.0, 3.0]]), torch.tensor([2]))
    of_probabilities(torch.tensor([0.2, 0.7, 0.9]), torch.tensor([0, 1, 0]))
    of_labels(torch.tensor([1, 2]), torch.tensor([1, 2]))
    found = [metric.compute().item() for metric in (of_scores, of_probabilities, of_labels)]
    assert found == pytest.approx([2 / 3, 2 / 3, 1])
    assert isinstance(Accuracy(num_classes=3), torchmetrics.classification.MulticlassAccuracy)
    accuracy = taken("pytorch_lightning.metrics.functional.accuracy")
    assert accuracy(torch.tensor([1, 2]), torch.tensor([1, 0])) == 0.5


def test_metrics_of_classes_are_made_from_the_arguments_that_they_had() -> None:
    assert isinstance(taken("pytorch_lightning.metrics.F1")(3), torchmetrics.classification.MulticlassF1Score)
    assert isinstance(taken("pytorch_lightning.metrics.Precision")(), torchmetrics.classification.BinaryPrecision)
    matrix = taken("pytorch_lightning.metrics.functional.confusion_matrix")
    assert matrix(torch.tensor([0, 1, 2]), torch.tensor([0, 1, 1]), num_classes=3).tolist() == [
        [1, 0, 0],
        [0, 1, 1],
        [0, 0, 0],
    ]


def test_without_torchmetrics_the_import_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "torchmetrics", None)
    monkeypatch.delitem(sys.modules, "fulmen.compat.old.metrics", raising=False)
    with pytest.raises(ModuleNotFoundError, match=r"pip install 'fulmen\[torchmetrics\]'"):
        import_module("pytorch_lightning.metrics")


def test_a_plugin_that_became_a_strategy_is_taken_as_one(tmp_path: Path) -> None:
    plugin = taken("pytorch_lightning.plugins.DDPPlugin")(find_unused_parameters=False)
    trainer = Trainer(default_root_dir=tmp_path, logger=False, accelerator="cpu", devices=2, plugins=[plugin])
    assert trainer.strategy is plugin


def test_spawned_processes_are_a_strategy_with_another_start() -> None:
    strategy = taken("pytorch_lightning.strategies.DDPSpawnStrategy")()
    assert isinstance(strategy, DDPStrategy)
    assert strategy.launcher is None or strategy.launcher.spawns


def test_several_loggers_may_be_one(tmp_path: Path, quiet: Any) -> None:
    class Line(LightningModule):
        def __init__(self) -> None:
            super().__init__()
            self.layer = nn.Linear(1, 1)

        def training_step(self, batch: Any, batch_idx: int) -> Any:
            self.log("seen", 1.0)
            return self.layer(batch).mean()

        def configure_optimizers(self) -> Any:
            return torch.optim.SGD(self.parameters(), lr=0.1)

    loggers = [CSVLogger(tmp_path, name) for name in ("a", "b")]
    quiet(logger=taken("pytorch_lightning.loggers.LoggerCollection")(loggers)).fit(Line(), torch.ones(2, 1, 1))
    for name in ("a", "b"):
        assert "seen" in (tmp_path / name / "version_0" / "metrics.csv").read_text()


def test_small_decorators_do_what_they_did() -> None:
    class Doubling(LightningModule):
        @taken("pytorch_lightning.core.decorators.auto_move_data")
        def forward(self, x: Any) -> Any:
            return x * 2

        @taken("pytorch_lightning.data_loader")
        def train_dataloader(self) -> Any:
            return [1]

    model = Doubling()
    assert model(torch.ones(1)) == 2
    assert model.train_dataloader() == [1]
