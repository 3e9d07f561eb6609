"""When training ends, and when it may not end yet."""

from __future__ import annotations

import time
from datetime import timedelta

import pytest
import torch

from fulmen import Callback
from fulmen.callbacks import EarlyStopping, Timer

from .counting import Trains, Validates, batches


@pytest.mark.parametrize(
    ("arguments", "trained", "epochs"),
    [
        ({"max_epochs": 2}, 10, 2),
        ({"max_epochs": 0}, 0, 0),
        ({"max_steps": 7}, 7, 2),
        ({"max_steps": 5}, 5, 1),
        ({"max_steps": 0}, 0, 0),
        ({"max_steps": 3, "max_epochs": 9}, 3, 1),
        ({"max_steps": 99, "max_epochs": 2}, 10, 2),
        ({"max_steps": 2, "accumulate_grad_batches": 2}, 4, 1),
        ({"max_steps": 4, "accumulate_grad_batches": 2}, 7, 2),
        ({"max_epochs": -1, "max_steps": 6}, 6, 2),
        ({"max_epochs": 2, "limit_train_batches": 0}, 0, 0),
        ({"max_epochs": 2, "limit_train_batches": 0.0}, 0, 0),
    ],
)
def test_limits_end_training(trainer_of, arguments, trained, epochs):
    module = Trains()
    trainer = trainer_of(**arguments)
    trainer.fit(module, batches())

    assert len(module.trained) == trained
    assert trainer.current_epoch == epochs
    assert trainer.state.finished


def test_max_steps_in_the_middle_of_an_epoch_still_ends_the_epoch(trainer_of):
    calls = []

    class Listens(Callback):
        def on_train_epoch_end(self, trainer, pl_module):
            calls.append("epoch")

        def on_train_end(self, trainer, pl_module):
            calls.append("end")

    trainer_of(max_steps=2, callbacks=Listens()).fit(Trains(), batches())

    assert calls == ["epoch", "end"]


@pytest.mark.parametrize("form", ["00:00:00:00", timedelta(0), {"seconds": 0}])
def test_max_time_ends_training_at_once_if_it_is_nothing(trainer_of, form):
    module = Trains()
    with pytest.warns(UserWarning, match="nothing to train: `trainer.should_stop`"):
        trainer_of(max_time=form).fit(module, batches())

    assert len(module.trained) == 0


def test_max_time_ends_training_after_the_time(trainer_of):
    class Slow(Trains):
        def training_step(self, batch, batch_idx):
            time.sleep(0.02)
            return super().training_step(batch, batch_idx)

    module = Slow()
    start = time.monotonic()
    trainer_of(max_time=timedelta(seconds=0.1)).fit(module, batches())

    assert 0 < len(module.trained) <= 5 + 1
    assert 0.08 < time.monotonic() - start < 5


@pytest.mark.parametrize(
    ("minima", "trained"),
    [
        ({}, 1),
        ({"min_epochs": 2}, 10),
        ({"min_steps": 3}, 5),
        ({"min_steps": 7}, 7),
        ({"min_epochs": 2, "min_steps": 12}, 12),
    ],
)
def test_minima_put_off_a_stop(trainer_of, minima, trained):
    class Stops(Callback):
        def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx):
            trainer.should_stop = True

    module = Trains()
    trainer_of(max_epochs=9, callbacks=Stops(), **minima).fit(module, batches())

    assert len(module.trained) == trained


@pytest.mark.filterwarnings("ignore:nothing to train")
@pytest.mark.parametrize("owner", ["callback", "module"])
@pytest.mark.parametrize(
    ("hook", "trained", "epochs"),
    [
        ("on_fit_start", 0, 0),
        ("on_train_start", 0, 0),
        ("on_train_epoch_start", 0, 1),
        ("on_train_batch_start", 1, 1),
        ("on_before_backward", 1, 1),
        ("on_after_backward", 1, 1),
        ("on_before_optimizer_step", 1, 1),
        ("on_train_batch_end", 1, 1),
        ("on_validation_start", 3, 1),
        ("on_validation_batch_end", 3, 1),
        ("on_validation_epoch_end", 3, 1),
        ("on_validation_end", 3, 1),
        ("on_train_epoch_end", 5, 1),
    ],
)
def test_should_stop_from_any_hook_ends_training_after_the_batch(trainer_of, owner, hook, trained, epochs):
    module, callbacks = Validates(), []

    def stop(*args, **kwargs):
        trainer.should_stop = True

    if owner == "callback":
        callbacks.append(Callback())
        setattr(callbacks[0], hook, stop)
    else:
        written = getattr(module, hook)
        setattr(module, hook, lambda *args, **kwargs: (written(*args, **kwargs), stop())[0])
    trainer = trainer_of(max_epochs=3, callbacks=callbacks, val_check_interval=3, num_sanity_val_steps=0)
    trainer.fit(module, batches(), batches(2))

    assert (len(module.trained), trainer.current_epoch) == (trained, epochs)
    assert trainer.global_step == trained


def test_should_stop_from_the_training_step_ends_training_after_the_batch(trainer_of):
    class Stops(Trains):
        def training_step(self, batch, batch_idx):
            if batch_idx == 2:
                self.trainer.should_stop = True
            return super().training_step(batch, batch_idx)

    module = Stops()
    trainer_of(max_epochs=3).fit(module, batches())

    assert len(module.trained) == 3


