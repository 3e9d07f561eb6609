"""The Trainer's arguments: how much data, how they may be given, and what the special modes do."""

from __future__ import annotations

import logging
import os

import pytest
import torch

from fulmen import Callback, Trainer
from fulmen.callbacks import ModelCheckpoint
from fulmen.loggers import CSVLogger

from .counting import Trains, Validates, batches


@pytest.mark.parametrize(
    ("limit", "expected"),
    [(None, 5), (1.0, 5), (1, 1), (0.5, 2), (3, 3), (99, 5), (0.2, 1), (0.99, 4), (3.0, 3), (0, 0), (0.0, 0)],
)
def test_limits_of_batches_are_numbers_or_fractions(trainer_of, limit, expected):
    module = Validates()
    trainer = trainer_of(
        max_epochs=1,
        limit_train_batches=limit,
        limit_val_batches=limit,
        limit_test_batches=limit,
        limit_predict_batches=limit,
        num_sanity_val_steps=0,
    )
    module.test_step = module.validation_step
    module.forward = lambda batch: batch
    trainer.fit(module, batches(5), batches(5))
    assert (len(module.trained), len(module.checked)) == (expected, expected)
    module.checked.clear()
    trainer.test(module, batches(5), verbose=False)
    assert len(module.checked) == expected
    assert len(trainer.predict(module, batches(5)) or []) == expected


@pytest.mark.parametrize("overfit", [2, 0.4])
def test_overfit_batches_takes_the_same_batches_of_both_loaders_without_shuffling(trainer_of, overfit):
    module = Validates()
    trainer = trainer_of(max_epochs=2, overfit_batches=overfit, num_sanity_val_steps=0)
    with pytest.warns(UserWarning, match="shuffling"):
        trainer.fit(module, batches(5, shuffle=True), batches(5))

    assert module.numbers == [[0.0, 1.0], [2.0, 3.0]] * 2
    assert module.checked == module.numbers
    assert trainer.num_training_batches == 2


def test_overfit_batches_keeps_drop_last_and_the_batch_size(trainer_of):
    module = Trains()
    with pytest.warns(UserWarning, match="shuffling"):
        trainer_of(max_epochs=1, overfit_batches=1.0).fit(
            module, batches(5, shuffle=True, batch_size=3, drop_last=True)
        )

    assert module.numbers == [[0.0, 1.0, 2.0], [3.0, 4.0, 5.0], [6.0, 7.0, 8.0]]


@pytest.mark.parametrize(("every", "asked"), [(0, [0]), (1, [0, 1, 2, 3]), (2, [0, 2]), (3, [0, 3])])
def test_loaders_are_asked_for_anew_so_often(trainer_of, every, asked):
    class Owns(Validates):
        def __init__(self):
            super().__init__()
            self.asked = {"train": [], "val": []}

        def train_dataloader(self):
            self.asked["train"].append(self.trainer.current_epoch)
            return batches(1 + self.trainer.current_epoch)

        def val_dataloader(self):
            self.asked["val"].append(self.trainer.current_epoch)
            return batches(1)

    module = Owns()
    trainer_of(max_epochs=4, reload_dataloaders_every_n_epochs=every, num_sanity_val_steps=0).fit(module)

    assert module.asked == {"train": asked, "val": asked}
    lengths = [sum(epoch == e for e, _ in module.trained) for epoch in range(4)]
    assert lengths == [1 + max(a for a in asked if a <= epoch) for epoch in range(4)]


@pytest.mark.parametrize("value", [True, 1, 3])
def test_fast_dev_run_runs_few_batches_of_each_stage_and_writes_nothing(trainer_of, tmp_path, value):
    module = Validates()
    module.test_step = module.validation_step
    trainer = trainer_of(
        fast_dev_run=value,
        logger=CSVLogger(tmp_path),
        enable_checkpointing=True,
        callbacks=[ModelCheckpoint(tmp_path)],
        max_epochs=7,
    )
    trainer.fit(module, batches(5), batches(5))
    assert (len(module.trained), len(module.checked)) == (int(value), int(value))
    module.checked.clear()
    trainer.test(module, batches(5), verbose=False)

    assert len(module.checked) == int(value)
    assert trainer.current_epoch == 1
    assert list(tmp_path.iterdir()) == []


def test_barebones_trains_the_same_and_logs_nothing(trainer_of, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)

    class Logs(Validates):
        def training_step(self, batch, batch_idx):
            self.log("x", 1.0)
            return super().training_step(batch, batch_idx)

    torch.manual_seed(1)
    plain, module = Logs(), Logs()
    module.load_state_dict(plain.state_dict())
    trainer_of(max_epochs=2).fit(plain, batches(3), batches(1))
    trainer = Trainer(barebones=True, max_epochs=2)
    with pytest.warns(UserWarning, match="barebones"):
        trainer.fit(module, batches(3), batches(1))

    assert torch.equal(module.layer.weight, plain.layer.weight)
    assert dict(trainer.callback_metrics) == {}
    assert trainer.callbacks == trainer.loggers == []
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("argument", [{"logger": True}, {"enable_checkpointing": True}, {"profiler": "simple"}])
def test_barebones_refuses_what_costs_time(argument):
    (name,) = argument
    with pytest.raises(ValueError, match=f"`{name}`"):
        Trainer(barebones=True, **argument)


