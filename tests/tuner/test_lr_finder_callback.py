"""The range test at the beginning of a fit, or of chosen epochs."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch.utils.data import DataLoader

from fulmen.callbacks import LearningRateFinder, ModelCheckpoint
from fulmen.loggers import CSVLogger
from fulmen.utilities.exceptions import MisconfigurationException

from .toys import SEARCH, Data, Model, Squares, picture_of_weights, points


def finder(**arguments: Any) -> LearningRateFinder:
    return LearningRateFinder(**{"num_training_steps": 15, **SEARCH, **arguments})


def test_run_begins_with_the_rate_that_was_found(trainer_of):
    model, one = Squares(), finder()
    trainer = trainer_of(max_epochs=1, callbacks=one)
    trainer.fit(model, points())
    assert model.lr == one.optimal_lr.suggestion() != 0.1
    assert trainer.optimizers[0].param_groups[0]["lr"] == model.lr
    assert model.rates == [model.lr] * 4
    assert (trainer.global_step, trainer.current_epoch) == (4, 1)


def test_result_is_kept_though_nothing_is_set(trainer_of):
    model, one = Squares(), finder(update_attr=False)
    trainer_of(max_epochs=1, callbacks=one).fit(model, points())
    assert len(one.optimal_lr.losses) == 15
    assert model.rates == [0.1] * 4


def test_found_rate_is_the_one_that_is_logged(trainer_of, tmp_path):
    model, logger = Model(), CSVLogger(tmp_path)
    trainer_of(max_epochs=1, callbacks=finder(), logger=logger).fit(model, datamodule=Data())
    assert f"lr: {model.hparams.lr}" in (tmp_path / "lightning_logs/version_0/hparams.yaml").read_text()
    assert not [path for path in tmp_path.rglob("*.ckpt")]


def test_rate_that_the_optimizer_does_not_use_is_told(trainer_of):
    class Ignores(Squares):
        def configure_optimizers(self):
            return torch.optim.SGD([self.weight], lr=0.25)

    with pytest.warns(UserWarning, match=r"Ignores.lr is .* `configure_optimizers` does not use it"):
        trainer_of(max_epochs=1, callbacks=finder()).fit(Ignores(), points())


def test_groups_with_rates_of_their_own_keep_their_ratio(trainer_of):
    class Two(Squares):
        def __init__(self) -> None:
            super().__init__()
            self.other = torch.nn.Parameter(torch.ones(1))

        def configure_optimizers(self):
            groups = [{"params": [self.weight]}, {"params": [self.other], "lr": self.lr / 10}]
            return torch.optim.SGD(groups, lr=self.lr)

        def training_step(self, batch, batch_idx):
            return super().training_step(batch, batch_idx) + self.other.square().sum()

    model = Two()
    trainer = trainer_of(max_epochs=1, callbacks=finder())
    trainer.fit(model, points())
    assert [group["lr"] for group in trainer.optimizers[0].param_groups] == [model.lr, model.lr / 10]


class EveryEpochs(LearningRateFinder):
    """As it is written in many programs."""

    def __init__(self, milestones: tuple[int, ...], *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.milestones, self.found = milestones, []

    def on_fit_start(self, *args: Any, **kwargs: Any) -> None:
        return

    def on_train_epoch_start(self, trainer: Any, pl_module: Any) -> None:
        if trainer.current_epoch in self.milestones:
            self.lr_find(trainer, pl_module)
            self.found.append((trainer.current_epoch, self.optimal_lr.suggestion()))


class ByHand(LearningRateFinder):
    """Sets the same rates at the same epochs, without a search."""

    def __init__(self, rates: dict[int, float]) -> None:
        super().__init__()
        self.rates = rates

    def on_fit_start(self, *args: Any, **kwargs: Any) -> None:
        return

    def on_train_epoch_start(self, trainer: Any, pl_module: Any) -> None:
        if trainer.current_epoch in self.rates:
            for group in trainer.optimizers[0].param_groups:
                group["lr"] = self.rates[trainer.current_epoch]


class Steady(Model):
    def configure_optimizers(self):
        return torch.optim.Adam(self.net.parameters(), lr=self.hparams.lr)


@pytest.mark.parametrize("workers", [0, pytest.param(2, marks=pytest.mark.slow)])
def test_search_at_chosen_epochs_changes_the_rate_and_nothing_else(trainer_of, workers):
    class Loaded(Data):
        def __init__(self) -> None:
            super().__init__()
            options = {"num_workers": workers, "persistent_workers": workers > 0}
            self.loader = DataLoader(self.data, 4, shuffle=True, generator=self.generator, **options)

        def train_dataloader(self):
            return self.loader

    def run(callback: Any) -> Any:
        torch.manual_seed(5)
        model, data, trainer = Steady(), Loaded(), trainer_of(max_epochs=4, callbacks=callback)
        trainer.fit(model, datamodule=data)
        losses = [float(loss) for loss in model.seen["losses"]]
        state = picture_of_weights(model), picture_of_weights(trainer.optimizers[0]), losses, trainer.global_step
        return state, data.data.read

    callback = EveryEpochs((0, 2), num_training_steps=15, early_stop_threshold=None, **SEARCH)
    searched = run(callback)
    assert [epoch for epoch, _ in callback.found] == [0, 2]
    assert searched == run(ByHand(dict(callback.found)))


def test_schedulers_go_on_from_a_rate_that_was_found_in_the_middle(trainer_of):
    class Decays(Squares):
        def configure_optimizers(self):
            optimizer = super().configure_optimizers()
            return [optimizer], [torch.optim.lr_scheduler.LambdaLR(optimizer, lambda epoch: 0.5**epoch)]

    model = Decays()
    callback = EveryEpochs((1,), num_training_steps=15, **SEARCH)
    trainer_of(max_epochs=3, callbacks=callback).fit(model, points())
    [(_, rate)] = callback.found
    assert model.rates == [0.1] * 4 + [rate] * 4 + [rate * 0.25] * 4


class Grown(Model):
    grows = False


def test_resumed_run_goes_on_with_its_rate_and_makes_no_test(trainer_of, tmp_path):
    def run(epochs: int, ckpt_path: Any = None) -> Any:
        torch.manual_seed(6)
        model, data = Grown(), Data()
        one, saves = finder(), ModelCheckpoint(tmp_path, filename="{epoch}", save_top_k=-1)
        trainer = trainer_of(max_epochs=2, callbacks=[one, saves], enable_checkpointing=None)
        trainer.fit(model, datamodule=data, ckpt_path=ckpt_path)
        return picture_of_weights(model), model.hparams.lr, one.optimal_lr

    weights, rate, found = run(2)
    assert found is not None
    resumed, resumed_rate, found = run(2, tmp_path / "epoch=0.ckpt")
    assert found is None
    assert (resumed, resumed_rate) == (weights, rate)


def test_finders_come_first_and_the_batch_size_before_the_rate(trainer_of):
    from fulmen.callbacks import BatchSizeFinder, EarlyStopping

    callbacks = [EarlyStopping("x"), finder(), BatchSizeFinder()]
    names = [type(one).__name__ for one in trainer_of(max_epochs=1, callbacks=callbacks).callbacks]
    assert names == ["BatchSizeFinder", "LearningRateFinder", "EarlyStopping"]


def test_fast_dev_run_makes_no_test(trainer_of):
    one = finder()
    with pytest.warns(UserWarning, match="does nothing with `fast_dev_run`"):
        trainer_of(fast_dev_run=True, callbacks=one).fit(Squares(), points())
    assert one.optimal_lr is None


def test_wrong_mode_and_missing_attribute_are_refused(trainer_of):
    with pytest.raises(ValueError, match="'exponential' or 'linear'"):
        LearningRateFinder(mode="cubic")
    with pytest.raises(AttributeError, match="no 'rate' in Squares"):
        trainer_of(max_epochs=1, callbacks=finder(attr_name="rate")).fit(Squares(), points())


def test_manual_optimization_is_refused(trainer_of):
    class Manual(Squares):
        def __init__(self) -> None:
            super().__init__()
            self.automatic_optimization = False

    with pytest.raises(MisconfigurationException, match="automatic_optimization = False"):
        trainer_of(max_epochs=1, callbacks=finder()).fit(Manual(), points())