def test_should_stop_of_the_last_run_does_not_end_the_next(trainer_of):
    class Stops(Callback):
        def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx):
            trainer.should_stop = len(pl_module.trained) == 3

    module = Trains()
    trainer = trainer_of(max_epochs=3, callbacks=Stops())
    trainer.fit(module, batches())
    trainer.fit(module, batches())

    assert len(module.trained) == 3 + 10


@pytest.mark.parametrize("per_epoch", [False, True])
def test_early_stopping_ends_training_when_nothing_improves(trainer_of, per_epoch):
    class Worsens(Validates):
        def validation_step(self, batch, batch_idx):
            self.log("val", float(max(self.current_epoch, 2)), on_epoch=True)

    module = Worsens()
    stopping = EarlyStopping("val", patience=2, check_on_train_epoch_end=per_epoch)
    trainer = trainer_of(max_epochs=20, callbacks=stopping)
    trainer.fit(module, batches(), batches(1))

    assert stopping.stopped_epoch == 2
    assert trainer.current_epoch == 3
    assert len(module.trained) == 15


def test_early_stopping_on_a_training_metric_ends_training(trainer_of):
    class Logs(Trains):
        def training_step(self, batch, batch_idx):
            self.log("x", 1.0, on_step=False, on_epoch=True)
            return super().training_step(batch, batch_idx)

    trainer = trainer_of(max_epochs=20, callbacks=EarlyStopping("x", patience=3))
    trainer.fit(Logs(), batches())

    assert trainer.current_epoch == 4


def test_timer_as_a_callback_is_a_limit(trainer_of):
    module = Trains()
    trainer = trainer_of(callbacks=Timer(duration=timedelta(0)))
    with pytest.warns(UserWarning, match="nothing to train"):
        trainer.fit(module, batches())

    assert len(module.trained) == 0


@pytest.mark.parametrize("owner", ["module", "callback"])
def test_on_train_batch_start_may_skip_the_rest_of_the_epoch(trainer_of, owner):
    class Skips(Trains):
        def on_train_batch_start(self, batch, batch_idx):
            return -1 if batch_idx == 2 and self.current_epoch == 0 else None

    module = Skips()
    trainer = trainer_of(max_epochs=2)
    if owner == "callback":  # only the module's answer counts
        module = Trains()
        callback = Callback()
        callback.on_train_batch_start = lambda *args: -1
        trainer = trainer_of(max_epochs=2, callbacks=callback)
    trainer.fit(module, batches())

    expected = [(0, 0), (0, 1)] if owner == "module" else [(0, index) for index in range(5)]
    assert module.trained == expected + [(1, index) for index in range(5)]
    assert trainer.global_step == len(module.trained)


def test_schedulers_per_epoch_step_when_the_rest_of_an_epoch_is_skipped(trainer_of):
    class Skips(Trains):
        def on_train_batch_start(self, batch, batch_idx):
            return -1 if batch_idx == 2 else None

        def configure_optimizers(self):
            optimizer = super().configure_optimizers()
            return [optimizer], [torch.optim.lr_scheduler.ExponentialLR(optimizer, 0.5)]

    trainer = trainer_of(max_epochs=3)
    trainer.fit(Skips(), batches())

    assert trainer.optimizers[0].param_groups[0]["lr"] == pytest.approx(0.01 * 0.5**3)


def test_max_epochs_can_be_raised_during_and_after_a_run(trainer_of):
    class Raises(Callback):
        def on_train_epoch_end(self, trainer, pl_module):
            if trainer.current_epoch == 0:
                trainer.fit_loop.max_epochs = 3

    module = Trains()
    trainer = trainer_of(max_epochs=1, callbacks=Raises())
    trainer.fit(module, batches())
    assert trainer.current_epoch == 3
    trainer.max_epochs = 4
    trainer.fit(module, batches())

    assert trainer.current_epoch == 4
    assert len(module.trained) == 20


def test_second_fit_of_the_same_model_goes_on_and_says_if_there_is_nothing_to_do(trainer_of):
    module = Trains()
    trainer = trainer_of(max_epochs=2)
    trainer.fit(module, batches())
    with pytest.warns(UserWarning, match="nothing to train"):
        trainer.fit(module, batches())

    assert len(module.trained) == 10


def test_second_fit_of_another_model_starts_at_zero(trainer_of):
    one, other = Trains(), Trains()
    trainer = trainer_of(max_epochs=2)
    trainer.fit(one, batches())
    trainer.fit(other, batches())

    assert other.trained == one.trained
    assert (trainer.current_epoch, trainer.global_step) == (2, 10)


def test_fit_after_an_exception_begins_the_epoch_anew(trainer_of):
    class Fails(Trains):
        fails = True

        def training_step(self, batch, batch_idx):
            if self.fails and self.current_epoch == 1 and batch_idx == 2:
                raise ArithmeticError
            return super().training_step(batch, batch_idx)

    module = Fails()
    trainer = trainer_of(max_epochs=2)
    with pytest.raises(ArithmeticError):
        trainer.fit(module, batches())
    module.fails = False
    trainer.fit(module, batches())

    assert module.trained[5:] == [(1, 0), (1, 1), *((1, index) for index in range(5))]
    assert trainer.current_epoch == 2
