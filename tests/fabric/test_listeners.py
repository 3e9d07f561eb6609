"""A LightningModule that Fabric runs, and who hears of a loop: callbacks and loggers."""

from __future__ import annotations

import csv
import gc
import weakref
from pathlib import Path
from typing import Any

import pytest
import torch
from tests.distributed.processes import run
from tests.fabric.loops import WORLD, samples
from torch import nn
from torch.utils.data import DataLoader

from fulmen import Fabric, LightningModule
from fulmen.loggers import CSVLogger


class Line(LightningModule):
    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(1)
        self.layer = nn.Linear(3, 1)
        self.heard: list[Any] = []

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.layer(x)

    def training_step(self, batch: Any, batch_idx: int) -> torch.Tensor:
        inputs, targets = batch
        loss = nn.functional.mse_loss(self(inputs), targets)
        self.log("loss", loss)
        return loss

    def on_train_epoch_end(self) -> None:
        self.heard.append("epoch")

    def configure_optimizers(self) -> Any:
        return torch.optim.SGD(self.parameters(), lr=0.1)


def rows(folder: Path) -> list[dict[str, str]]:
    with next(folder.rglob("metrics.csv")).open() as file:
        return list(csv.DictReader(file))


def loop(fabric: Fabric, module: Line) -> list[float]:
    model, optimizer = fabric.setup(module, module.configure_optimizers())
    losses = []
    for number, batch in enumerate(fabric.setup_dataloaders(DataLoader(samples(), batch_size=4))):
        loss = model.training_step(batch, number)
        fabric.backward(loss)
        optimizer.step()
        optimizer.zero_grad()
        losses.append(loss.item())
    fabric.call("on_train_epoch_end")
    return losses


def by_hand() -> list[float]:
    module = Line()
    optimizer = torch.optim.SGD(module.parameters(), lr=0.1)
    losses = []
    for inputs, targets in DataLoader(samples(), batch_size=4):
        loss = nn.functional.mse_loss(module(inputs), targets)
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        losses.append(loss.item())
    return losses


def test_a_lightning_module_is_trained_and_its_values_reach_the_loggers(tmp_path: Path) -> None:
    logger = CSVLogger(tmp_path)
    fabric, module = Fabric(accelerator="cpu", loggers=logger), Line()
    losses = loop(fabric, module)
    assert losses == by_hand()
    logger.save()
    assert [float(row["loss"]) for row in rows(tmp_path)] == losses
    assert module.heard == ["epoch"]


def _steps_of_two() -> tuple[list[float], list[float]]:
    fabric = Fabric(accelerator="cpu", devices=WORLD, strategy="ddp")
    fabric.launch()
    module = Line()
    return loop(fabric, module), module.layer.weight.flatten().tolist()


def test_the_training_step_goes_through_ddp() -> None:
    one, other = run(WORLD, _steps_of_two)
    assert one[1] == other[1]
    assert one[0] != other[0]


def test_a_module_knows_its_fabric_and_what_it_has() -> None:
    class Mine(Line):
        def training_step(self, batch: Any, batch_idx: int) -> torch.Tensor:
            loss = super().training_step(batch, batch_idx)
            optimizer = self.optimizers()
            optimizer.zero_grad()
            self.manual_backward(loss)
            self.clip_gradients(optimizer, 0.001, "value")
            optimizer.step()
            return loss

    fabric, module = Fabric(accelerator="cpu"), Mine()
    model, optimizer = fabric.setup(module, module.configure_optimizers())
    assert module.fabric is fabric
    assert module.optimizers() is optimizer
    assert (module.trainer.world_size, module.global_rank, module.loggers) == (1, 0, [])
    before = module.layer.weight.detach().clone()
    model.training_step(samples()[:2], 0)
    assert 0 < float((module.layer.weight.detach() - before).abs().max()) <= 0.1 * 0.001 * 1.001
    with pytest.raises(AttributeError, match=r"`self\.trainer\.current_epoch` is not there: a Fabric runs this module"):
        module.trainer.current_epoch  # noqa: B018


def test_a_module_does_not_keep_its_fabric() -> None:
    fabric, module = Fabric(accelerator="cpu"), Line()
    fabric.setup(module)
    gone = weakref.ref(fabric)
    del fabric
    gc.collect()
    assert gone() is None
    assert module.fabric is None


def test_a_dict_is_refused_as_one_value() -> None:
    fabric, module = Fabric(accelerator="cpu"), Line()
    fabric.setup(module)
    with pytest.raises(ValueError, match="got a dict"):
        module.log("losses", {"a": 1})


def test_values_and_steps_reach_all_loggers(tmp_path: Path) -> None:
    loggers = [CSVLogger(tmp_path / "a"), CSVLogger(tmp_path / "b")]
    fabric = Fabric(accelerator="cpu", loggers=loggers)
    assert fabric.logger is loggers[0]
    fabric.log("loss", torch.tensor(2.0), step=3)
    fabric.log_dict({"loss": 1.0, "more": 5}, step=4)
    del fabric  # what was logged is on the disk by then
    gc.collect()
    for name in ("a", "b"):
        assert [(row["step"], row["loss"], row["more"]) for row in rows(tmp_path / name)] == [
            ("3", "2.0", ""),
            ("4", "1.0", "5"),
        ]


def test_without_a_logger_values_go_nowhere() -> None:
    fabric = Fabric(accelerator="cpu")
    fabric.log("loss", 1.0)
    assert fabric.loggers == []
    with pytest.raises(IndexError, match="has no logger"):
        fabric.logger  # noqa: B018


def test_callbacks_are_called_by_the_names_that_they_have() -> None:
    heard: list[Any] = []

    class One:
        def on_batch(self, number: int, loss: float) -> None:
            heard.append(("one", number, loss))

    class Other:
        on_batch_end = 3

        def on_batch(self, **everything: Any) -> None:
            heard.append(("other", everything))

    fabric = Fabric(accelerator="cpu", callbacks=[One(), Other()])
    fabric.call("on_batch", number=1, loss=2.0, more=3)
    assert heard == [("one", 1, 2.0), ("other", {"number": 1, "loss": 2.0, "more": 3})]
    fabric.call("nobody_has_this")
    with pytest.warns(UserWarning, match=r"`Other\.on_batch_end` cannot be called"):
        fabric.call("on_batch_end")


def test_seeds_are_those_of_seed_everything() -> None:
    assert Fabric.seed_everything(3, verbose=False) == 3
    assert torch.initial_seed() == 3
