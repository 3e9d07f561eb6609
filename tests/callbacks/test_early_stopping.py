"""EarlyStopping: what stops, when, and why."""

from __future__ import annotations

import logging
import shutil
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.utils.data import DataLoader

from fulmen import Trainer
from fulmen.callbacks.early_stopping import EarlyStopping, EarlyStoppingReason
from fulmen.callbacks.model_checkpoint import ModelCheckpoint
from fulmen.demos.boring_classes import BoringModel, RandomDataset
from fulmen.loggers import CSVLogger
from fulmen.utilities.exceptions import MisconfigurationException

NAN, INF = float("nan"), float("inf")
_UNLIMITED = 50


class Scored(BoringModel):
    """Logs one of the given values as ``v`` at each validation, and as ``t`` at each training epoch's end."""

    def __init__(self, values: list[float], num_batches: int = 2) -> None:
        super().__init__()
        self.values, self.train_values = iter(values), iter(values)
        self.num_batches = num_batches

    def train_dataloader(self) -> DataLoader:
        return DataLoader(RandomDataset(32, self.num_batches))

    def val_dataloader(self) -> DataLoader:
        return DataLoader(RandomDataset(32, 1))

    def on_validation_epoch_end(self) -> None:
        if not self.trainer.sanity_checking:
            self.log("v", next(self.values))

    def on_train_epoch_end(self) -> None:
        self.log("t", next(self.train_values, 0.0))


def _fit(stop: EarlyStopping, values: list[float], *, num_batches: int = 2, **arguments: Any) -> Trainer:
    options: dict[str, Any] = {
        "accelerator": "cpu",
        "max_epochs": len(values),
        "logger": False,
        "enable_progress_bar": False,
        "enable_model_summary": False,
        "enable_checkpointing": False,
        **arguments,
    }
    trainer = Trainer(callbacks=[stop], **options)
    trainer.fit(Scored(values, num_batches))
    return trainer


@pytest.mark.filterwarnings("ignore:.*is not finite")
@pytest.mark.parametrize(
    ("values", "arguments", "epochs", "reason"),
    [
        ([5, 4, 3, 2, 1], {}, 5, "NOT_STOPPED"),
        ([1, 2, 3, 4, 5, 6], {}, 4, "PATIENCE_EXHAUSTED"),
        ([1, 2, 3, 4, 5, 6], {"patience": 1}, 2, "PATIENCE_EXHAUSTED"),
        ([1, 2, 3, 4, 5, 6], {"patience": 0}, 2, "PATIENCE_EXHAUSTED"),
        ([1, 1, 1, 1, 1, 1], {"patience": 2}, 3, "PATIENCE_EXHAUSTED"),  # the same is no improvement
        ([3, 4, 2, 4, 5, 6, 7], {"patience": 2}, 5, "PATIENCE_EXHAUSTED"),  # an improvement begins anew
        ([1, 2, 3, 4, 5, 6], {"mode": "max"}, 6, "NOT_STOPPED"),
        ([5, 4, 3, 2, 1], {"mode": "max", "patience": 2}, 3, "PATIENCE_EXHAUSTED"),
        ([5, 4, 4, 3, 1], {"min_delta": 1, "patience": 2}, 3, "PATIENCE_EXHAUSTED"),  # not more than min_delta
        ([9, 7, 5, 3, 1], {"min_delta": 1, "patience": 2}, 5, "NOT_STOPPED"),
        ([1, 2, 2, 3, 5], {"mode": "max", "min_delta": 1, "patience": 2}, 3, "PATIENCE_EXHAUSTED"),
        ([5, NAN, 3], {}, 2, "NON_FINITE_METRIC"),
        ([5, INF, 3], {}, 2, "NON_FINITE_METRIC"),
        ([5, NAN, 3, 2], {"check_finite": False}, 4, "NOT_STOPPED"),
        ([5, NAN, NAN, 2], {"check_finite": False, "patience": 2}, 3, "PATIENCE_EXHAUSTED"),
        ([5, 3, 2, 1], {"stopping_threshold": 3}, 3, "STOPPING_THRESHOLD"),  # better, not equal
        ([5, 9, 10, 11], {"divergence_threshold": 9}, 3, "DIVERGENCE_THRESHOLD"),
        ([5, 1, 0, -1], {"mode": "max", "divergence_threshold": 1}, 3, "DIVERGENCE_THRESHOLD"),
    ],
)
def test_values_in_turn_stop_training_after_so_many_epochs(values, arguments, epochs, reason):
    stop = EarlyStopping("v", **arguments)
    not_finite = pytest.warns(UserWarning, match="is not finite") if reason == "NON_FINITE_METRIC" else nullcontext()
    with not_finite:
        trainer = _fit(stop, [float(value) for value in values])

    assert trainer.current_epoch == epochs
    assert stop.stopping_reason is EarlyStoppingReason[reason]
    assert stop.stopped_epoch == (0 if reason == "NOT_STOPPED" else epochs - 1)
    assert (stop.stopping_reason_message is None) == (reason == "NOT_STOPPED")


