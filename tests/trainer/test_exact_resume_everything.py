"""A run with everything in it, stopped after any batch, becomes the run that never stopped: also in what it logged."""

from __future__ import annotations

import random
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torchmetrics
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset

from fulmen import Callback, LightningModule, Trainer, seed_everything
from fulmen.callbacks import EarlyStopping, LearningRateMonitor, ModelCheckpoint
from fulmen.loggers import CSVLogger

SAMPLES, BATCH, BATCHES, EPOCHS = 23, 3, 8, 3  # the last batch is smaller, and so is the last window
ALL = range(1, BATCHES * EPOCHS + 1)
WORKERS: dict[str, dict[str, Any]] = {
    "0": {},
    "2": {"num_workers": 2},
    "persistent": {"num_workers": 2, "persistent_workers": True},
}


class Killed(BaseException):
    """The process is gone."""


class Augmented(Dataset):
    """Samples with noise from all three generators, and a class."""

    def __init__(self, samples: int = SAMPLES) -> None:
        self.samples = samples

    def __len__(self) -> int:
        return self.samples

    def __getitem__(self, index: int) -> tuple[int, Tensor, int]:
        noise = torch.rand(4) + random.random() + np.random.rand()
        return index, torch.full((4,), float(index)) * 0.1 + noise, index % 3


class Model(LightningModule):
    """Dropout, values of every kind, and metric objects that are logged or updated by hand."""

    def __init__(self, width: int = 8) -> None:
        super().__init__()
        self.save_hyperparameters()
        self.net = nn.Sequential(nn.Linear(4, width), nn.Dropout(0.5), nn.BatchNorm1d(width), nn.Linear(width, 3))
        self.accuracy = torchmetrics.classification.MulticlassAccuracy(3, average="micro")
        self.both = torchmetrics.MetricCollection(
            {
                "precision": torchmetrics.classification.MulticlassPrecision(3),
                "recall": torchmetrics.classification.MulticlassRecall(3),
            }
        )
        self.losses = torchmetrics.CatMetric()
        self.spread = torchmetrics.MinMaxMetric(torchmetrics.MeanMetric())
        self.seen: list[list[int]] = []
        self.checked: list[float] = []

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        index, x, y = batch
        self.seen.append(index.tolist())
        scores = self.net(x)
        loss = nn.functional.cross_entropy(scores, y)
        self.accuracy(scores, y)
        self.log("accuracy", self.accuracy, on_step=True, on_epoch=True)
        self.both.update(scores, y)
        self.losses.update(loss.detach())
        self.spread.update(loss.detach())
        self.spread.compute()
        self.log("loss", loss, on_step=True, on_epoch=True, prog_bar=True)
        self.log("largest", scores.max(), on_epoch=True, on_step=False, reduce_fx="max")
        self.log("smallest", scores.min(), on_epoch=True, on_step=False, reduce_fx="min")
        self.log("samples", float(len(x)), on_epoch=True, on_step=False, reduce_fx="sum")
        self.log("weighted", loss, on_epoch=True, on_step=False, batch_size=batch_idx + 1)
        if batch_idx == 0:
            self.log("only_first", loss, on_epoch=True)
        if batch_idx == 2:
            self.log("only_third", loss, on_step=True)  # the step is not due at the loggers then
        return loss

    def on_train_epoch_start(self) -> None:
        self.log("noise_at_start", torch.rand(()))

    def on_train_epoch_end(self) -> None:
        self.log_dict(self.both.compute())
        self.log("median_loss", self.losses.compute().median())
        self.log("worst_loss", self.spread.compute()["max"])
        self.log("seen_by_callbacks", self.trainer.callback_metrics["val_loss/dataloader_idx_1"])
        for metric in (self.both, self.losses, self.spread):
            metric.reset()

    def validation_step(self, batch: Any, batch_idx: int, dataloader_idx: int = 0) -> None:
        _, x, y = batch
        if not self.trainer.sanity_checking:
            self.checked.append(x.sum().item())
        loss = nn.functional.cross_entropy(self.net(x), y)
        self.log("val_loss", loss)
        self.log("val_step", loss, on_step=True, on_epoch=False)

    def on_validation_epoch_end(self) -> None:
        self.log("val_noise", torch.rand(()), prog_bar=True)

    def configure_optimizers(self) -> Any:
        optimizer = torch.optim.Adam(self.parameters(), lr=0.01)
        per_step = torch.optim.lr_scheduler.StepLR(optimizer, 3, 0.9)
        plateau = torch.optim.lr_scheduler.ReduceLROnPlateau(optimizer, patience=0)
        return [optimizer], [
            {"scheduler": per_step, "interval": "step"},
            {"scheduler": plateau, "monitor": "val_loss/dataloader_idx_0", "interval": "epoch"},
        ]


