"""The range test as a method: the curve, what it works with, where the rate goes, and what is refused."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch

from fulmen import LightningDataModule, LightningModule
from fulmen.callbacks import GradientAccumulationScheduler, LearningRateFinder
from fulmen.tuner import Tuner
from fulmen.utilities.exceptions import MisconfigurationException

from .toys import Squares, curve_by_hand, points


def found_by(trainer: Any, model: Any = None, size: int = 8, **arguments: Any) -> Any:
    options = {"min_lr": 1e-3, "max_lr": 0.5, "num_training": 20, "early_stop_threshold": None, **arguments}
    return Tuner(trainer).lr_find(model or Squares(), points(size), **options)


# what Lightning 2.6.6 has in `results["lr"]` for `min_lr=1e-3, max_lr=0.5, num_training=20`, every fourth of them
LIGHTNING = {
    "exponential": [0.001, 0.00472871, 0.0163884, 0.0567977, 0.196845],
    "linear": [0.001, 0.12575, 0.22555, 0.32535, 0.42515],
}


@pytest.mark.parametrize("mode", ["exponential", "linear"])
def test_rates_are_those_of_lightning(trainer_of, mode):
    model = Squares()
    found = found_by(trainer_of(max_epochs=1), model, mode=mode)
    assert found.results["lr"][::4] == pytest.approx(LIGHTNING[mode], rel=1e-5)
    assert found.results["lr"][-1] == pytest.approx(0.5)
    assert (found.mode, found.lr_min, found.lr_max, found.num_training) == (mode, 1e-3, 0.5, 20)


def test_losses_are_those_of_a_loop_by_hand(trainer_of):
    found = found_by(trainer_of(max_epochs=1))
    by_hand = curve_by_hand(found.results["lr"])
    assert found.losses == pytest.approx(by_hand, rel=1e-6)
    mean, smoothed = 0.0, []
    for number, loss in enumerate(by_hand, 1):
        mean = 0.98 * mean + 0.02 * loss
        smoothed.append(mean / (1 - 0.98**number))
    assert found.results["loss"] == pytest.approx(smoothed, rel=1e-6)
    assert found.results["loss"][0] == pytest.approx(by_hand[0])  # not half of it


def test_test_ends_when_the_loss_explodes(trainer_of):
    found = found_by(trainer_of(max_epochs=1), max_lr=1e4, num_training=100, early_stop_threshold=4.0)
    assert len(found.losses) < 60
    assert found.results["loss"][-1] > 4 * min(found.results["loss"])
    assert len(found_by(trainer_of(max_epochs=1), max_lr=1.0, num_training=50).losses) == 50


def test_test_of_a_negative_loss_does_not_end_at_once(trainer_of):
    class Negative(Squares):
        def training_step(self, batch, batch_idx):
            return super().training_step(batch, batch_idx) - 100

    assert len(found_by(trainer_of(max_epochs=1), Negative(), early_stop_threshold=4.0).losses) == 20


def test_loss_that_is_no_number_ends_the_test_and_gives_a_rate_from_before(trainer_of):
    class Explodes(Squares):
        def training_step(self, batch, batch_idx):
            loss = super().training_step(batch, batch_idx)
            return loss * math.inf if len(self.rates) > 15 else loss

    found = found_by(trainer_of(max_epochs=1), Explodes(), early_stop_threshold=4.0)
    assert found.losses[-1] == math.inf
    assert len(found.losses) == 16
    assert found.suggestion() in found.results["lr"][10:15]


def test_step_without_a_loss_is_recorded_as_nan(trainer_of):
    class Skips(Squares):
        def training_step(self, batch, batch_idx):
            loss = super().training_step(batch, batch_idx)
            return None if len(self.rates) == 3 else loss

    found = found_by(trainer_of(max_epochs=1), Skips())
    assert [step for step, loss in enumerate(found.results["loss"]) if math.isnan(loss)] == [2]
    assert len(found.losses) == 20
    assert found.suggestion() is not None


@pytest.mark.parametrize("how", ["argument", "callback"])
def test_rate_rises_once_per_accumulated_step(trainer_of, how):
    arguments = {"accumulate_grad_batches": 2}
    if how == "callback":
        arguments = {"callbacks": GradientAccumulationScheduler({0: 2})}
    model = Squares()
    seen: list[float] = []
    model.on_train_batch_end = lambda *_: seen.append(model.rates[-1])
    found = found_by(trainer_of(max_epochs=1, **arguments), model, num_training=6, update_attr=False)
    assert len(found.losses) == 6
    assert seen[::2] == seen[1::2] == found.results["lr"]
    losses = [float((3.0 * batch).square().mean()) for batch in points()]
    assert found.losses[0] == pytest.approx((losses[0] + losses[1]) / 2)


def test_gradients_are_clipped_as_in_the_run(trainer_of):
    found = found_by(trainer_of(max_epochs=1, gradient_clip_val=1e-9))
    batches = [float((3.0 * batch).square().mean()) for batch in points()]
    assert found.losses == pytest.approx([batches[step % 4] for step in range(20)])


@pytest.mark.parametrize("precision", ["16-mixed", "bf16-mixed"])
def test_test_works_in_half_precision_and_leaves_the_scaler(trainer_of, precision):
    trainer = trainer_of(max_epochs=1, precision=precision)
    model = Squares()
    before = None if trainer.scaler is None else dict(trainer.scaler.state_dict())
    found = found_by(trainer, model)
    assert found.losses == pytest.approx(curve_by_hand(found.results["lr"]), rel=0.05)
    assert (None if trainer.scaler is None else trainer.scaler.state_dict()) == before


def test_hooks_see_the_trainer_and_its_epochs_and_no_validation(trainer_of):
    class Notes(Squares):
        notes: list[Any] = []  # of the class, which a search leaves alone

        def on_train_epoch_end(self):
            self.notes.append((self.trainer.current_epoch, self.trainer.global_step))

        def validation_step(self, batch, batch_idx):
            self.notes.append("validation")

    trainer = trainer_of(max_epochs=1)
    Tuner(trainer).lr_find(Notes(), points(), points(), num_training=12, update_attr=False)
    assert Notes.notes == [(0, 4), (1, 8), (2, 12)]
    assert (trainer.current_epoch, trainer.global_step) == (0, 0)


def test_epochs_that_are_skipped_end_the_test_with_a_warning(trainer_of):
    class Skips(Squares):
        def on_train_batch_start(self, batch, batch_idx):
            return -1

    model = Skips()
    with pytest.warns(UserWarning, match="no learning rate can be found"):
        found = found_by(trainer_of(max_epochs=1), model)
    assert found.losses == []
    assert model.lr == 0.1


# -- where the rate goes -----------------------------------------------------------------------------------------------


class Saved(Squares):
    def __init__(self, learning_rate: float = 0.1) -> None:
        super().__init__()
        del self.lr
        self.save_hyperparameters()

    def configure_optimizers(self):
        return torch.optim.SGD([self.weight], lr=self.hparams.learning_rate)


def test_rate_is_set_in_all_that_hold_it(trainer_of):
    class Data(LightningDataModule):
        def __init__(self, lr: float = 0.1) -> None:
            super().__init__()
            self.save_hyperparameters()
            self.lr = lr

        def train_dataloader(self):
            return points()

    class Both(Squares):
        def __init__(self, lr: float = 0.1) -> None:
            super().__init__(lr)
            self.save_hyperparameters()

    model, data = Both(), Data()
    found = Tuner(trainer_of(max_epochs=1)).lr_find(model, data, num_training=20, max_lr=0.5)
    rate = found.suggestion()
    assert (model.lr, model.hparams.lr, data.lr, data.hparams.lr) == (rate,) * 4
    assert (model.hparams_initial.lr, data.hparams_initial.lr) == (rate, rate)


def test_rate_is_set_in_the_hyperparameters_and_used_by_the_fit(trainer_of):
    model, trainer = Saved(), trainer_of(max_epochs=1)
    rate = found_by(trainer, model).suggestion()
    assert model.hparams.learning_rate == rate
    trainer.fit(model, points())
    assert trainer.optimizers[0].param_groups[0]["lr"] == rate


def test_rate_is_set_in_the_named_attribute_alone(trainer_of):
    model = Squares()
    model.my_rate = 1.0
    rate = found_by(trainer_of(max_epochs=1), model, attr_name="my_rate").suggestion()
    assert (model.my_rate, model.lr) == (rate, 0.1)


def test_rate_is_not_set_if_not_asked_for(trainer_of):
    model = Saved()
    assert found_by(trainer_of(max_epochs=1), model, update_attr=False).suggestion() != 0.1
    assert model.hparams.learning_rate == 0.1


def test_rate_of_another_method_is_set(trainer_of):
    model = Squares()
    found = found_by(trainer_of(max_epochs=1), model, suggest_by="minimum/10")
    assert model.lr == found.suggestion(method="minimum/10")


def test_module_without_the_attribute_is_told_before_anything_runs(trainer_of):
    class Named(Squares):
        def __init__(self) -> None:
            super().__init__()
            del self.lr
            self.learning_rte = 0.1

        def configure_optimizers(self):
            raise AssertionError("nothing may run")

    with pytest.raises(AttributeError, match=r"neither 'lr' nor 'learning_rate' in Named.*Did you mean 'learning_rte'"):
        found_by(trainer_of(max_epochs=1), Named())
    with pytest.raises(AttributeError, match=r"no 'rate' in Named.*attr_name="):
        found_by(trainer_of(max_epochs=1), Named(), attr_name="rate")


# -- what is refused ---------------------------------------------------------------------------------------------------


def test_fast_dev_run_makes_no_test(trainer_of):
    model = Squares()
    with pytest.warns(UserWarning, match="does nothing with `fast_dev_run`"):
        assert found_by(trainer_of(fast_dev_run=True), model) is None
    assert model.rates == []


class ByHand(LightningModule):
    def __init__(self) -> None:
        super().__init__()
        self.lr, self.automatic_optimization = 0.1, False


class NoOptimizer(Squares):
    def configure_optimizers(self):
        return None


class Two(Squares):
    def configure_optimizers(self):
        return [torch.optim.SGD([self.weight], lr=self.lr), torch.optim.SGD([self.weight], lr=self.lr)]


@pytest.mark.parametrize(
    ("model", "error", "says"),
    [
        (ByHand, MisconfigurationException, r"automatic_optimization = False.*Trainer\(max_steps=100\)"),
        (Two, RuntimeError, "2 optimizers"),
    ],
)
def test_model_without_one_optimizer_is_refused(trainer_of, model, error, says):
    with pytest.raises(error, match=says):
        found_by(trainer_of(max_epochs=1), model())


def test_model_without_an_optimizer_is_refused(trainer_of):
    with (
        pytest.warns(UserWarning, match="returned None"),
        pytest.raises(MisconfigurationException, match="one optimizer"),
    ):
        found_by(trainer_of(max_epochs=1), NoOptimizer())


@pytest.mark.parametrize(
    ("arguments", "error", "says"),
    [
        ({"mode": "cubic"}, ValueError, "'exponential' or 'linear'"),
        ({"method": "train"}, ValueError, "must be one of 'fit'"),
        ({"method": "validate"}, MisconfigurationException, "of use to `fit` alone"),
        ({"min_lr": 1.0, "max_lr": 0.1}, ValueError, "the smaller one"),
        ({"min_lr": 0.0}, ValueError, "mode='linear'"),
        ({"num_training": 0}, ValueError, "from 1"),
        ({"early_stop_threshold": 0.5}, ValueError, "above 1"),
        ({"suggest_by": "best"}, ValueError, "'steepest', 'valley', 'minimum/10'"),
        ({"dataloaders": []}, MisconfigurationException, "train_dataloaders="),
    ],
)
def test_argument_that_cannot_be_is_refused(trainer_of, arguments, error, says):
    with pytest.raises(error, match=says):
        found_by(trainer_of(max_epochs=1), **arguments)


def test_second_finder_is_refused(trainer_of):
    with pytest.raises(ValueError, match="LearningRateFinder, which searches in each `fit`"):
        found_by(trainer_of(max_epochs=1, callbacks=LearningRateFinder()))
