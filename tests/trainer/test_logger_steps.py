"""Which rows the loggers get, and at which step."""

from __future__ import annotations

import pytest

from fulmen import Callback
from fulmen.loggers import CSVLogger

from .means import BATCHES, MEANS, Mean, rows, values, with_name

pytestmark = pytest.mark.filterwarnings("ignore:.*but no validation data")


def steps_of(found, name):
    return [int(row["step"]) for row in with_name(found, name)]


def logs_train_and_val(module, value, batch_idx):
    module.log("train" if module.training else "val", value)


@pytest.mark.parametrize(
    ("every", "batches", "epochs", "expected"),
    [
        (50, 3, 1, [0, 2]),  # a short run has a curve
        (50, 1, 1, [0]),
        (2, 3, 2, [0, 1, 3, 5]),
        (4, 5, 2, [0, 3, 7, 9]),
        (1, 3, 2, [0, 1, 2, 3, 4, 5]),
        (100, 4, 3, [0, 11]),
    ],
)
def test_first_and_last_step_are_always_logged(trainer_of, tmp_path, every, batches, epochs, expected):
    trainer = trainer_of(max_epochs=epochs, log_every_n_steps=every, logger=CSVLogger(tmp_path))
    trainer.fit(Mean(logs_train_and_val), (list(BATCHES) * 2)[:batches])

    assert steps_of(rows(tmp_path), "train") == expected


@pytest.mark.parametrize("stop", ["max_steps", "should_stop", "limit_train_batches"])
def test_last_step_is_logged_however_the_run_ends(trainer_of, tmp_path, stop):
    class Stops(Callback):
        def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx):
            if trainer.global_step == 4:
                trainer.should_stop = True

    arguments = {
        "max_steps": {"max_steps": 4},
        "should_stop": {"max_epochs": 9, "callbacks": Stops()},
        "limit_train_batches": {"max_epochs": 2, "limit_train_batches": 2},
    }[stop]
    trainer_of(logger=CSVLogger(tmp_path), **arguments).fit(Mean(logs_train_and_val), values())

    assert steps_of(rows(tmp_path), "train") == [0, 3]


def test_last_step_is_logged_when_a_run_stops_after_an_epoch(trainer_of, tmp_path):
    class Stops(Callback):
        def on_train_epoch_end(self, trainer, pl_module):
            trainer.should_stop = True

    trainer_of(logger=CSVLogger(tmp_path), max_epochs=9, callbacks=Stops()).fit(Mean(logs_train_and_val), values())

    assert steps_of(rows(tmp_path), "train") == [0, 2]


def test_last_step_of_data_without_a_length_is_logged(trainer_of, tmp_path):
    trainer_of(logger=CSVLogger(tmp_path), max_epochs=2).fit(Mean(logs_train_and_val), WithoutLength())

    assert steps_of(rows(tmp_path), "train") == [0, 5]


class WithoutLength:
    def __iter__(self):
        return iter(list(BATCHES))


def test_log_every_zero_logs_epochs_only(trainer_of, tmp_path):
    def logs(module, value, batch_idx):
        module.log("x", value, on_step=True, on_epoch=True)

    trainer_of(logger=CSVLogger(tmp_path), max_epochs=1, log_every_n_steps=0).fit(Mean(logs), values())

    assert [set(row) for row in rows(tmp_path)] == [{"x_epoch", "epoch", "step"}]


def test_steps_with_accumulation_count_optimizer_steps(trainer_of, tmp_path):
    trainer = trainer_of(
        logger=CSVLogger(tmp_path), max_epochs=2, log_every_n_steps=1, accumulate_grad_batches=2, num_sanity_val_steps=0
    )
    trainer.fit(Mean(logs_train_and_val), values())

    found = rows(tmp_path)
    assert steps_of(found, "train") == [0, 1, 2, 3]
    assert [row["train"] for row in with_name(found, "train")] == pytest.approx([MEANS[1], MEANS[2]] * 2)