class Counter(Callback):
    """Counts what it is called for, and the hooks that open a run or an epoch are not to be counted twice."""

    def __init__(self) -> None:
        self.counts: dict[str, int] = {}

    def count(self, name: str) -> None:
        self.counts[name] = self.counts.get(name, 0) + 1

    def on_train_start(self, *args: Any) -> None:
        self.count("starts")

    def on_train_epoch_start(self, *args: Any) -> None:
        self.count("epochs")

    def on_train_batch_end(self, *args: Any) -> None:
        self.count("batches")
        self.log("batches", float(self.counts["batches"]))

    def on_validation_end(self, *args: Any) -> None:
        self.count("validations")

    def state_dict(self) -> dict[str, Any]:
        return dict(self.counts)

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.counts = dict(state)


class SaveAndDie(Callback):
    """Writes a checkpoint at the end of one batch, and ends the process, as far as it can, some batches later."""

    def __init__(self, path: Path | None, batch: int, later: int) -> None:
        self.path, self.batch, self.later = path, batch, later

    def on_train_batch_end(self, trainer: Trainer, *args: Any) -> None:
        done = trainer.progress.total_batches
        if done == self.batch and self.path is not None:
            trainer.boundary.defer(lambda: trainer.save_checkpoint(self.path))
        if done == self.batch + self.later:
            trainer.boundary.defer(self.die)

    def die(self) -> None:
        raise Killed


@dataclass
class Outcome:
    """All that a run leaves."""

    weights: dict[str, Tensor]
    optimizers: list[Any]
    schedulers: str
    callbacks: dict[str, Any]
    metrics: dict[str, Tensor]
    bar: dict[str, Any]
    seen: list[list[int]]
    checked: list[float]
    rows: str
    hparams: str


def run(
    folder: Path,
    stop: SaveAndDie | None = None,
    resume: Any = None,
    seed: int = 1,
    workers: str = "0",
    callbacks: Any = (),
    **flags: Any,
) -> Outcome:
    seed_everything(seed, verbose=False)
    model = Model()
    logger = CSVLogger(folder, name="", version="run")
    own = [EarlyStopping("val_loss/dataloader_idx_0", patience=50), LearningRateMonitor(), Counter()]
    trainer = Trainer(
        **{
            "max_epochs": EPOCHS,
            "accelerator": "cpu",
            "logger": logger,
            "enable_checkpointing": any(isinstance(one, ModelCheckpoint) for one in callbacks),
            "enable_progress_bar": False,
            "enable_model_summary": False,
            "callbacks": [*own, *callbacks, *([stop] if stop else [])],
            "accumulate_grad_batches": 3,
            "val_check_interval": 3,
            "log_every_n_steps": 2,
            **flags,
        }
    )
    train = DataLoader(Augmented(), BATCH, shuffle=True, **WORKERS[workers])
    validation = [DataLoader(Augmented(4), 2), DataLoader(Augmented(3), 2)]
    try:
        trainer.fit(model, train, validation, ckpt_path=resume)
    except Killed:
        assert stop
    train._iterator = None  # persistent workers end here, and not whenever the loader is collected
    return Outcome(
        weights=model.state_dict(),
        optimizers=[optimizer.state_dict() for optimizer in trainer.optimizers],
        schedulers=str([config.scheduler.state_dict() for config in trainer.lr_scheduler_configs]),
        callbacks={callback.state_key: callback.state_dict() for callback in own},
        metrics=dict(trainer.callback_metrics),
        bar=dict(trainer.progress_bar_metrics),
        seen=model.seen,
        checked=model.checked,
        rows=(folder / "run" / "metrics.csv").read_text(),
        hparams=(folder / "run" / "hparams.yaml").read_text(),
    )


def assert_same(resumed: Outcome, whole: Outcome) -> None:
    assert resumed.rows == whole.rows
    assert resumed.hparams == whole.hparams
    assert resumed.seen == whole.seen[len(whole.seen) - len(resumed.seen) :]
    assert resumed.checked == whole.checked[len(whole.checked) - len(resumed.checked) :]
    for part in ("weights", "optimizers", "callbacks", "metrics"):
        torch.testing.assert_close(getattr(resumed, part), getattr(whole, part), rtol=0, atol=0, msg=part)
    assert (resumed.schedulers, resumed.bar) == (whole.schedulers, whole.bar)


