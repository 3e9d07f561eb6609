"""Programs as they were written in 2021, from the parser to the test."""

from __future__ import annotations

from argparse import ArgumentParser, Namespace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

import fulmen as pl
from fulmen.callbacks import EarlyStopping, ModelCheckpoint
from fulmen.utilities.warnings import LightningDeprecationWarning


class Points(pl.LightningDataModule):
    def __init__(self, batch_size: int = 4, num_points: int = 32) -> None:
        super().__init__()
        self.batch_size = batch_size
        self.num_points = num_points

    def setup(self, stage: str | None = None) -> None:
        x = torch.linspace(-1, 1, self.num_points)[:, None]
        self.points = TensorDataset(x, 2 * x)

    def train_dataloader(self) -> Any:
        return DataLoader(self.points, batch_size=self.batch_size)

    val_dataloader = test_dataloader = train_dataloader


class Line(pl.LightningModule):
    def __init__(self, lr: float = 0.1, width: int = 1, **kwargs: Any) -> None:
        super().__init__()
        self.save_hyperparameters()
        self.layer = nn.Linear(1, self.hparams.width)

    @staticmethod
    def add_model_specific_args(parent_parser: ArgumentParser) -> ArgumentParser:
        parser = ArgumentParser(parents=[parent_parser], add_help=False)
        parser.add_argument("--lr", type=float, default=0.1)
        parser.add_argument("--width", type=int, default=1)
        return parser

    def step(self, batch: Any) -> Any:
        x, y = batch
        return (self.layer(x) - y).square().mean()

    def training_step(self, batch: Any, batch_idx: int) -> Any:
        return self.step(batch)

    def validation_step(self, batch: Any, batch_idx: int) -> None:
        self.log("val_loss", self.step(batch))

    def test_step(self, batch: Any, batch_idx: int) -> None:
        self.log("test_loss", self.step(batch))

    def configure_optimizers(self) -> Any:
        return torch.optim.SGD(self.parameters(), lr=self.hparams.lr)


def arguments(line: str) -> Namespace:
    parser = ArgumentParser()
    parser = pl.Trainer.add_argparse_args(parser)
    parser = Line.add_model_specific_args(parser)
    parser = Points.add_argparse_args(parser)
    return parser.parse_args(line.split())


def trained(line: str, **given: Any) -> tuple[pl.Trainer, Line, float]:
    args = arguments(line)
    torch.manual_seed(0)
    data = Points.from_argparse_args(args)
    model = Line(**vars(args))
    trainer = pl.Trainer.from_argparse_args(args, **given)
    trainer.fit(model, data)
    [result] = trainer.test(model, datamodule=data)
    return trainer, model, result["test_loss"]


QUIET = "--gpus 0 --progress_bar_refresh_rate 0 --weights_summary None"


def test_model_made_of_all_arguments_trains_tests_and_is_made_again_from_its_checkpoint(tmp_path: Path) -> None:
    keeps, stops = ModelCheckpoint(monitor="val_loss"), EarlyStopping("val_loss")
    line = f"{QUIET} --max_epochs 20 --lr 0.5 --batch_size 8 --accumulate_grad_batches 2 --default_root_dir {tmp_path}"
    with pytest.warns(LightningDeprecationWarning, match=r"Trainer\(accelerator='cpu', enable_progress_bar=False"):
        trainer, model, loss = trained(line, callbacks=[keeps, stops])

    assert loss < 0.01
    assert trainer.global_step == trainer.current_epoch * 2  # 32 points, 8 per batch, 2 batches per step
    assert (model.hparams.lr, model.hparams.gpus, model.hparams.max_epochs) == (0.5, 0, 20)
    again = Line.load_from_checkpoint(keeps.best_model_path)
    assert again.hparams == model.hparams


def test_resume_from_checkpoint_goes_on_where_the_run_of_the_file_ended(tmp_path: Path) -> None:
    quiet = "--accelerator cpu --enable_progress_bar no --enable_model_summary no"
    halfway, _, _ = trained(f"{quiet} --max_epochs 2 --default_root_dir {tmp_path}")
    _, straight, _ = trained(f"{quiet} --max_epochs 4 --default_root_dir {tmp_path}")
    line = f"{quiet} --max_epochs 4 --default_root_dir {tmp_path}"
    with pytest.warns(LightningDeprecationWarning, match=r"trainer\.fit\(model, ckpt_path="):
        trainer, resumed, _ = trained(f"{line} --resume_from_checkpoint {halfway.checkpoint_callback.best_model_path}")

    assert (trainer.global_step, trainer.current_epoch) == (4 * 8, 4)
    assert torch.equal(resumed.layer.weight, straight.layer.weight)


def test_trial_run_of_a_program_with_a_search_that_was_not_asked_for(tmp_path: Path) -> None:
    args = arguments(f"{QUIET} --fast_dev_run --default_root_dir {tmp_path}")
    with pytest.warns(LightningDeprecationWarning):
        trainer = pl.Trainer.from_argparse_args(args)
    model, data = Line(**vars(args)), Points.from_argparse_args(args)
    with pytest.warns(LightningDeprecationWarning, match="does nothing"):
        trainer.tune(model, datamodule=data)
    trainer.fit(model, datamodule=data)

    assert trainer.global_step == 1
    assert not list(tmp_path.iterdir())