@pytest.mark.parametrize("every", [1, 2, 50])
def test_steps_never_go_back_over_fit_validate_and_fit(trainer_of, tmp_path, every):
    def logs(module, value, batch_idx):
        module.log("train" if module.training else "val", value, on_step=True, on_epoch=True)

    trainer = trainer_of(
        max_epochs=2, logger=CSVLogger(tmp_path), log_every_n_steps=every, val_check_interval=2, num_sanity_val_steps=2
    )
    module = Mean(logs)
    trainer.fit(module, values(), values())
    trainer.validate(module, values(), verbose=False)
    trainer.test(module, values(), verbose=False)
    trainer.max_epochs = 4
    trainer.fit(module, values(), values())

    found = rows(tmp_path)
    for name in ("train_step", "train_epoch", "val_epoch"):
        steps = steps_of(found, name)
        assert steps == sorted(steps), name
        assert name == "val_epoch" or len(set(steps)) == len(steps), name
    steps = [int(row["step"]) for row in found if "val_step" not in row]
    assert steps == sorted(steps)
    assert steps_of(found, "train_epoch") == [2, 5, 8, 11]


def test_epoch_of_a_row_is_that_of_its_values(trainer_of, tmp_path):
    def logs(module, value, batch_idx):
        module.log("train" if module.training else "val", float(module.current_epoch), on_step=False, on_epoch=True)

    trainer = trainer_of(max_epochs=3, logger=CSVLogger(tmp_path))
    trainer.fit(Mean(logs), values(), values())

    found = rows(tmp_path)
    for name in ("train", "val"):
        assert [row["epoch"] for row in with_name(found, name)] == [0, 1, 2]
        assert [row[name] for row in with_name(found, name)] == [0, 1, 2]


def test_own_step_is_the_x_axis(trainer_of, tmp_path):
    def logs(module, value, batch_idx):
        module.log("x", value, on_step=False, on_epoch=True)
        module.log("step", float(100 + module.current_epoch), on_step=False, on_epoch=True)

    trainer_of(max_epochs=2, logger=CSVLogger(tmp_path)).fit(Mean(logs), values())

    assert steps_of(rows(tmp_path), "x") == [100, 101]


def test_two_loggers_get_the_same_rows(trainer_of, tmp_path):
    loggers = [CSVLogger(tmp_path / name) for name in "ab"]
    trainer_of(max_epochs=2, logger=loggers, log_every_n_steps=1).fit(Mean(logs_train_and_val), values())

    assert rows(tmp_path / "a") == rows(tmp_path / "b") != []


def test_sanity_check_writes_no_row_and_leaves_no_metric(trainer_of, tmp_path):
    seen = {}

    class Looks(Callback):
        def on_sanity_check_end(self, trainer, pl_module):
            seen["inside"] = set(trainer.callback_metrics)

        def on_train_start(self, trainer, pl_module):
            seen["after"] = (
                dict(trainer.callback_metrics),
                dict(trainer.progress_bar_metrics),
                len(trainer.logged_metrics),
            )

    trainer = trainer_of(max_epochs=1, logger=CSVLogger(tmp_path), limit_train_batches=1, callbacks=Looks())
    trainer.fit(Mean(logs_train_and_val), values(), values())

    assert seen["after"] == ({}, {}, 0)
    assert len(with_name(rows(tmp_path), "val")) == 1


def test_steps_after_resuming_go_on(trainer_of, tmp_path):
    trainer = trainer_of(max_epochs=1, logger=CSVLogger(tmp_path / "one"), log_every_n_steps=1)
    trainer.fit(Mean(logs_train_and_val), values(), values())
    trainer.save_checkpoint(tmp_path / "end.ckpt")

    trainer = trainer_of(max_epochs=2, logger=CSVLogger(tmp_path / "two"), log_every_n_steps=1)
    trainer.fit(Mean(logs_train_and_val), values(), values(), ckpt_path=tmp_path / "end.ckpt")

    assert steps_of(rows(tmp_path / "two"), "train") == [3, 4, 5]
    assert trainer.global_step == 6