@pytest.mark.filterwarnings("ignore:Error detected in LogBackward0", "ignore:Anomaly Detection")
@pytest.mark.parametrize("detect", [False, True])
def test_detect_anomaly_finds_the_nan_and_is_off_afterwards(trainer_of, detect):
    class Breaks(Trains):
        def training_step(self, batch, batch_idx):
            return (self.layer.weight.sum() * 0.0).sqrt()

    trainer = trainer_of(max_epochs=1, detect_anomaly=detect)
    if detect:
        with pytest.raises(RuntimeError, match="returned nan"):
            trainer.fit(Breaks(), batches(1))
    else:
        trainer.fit(Breaks(), batches(1))

    assert not torch.is_anomaly_enabled()


@pytest.mark.parametrize(
    ("value", "on", "warn_only"), [(True, True, False), ("warn", True, True), (False, False, False)]
)
def test_deterministic_sets_the_algorithms_of_torch(trainer_of, value, on, warn_only):
    trainer_of(deterministic=value)

    assert torch.are_deterministic_algorithms_enabled() is on
    assert torch.is_deterministic_algorithms_warn_only_enabled() is warn_only
    assert (os.environ.get("CUBLAS_WORKSPACE_CONFIG") == ":4096:8") is on


def test_deterministic_not_given_leaves_the_algorithms_of_torch(trainer_of):
    torch.use_deterministic_algorithms(True)
    trainer_of()

    assert torch.are_deterministic_algorithms_enabled()


@pytest.mark.parametrize(
    ("name", "text", "attribute", "value"),
    [
        ("MAX_EPOCHS", "3", "max_epochs", 3),
        ("LIMIT_TRAIN_BATCHES", "0.5", "limit_train_batches", 0.5),
        ("LIMIT_VAL_BATCHES", "2", "limit_val_batches", 2),
        ("GRADIENT_CLIP_VAL", "0.1", "gradient_clip_val", 0.1),
        ("VAL_CHECK_INTERVAL", "20step", "val_check_interval", "20step"),
        ("PRECISION", "bf16-mixed", "precision", "bf16-mixed"),
        ("FAST_DEV_RUN", "True", "fast_dev_run", True),
        ("LOG_EVERY_N_STEPS", "", "log_every_n_steps", 50),
    ],
)
def test_argument_comes_from_the_environment(trainer_of, monkeypatch, name, text, attribute, value):
    monkeypatch.setenv(f"PL_TRAINER_{name}", text)

    assert getattr(trainer_of(), attribute) == value


def test_argument_in_the_program_wins_over_the_environment(trainer_of, monkeypatch):
    monkeypatch.setenv("PL_TRAINER_MAX_EPOCHS", "3")

    assert trainer_of(max_epochs=5).max_epochs == 5


def test_positional_arguments_stand_in_the_order_of_the_signature():
    trainer = Trainer("cpu", "auto", 1, logger=False, enable_checkpointing=False)

    assert (trainer.accelerator.name(), trainer.num_devices) == ("cpu", 1)
    with pytest.raises(TypeError, match="two values for `accelerator`"):
        Trainer("cpu", accelerator="cpu")


def test_max_epochs_not_given_warns_and_takes_a_thousand(trainer_of):
    class Stops(Callback):
        def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx):
            trainer.should_stop = True

    trainer = trainer_of(callbacks=Stops())
    with pytest.warns(UserWarning, match="1000 epochs"):
        trainer.fit(Trains(), batches(1))

    assert trainer.max_epochs == 1000


@pytest.mark.parametrize(
    ("arguments", "batches_per_epoch", "expected"),
    [
        ({"max_epochs": 3}, 5, 15),
        ({"max_epochs": 3, "accumulate_grad_batches": 2}, 5, 9),
        ({"max_epochs": 3, "max_steps": 7}, 5, 7),
        ({"max_steps": 7}, 5, 7),
        ({"max_epochs": 2, "limit_train_batches": 3}, 5, 6),
        ({"max_epochs": -1}, 5, float("inf")),
    ],
)
def test_estimated_steps_are_the_steps_made(trainer_of, arguments, batches_per_epoch, expected):
    seen = []

    class Asks(Trains):
        def configure_optimizers(self):
            seen.append(self.trainer.estimated_stepping_batches)
            return super().configure_optimizers()

    class Stops(Callback):
        def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx):
            trainer.should_stop = expected == float("inf")

    trainer = trainer_of(callbacks=Stops(), **arguments)
    trainer.fit(Asks(), batches(batches_per_epoch))

    assert seen == [expected]
    assert expected == float("inf") or trainer.global_step == expected


def test_explain_says_what_a_run_will_do(trainer_of, capsys):
    trainer = trainer_of(max_epochs=3, val_check_interval="20step", accumulate_grad_batches=4, gradient_clip_val=0.5)
    trainer.explain()
    text = capsys.readouterr().out

    assert "after 3 epochs" in text
    assert "every 20step" in text
    assert "after every 4 batches" in text
    assert "norm to 0.5" in text


def test_accumulate_grad_batches_can_be_changed_between_epochs(trainer_of):
    class Changes(Callback):
        def on_train_epoch_start(self, trainer, pl_module):
            trainer.accumulate_grad_batches = trainer.current_epoch + 1

    trainer = trainer_of(max_epochs=3, callbacks=Changes())
    trainer.fit(Trains(), batches(5))

    assert trainer.global_step == 5 + 3 + 2


def test_default_fit_writes_at_most_three_lines(tmp_path, capfd, caplog):
    with caplog.at_level(logging.INFO):
        trainer = Trainer(
            accelerator="cpu", max_epochs=1, default_root_dir=tmp_path, enable_progress_bar=False,
            enable_model_summary=False, logger=CSVLogger(tmp_path),
        )  # fmt: skip
        trainer.fit(Trains(), batches(1))

    lines = [*capfd.readouterr().out.splitlines(), *(record.getMessage() for record in caplog.records)]
    assert len([line for line in lines if line.strip()]) <= 3