def test_minimum_of_epochs_is_kept():
    trainer = _fit(EarlyStopping("v", patience=1), [1.0, 2.0, 3.0, 4.0, 5.0], min_epochs=4)

    assert trainer.current_epoch == 4


def test_validation_within_the_epoch_is_where_it_checks():
    trainer = _fit(EarlyStopping("v", patience=1), [1.0, 2.0], val_check_interval=2, num_batches=10)

    assert (trainer.current_epoch, trainer.global_step) == (1, 4)


@pytest.mark.parametrize("interval", ["1s", "1step", {"seconds": 1}])
def test_validation_by_time_or_by_steps_is_where_it_checks(interval, monkeypatch):
    clock = iter(range(1000))
    monkeypatch.setattr("fulmen.loops.progress.time.monotonic", lambda: next(clock))
    trainer = _fit(EarlyStopping("v", patience=1), [1.0, 2.0, 3.0], val_check_interval=interval, num_batches=10)

    assert trainer.global_step == 2


def test_validation_every_other_epoch_is_where_it_checks():
    trainer = _fit(EarlyStopping("v", patience=1), [1.0, 2.0], check_val_every_n_epoch=2, max_epochs=_UNLIMITED)

    assert trainer.current_epoch == 4


def test_training_without_validation_is_checked_at_the_end_of_each_epoch():
    stop = EarlyStopping("t", patience=1)
    trainer = _fit(stop, [1.0, 2.0, 3.0], limit_val_batches=0, check_val_every_n_epoch=2)

    assert trainer.current_epoch == 2


def test_training_metric_is_checked_at_the_training_epochs_end_when_asked():
    stop = EarlyStopping("t", patience=1, check_on_train_epoch_end=True)
    trainer = _fit(stop, [1.0, 2.0, 3.0] * 2, val_check_interval=0.5, max_epochs=3)

    assert trainer.current_epoch == 2


def test_metric_that_is_missing_is_an_error_that_names_those_there_are():
    with pytest.raises(RuntimeError, match=r"monitor='loss'.*'v'"):
        _fit(EarlyStopping("loss"), [1.0])


def test_metric_that_is_missing_is_let_pass_if_not_strict():
    with pytest.warns(RuntimeWarning, match="monitor='loss'"):
        trainer = _fit(EarlyStopping("loss", strict=False, verbose=True), [1.0])

    assert trainer.current_epoch == 1


def test_fast_dev_run_is_not_checked():
    _fit(EarlyStopping("loss"), [1.0], fast_dev_run=True)


def test_sanity_check_is_not_checked():
    trainer = _fit(EarlyStopping("v", patience=1), [2.0, 1.0], val_check_interval=2, num_sanity_val_steps=1)

    assert trainer.current_epoch == 2


def test_verbose_one_says_what_improved_and_why_it_stopped(caplog):
    with caplog.at_level(logging.INFO, logger="fulmen"):
        _fit(EarlyStopping("v", patience=1, verbose=True), [2.0, 1.0, 3.0])
    said = [record.message for record in caplog.records if record.message.startswith("v ")]

    assert said == [
        "v = 2 is the best so far.",
        "v = 1 is the best so far (before: 2).",
        "v did not improve in 1 checks. Best: 1.",
    ]


