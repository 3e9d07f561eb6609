"""A search leaves nothing behind: in memory all is as it was, and no file was written."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import textwrap
from pathlib import Path
from typing import Any

import pytest
import torch
from tests.trainer.fingerprint import fingerprint

from fulmen import Callback
from fulmen.callbacks import EarlyStopping, ModelCheckpoint
from fulmen.loggers import CSVLogger, TensorBoardLogger
from fulmen.tuner import Tuner

from .toys import SEARCH, Data, Model, Squares, pictures, points, result_of

ENV = {**os.environ, "PYTHONPATH": os.pathsep.join([*sys.path, str(Path(__file__).parents[2])])}


class Counting(Callback):
    def __init__(self) -> None:
        self.calls: list[str] = []

    def setup(self, trainer: Any, pl_module: Any, stage: str) -> None:
        self.calls.append("setup")

    def on_train_batch_end(self, *args: Any) -> None:
        self.calls.append("batch")


def test_everything_is_bit_equal_after_a_search(trainer_of, tmp_path):
    callbacks = [Counting(), EarlyStopping("loss"), ModelCheckpoint()]
    loggers = [CSVLogger(tmp_path / "csv"), TensorBoardLogger(tmp_path / "tensorboard")]
    trainer = trainer_of(max_epochs=3, logger=loggers, callbacks=callbacks, enable_checkpointing=None)
    model, data = Model(), Data()
    model.net[0].weight.grad = torch.ones_like(model.net[0].weight)
    before = pictures(model, data, trainer.callbacks, trainer.progress)
    attributes = dict(vars(trainer))
    files = fingerprint(tmp_path)

    found = Tuner(trainer).lr_find(model, datamodule=data, num_training=15, update_attr=False, **SEARCH)

    assert len(found.losses) == 15
    assert pictures(model, data, trainer.callbacks, trainer.progress) == before
    assert vars(trainer) == attributes
    assert fingerprint(tmp_path) == files


def test_state_of_a_run_before_is_bit_equal_after_a_search(trainer_of):
    trainer, model, data = trainer_of(max_epochs=1), Model(), Data()
    trainer.fit(model, datamodule=data)
    trainer.max_epochs = 2
    parts = (model, data, trainer.progress, trainer.optimizers, trainer.callback_metrics)
    before = pictures(*parts)
    Tuner(trainer).lr_find(model, datamodule=data, num_training=9, update_attr=False, **SEARCH)
    assert pictures(*parts) == before


def test_search_that_raises_leaves_nothing(trainer_of, tmp_path):
    trainer = trainer_of(
        max_epochs=3, logger=CSVLogger(tmp_path), callbacks=ModelCheckpoint(), enable_checkpointing=None
    )
    model, data = Model(fails_at=7, error=ArithmeticError("wrong")), Data()
    before, attributes = pictures(model, data, trainer.callbacks), dict(vars(trainer))
    with pytest.raises(ArithmeticError):
        Tuner(trainer).lr_find(model, datamodule=data, num_training=15)
    assert pictures(model, data, trainer.callbacks) == before
    assert vars(trainer) == attributes
    assert not [*tmp_path.iterdir()]


def test_out_of_memory_within_a_search_of_the_rate_leaves_nothing(trainer_of):
    class Large(Model):
        def training_step(self, batch: Any, batch_idx: int) -> Any:
            super().training_step(batch, batch_idx)
            return torch.empty(2**60).sum()

    trainer, model, data = trainer_of(max_epochs=3), Large(), Data()
    before = pictures(model, data)
    with pytest.raises(RuntimeError, match="allocate memory"):
        Tuner(trainer).lr_find(model, datamodule=data, num_training=15)
    assert pictures(model, data) == before


@pytest.mark.parametrize("search", ["tuner", "callback"])
@pytest.mark.parametrize("own_generator", [True, False])
def test_fit_after_a_search_is_the_fit_with_that_rate_from_the_start(trainer_of, search, own_generator):
    searched, rate = result_of(trainer_of, 0.1, search, own_generator)
    assert rate != 0.1
    direct, _ = result_of(trainer_of, rate, None, own_generator)
    assert searched == direct


def test_fit_after_a_search_is_that_of_a_new_process_with_that_rate(trainer_of, tmp_path):
    searched, rate = result_of(trainer_of, 0.1, "tuner")
    script = f"""
        from fulmen import Trainer
        from tests.tuner.toys import result_of
        quiet = dict(logger=False, enable_checkpointing=False, enable_progress_bar=False, enable_model_summary=False)
        print(repr(result_of(lambda **a: Trainer(accelerator="cpu", **quiet, **a), {rate!r})[0]))
    """
    run = subprocess.run([sys.executable, "-c", textwrap.dedent(script)], capture_output=True, text=True, check=True)
    assert run.stdout.strip() == repr(searched)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_search_that_a_signal_ends_leaves_nothing(tmp_path, number):
    script = f"""
        import os, sys
        from fulmen import Trainer
        from fulmen.tuner import Tuner
        from tests.tuner.toys import Data, Model, pictures

        class Interrupted(Model):
            def training_step(self, batch, batch_idx):
                if self.steps == 5:
                    os.kill(os.getpid(), {int(number)})
                return super().training_step(batch, batch_idx)

        trainer, model, data = Trainer(accelerator="cpu", max_epochs=3), Interrupted(), Data()
        before = pictures(model, data, trainer.progress)
        try:
            Tuner(trainer).lr_find(model, datamodule=data)
        except SystemExit as end:
            print("ended", end.code, pictures(model, data, trainer.progress) == before, model.hparams.lr)
    """
    run = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(script)], capture_output=True, text=True, cwd=tmp_path, env=ENV
    )
    code = 1 if number == signal.SIGINT else 143
    assert run.stdout.strip() == f"ended {code} True 0.1", run.stderr
    assert not [*tmp_path.iterdir()]


def test_iterator_that_can_be_read_once_is_refused_and_not_read(trainer_of):
    batches = iter(list(points()))
    with pytest.raises(Exception, match="read once only"):
        Tuner(trainer_of(max_epochs=1)).lr_find(Squares(), batches)
    assert len(list(batches)) == 4


def test_run_that_is_asked_to_end_in_a_search_is_saved_as_it_is_without_it(tmp_path):
    script = """
        import os, signal, sys
        from fulmen import Trainer
        from fulmen.callbacks import LearningRateFinder, ModelCheckpoint
        from tests.tuner.toys import Squares, points

        class InSecond(LearningRateFinder):
            def on_fit_start(self, *args):
                return

            def on_train_epoch_start(self, trainer, pl_module):
                if trainer.current_epoch == 1:
                    before = pl_module.weight.item()
                    self.lr_find(trainer, pl_module)
                    print("search", len(self.optimal_lr.losses), pl_module.lr, pl_module.weight.item() == before)

        class Asked(Squares):
            def on_train_batch_start(self, batch, batch_idx):
                if self.trainer.global_step == 7 and not self.trainer.loggers and len(self.rates) == 7:
                    os.kill(os.getpid(), signal.SIGTERM)

        trainer = Trainer(accelerator="cpu", max_epochs=3, logger=False, callbacks=[InSecond(), ModelCheckpoint(".")])
        try:
            trainer.fit(Asked(), points())
        except SystemExit as end:
            print("ended", end.code)
    """
    run = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(script)], capture_output=True, text=True, cwd=tmp_path, env=ENV
    )
    lines = run.stdout.splitlines()
    assert "search 4 0.1 True" in lines, run.stdout + run.stderr
    assert lines[-1] == "ended 143"
    assert torch.load(tmp_path / "last.ckpt", weights_only=True)["global_step"] == 5