def killed_and_resumed(
    folder: Path, batch: int, before: str = "0", after: str | None = None, later: int = 4, **flags: Any
) -> Outcome:
    """A run that wrote a checkpoint after ``batch``, died ``later`` batches after that, and was started again."""
    run(folder, SaveAndDie(folder / "k.ckpt", batch, later), workers=before, **flags)
    resumed = run(folder, resume=folder / "k.ckpt", seed=2, workers=before if after is None else after, **flags)
    assert len(resumed.seen) == len(ALL) - batch
    return resumed


@pytest.fixture(scope="module")
def whole(tmp_path_factory) -> Outcome:
    return run(tmp_path_factory.mktemp("whole"))


def test_run_logs_what_it_is_to_be_compared_by(whole):
    names = {"accuracy_epoch", "only_first_epoch", "only_third", "val_noise", "lr-Adam", "batches", "worst_loss"}
    assert names <= {*whole.rows.split("\n", 1)[0].split(",")}
    assert len(whole.rows.splitlines()) > 40


@pytest.mark.parametrize("batch", ALL)
def test_killed_run_becomes_the_run_that_was_never_killed(tmp_path, whole, batch):
    assert_same(killed_and_resumed(tmp_path, batch), whole)


@pytest.mark.parametrize("batch", [2, 6, 8, 13, 24])
@pytest.mark.parametrize("workers", ["2", "persistent"])
def test_killed_run_with_workers_becomes_the_run_that_was_never_killed(tmp_path, whole, workers, batch):
    assert_same(killed_and_resumed(tmp_path, batch, workers), whole)


@pytest.mark.slow
@pytest.mark.parametrize("batch", ALL)
@pytest.mark.parametrize("workers", ["2", "persistent"])
def test_killed_run_with_workers_is_resumed_exactly_after_every_batch(tmp_path, whole, workers, batch):
    assert_same(killed_and_resumed(tmp_path, batch, workers), whole)


@pytest.mark.parametrize(("before", "after"), [("0", "2"), ("2", "0"), ("persistent", "2")])
def test_killed_run_becomes_the_same_with_another_number_of_workers(tmp_path, whole, before, after):
    assert_same(killed_and_resumed(tmp_path, 5, before, after), whole)


@pytest.mark.parametrize("batch", [3, 8, 16])
def test_run_that_is_killed_again_and_again_becomes_the_run_that_was_never_killed(tmp_path, whole, batch):
    path = tmp_path / "k.ckpt"
    run(tmp_path, SaveAndDie(path, batch, 3))
    for later in (1, 2, 6):  # at the same place again, without another checkpoint
        run(tmp_path, SaveAndDie(None, batch, later), resume=path, seed=2)

    assert_same(run(tmp_path, resume=path, seed=3), whole)


def every_step(folder: Path) -> ModelCheckpoint:
    return ModelCheckpoint(folder, "{step}", every_n_train_steps=1, save_top_k=-1)


@pytest.mark.parametrize("step", range(1, 10))
def test_checkpoint_of_every_step_goes_on_exactly(tmp_path, whole, step):
    checkpoints, path = tmp_path / "checkpoints", tmp_path / "checkpoints" / f"step={step}.ckpt"
    run(tmp_path, SaveAndDie(None, 3 * step, 5), callbacks=[every_step(checkpoints)])
    resumed = run(tmp_path, resume=path, seed=2, callbacks=[every_step(tmp_path / "others")])

    assert_same(resumed, whole)


@pytest.mark.parametrize("when", ["on_train_epoch_end", "on_validation_end"])
def test_checkpoint_of_an_epoch_goes_on_exactly(tmp_path, whole, when):
    def saves() -> ModelCheckpoint:
        return ModelCheckpoint(tmp_path / "c", "e", save_top_k=1, save_on_train_epoch_end=when == "on_train_epoch_end")

    run(tmp_path, SaveAndDie(None, 10, 0), callbacks=[saves()])
    resumed = run(tmp_path, resume=tmp_path / "c" / "e.ckpt", seed=2, callbacks=[saves()])

    assert len(resumed.seen) == (16 if when == "on_train_epoch_end" else 18)
    assert_same(resumed, whole)


def test_checkpoint_of_a_hook_within_the_step_goes_on_exactly(tmp_path, whole):
    class Saves(Callback):
        def on_train_batch_end(self, trainer: Trainer, *args: Any) -> None:
            if trainer.progress.total_batches == 6:  # the step is to be logged, and a validation is due
                trainer.save_checkpoint(tmp_path / "k.ckpt")

    run(tmp_path, SaveAndDie(None, 6, 4), callbacks=[Saves()])
    resumed = run(tmp_path, resume=tmp_path / "k.ckpt", seed=2)

    assert_same(resumed, whole)