def test_resumed_run_goes_on_counting(tmp_path):
    arguments: dict[str, Any] = {
        "accelerator": "cpu",
        "logger": False,
        "enable_progress_bar": False,
        "enable_model_summary": False,
    }
    first = ModelCheckpoint(tmp_path)
    Trainer(callbacks=[EarlyStopping("v", patience=3), first], max_epochs=3, **arguments).fit(Scored([1.0, 2.0, 3.0]))
    stop = EarlyStopping("v", patience=3)
    trainer = Trainer(callbacks=[stop, ModelCheckpoint(tmp_path)], max_epochs=9, **arguments)
    trainer.fit(Scored([4.0, 5.0]), ckpt_path=first.best_model_path)

    assert trainer.current_epoch == 4
    assert stop.best_score == 1.0


def test_resumed_state_keeps_the_patience_of_the_constructor():
    first = EarlyStopping("v", patience=3)
    first.wait_count, first.best_score = 2, torch.tensor(0.5)
    second = EarlyStopping("v", patience=10)
    second.load_state_dict(first.state_dict())

    assert (second.wait_count, second.best_score, second.patience) == (2, 0.5, 10)
    assert second.state_key == first.state_key != EarlyStopping("v", mode="max").state_key


def test_another_training_begins_anew():
    stop = EarlyStopping("v", patience=2)
    trainer = _fit(stop, [1.0, 2.0, 3.0])
    trainer.fit(Scored([5.0, 4.0, 3.0]))

    assert trainer.current_epoch == 3
    assert (stop.best_score, stop.wait_count, stop.stopping_reason) == (3.0, 0, EarlyStoppingReason.NOT_STOPPED)


def test_mode_that_is_not_known_is_named():
    with pytest.raises(MisconfigurationException, match="mode='less'"):
        EarlyStopping("v", mode="less")


class CopiedWhenSaved(CSVLogger):
    """Keeps what was there when the newest checkpoint was written, as if the process had been killed then."""

    copy: Path | None = None

    def after_save_checkpoint(self, checkpoint_callback: Any) -> None:
        if self.copy is not None:
            shutil.rmtree(self.copy, ignore_errors=True)
            shutil.copytree(self.save_dir, self.copy)


@pytest.mark.parametrize("ckpt_path", ["auto", "epoch=1-step=6.ckpt"])
@pytest.mark.filterwarnings("ignore:nothing to train")
def test_last_row_of_a_stopped_run_is_logged_though_the_process_is_killed_before_it(ckpt_path, tmp_path):
    class Logs(BoringModel):
        def training_step(self, batch: Any, batch_idx: int) -> Any:
            self.log("made", float(self.global_step))
            return super().training_step(batch, batch_idx)

        def on_train_epoch_end(self) -> None:
            self.log("v", 1.0)

    def fit(ckpt_path: Any, copy: Path | None) -> str:
        logger = CopiedWhenSaved(tmp_path / "run", name="", version="x")
        logger.copy = copy
        trainer = Trainer(
            accelerator="cpu",
            max_epochs=9,
            limit_train_batches=3,
            limit_val_batches=0,
            logger=logger,
            enable_progress_bar=False,
            enable_model_summary=False,
            callbacks=[EarlyStopping("v", patience=1)],
        )
        trainer.fit(Logs(), ckpt_path=ckpt_path)
        return (tmp_path / "run" / "x" / "metrics.csv").read_text()

    whole = fit(None, tmp_path / "copy")
    shutil.rmtree(tmp_path / "run")
    (tmp_path / "copy").rename(tmp_path / "run")
    path = ckpt_path if ckpt_path == "auto" else tmp_path / "run" / "x" / "checkpoints" / ckpt_path

    assert fit(path, None) == whole
    assert whole.splitlines()[-1].startswith("1,5.0,5")
