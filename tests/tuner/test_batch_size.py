"""The search for a batch size: with memory that really runs out, for each verb, as a method and as a callback."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch.utils.data import DataLoader, TensorDataset

from fulmen import LightningDataModule
from fulmen.callbacks import BatchSizeFinder, ModelCheckpoint
from fulmen.tuner import Tuner
from fulmen.utilities.exceptions import MisconfigurationException

from .toys import Data, Model, Squares, picture_of_weights, pictures, points


class Limited(Squares):
    """Needs more memory than there is as soon as a batch has more than `most` samples."""

    most = 20

    def __init__(self, batch_size: int = 2, size: int = 200) -> None:
        super().__init__(batch_size=batch_size)
        self.size = size

    def samples(self) -> Any:
        return DataLoader(TensorDataset(torch.linspace(0.5, 1.5, self.size)), self.batch_size)

    train_dataloader = val_dataloader = test_dataloader = predict_dataloader = samples

    def step(self, batch: Any, batch_idx: int) -> Any:
        [batch] = batch
        if len(batch) > self.most:
            torch.empty(2**60)
        return super().training_step(batch, batch_idx)

    def training_step(self, batch: Any, batch_idx: int) -> Any:
        return self.step(batch, batch_idx)

    def evaluate(self, batch: Any, batch_idx: int) -> Any:
        [batch] = batch
        if len(batch) > self.most:
            torch.empty(2**60)
        return batch

    validation_step = test_step = predict_step = evaluate


def found_by(trainer: Any, model: Any = None, **arguments: Any) -> Any:
    return Tuner(trainer).scale_batch_size(model or Limited(), **arguments)


@pytest.mark.parametrize(
    ("arguments", "size"),
    [
        ({}, 16),
        ({"init_val": 5}, 20),
        ({"init_val": 64}, 16),
        ({"mode": "binsearch", "margin": 0.0}, 20),
        ({"mode": "binsearch"}, 19),
        ({"mode": "binsearch", "init_val": 100, "margin": 0.0}, 20),
        ({"max_trials": 3}, 8),
        ({"max_trials": 3, "mode": "binsearch"}, 7),
        ({"max_val": 10}, 10),
    ],
)
def test_largest_size_that_fits_is_set(trainer_of, arguments, size):
    model = Limited()
    assert found_by(trainer_of(max_epochs=1), model, **arguments) == size
    assert model.batch_size == size


@pytest.mark.parametrize("mode", ["power", "binsearch"])
def test_size_does_not_exceed_the_samples(trainer_of, mode):
    class Notes(Limited):
        most = 10**6
        sizes: list[int] = []  # of the class, which a search leaves alone

        def training_step(self, batch, batch_idx):
            self.sizes.append(len(batch[0]))
            return super().training_step(batch, batch_idx)

    Notes.sizes.clear()
    model = Notes()
    assert found_by(trainer_of(max_epochs=1), model, mode=mode, margin=0.0) == 200
    assert max(Notes.sizes) == 200
    assert model.batch_size == 200


@pytest.mark.parametrize("verb", ["validate", "test", "predict"])
def test_size_is_searched_for_evaluation(trainer_of, verb):
    model = Limited()
    assert found_by(trainer_of(), model, method=verb, mode="binsearch", margin=0.0) == 20
    assert model.batch_size == 20
    assert model.training


def test_everything_but_the_size_is_bit_equal_after_a_search(trainer_of, tmp_path):
    class Large(Model):
        def training_step(self, batch, batch_idx):
            loss = super().training_step(batch, batch_idx)
            return loss + torch.empty(2**60).sum() if len(batch) > 8 else loss

    trainer, model, data = (
        trainer_of(max_epochs=3, callbacks=ModelCheckpoint(), enable_checkpointing=None),
        Large(),
        Data(),
    )
    before, attributes = pictures(model, data, trainer.callbacks, trainer.progress), dict(vars(trainer))
    assert Tuner(trainer).scale_batch_size(model, datamodule=data) == 8
    assert data.batch_size == 8
    data.batch_size = 4
    assert pictures(model, data, trainer.callbacks, trainer.progress) == before
    assert vars(trainer) == attributes
    assert not [*tmp_path.iterdir()]


def test_not_even_one_sample_fits_is_told_with_the_error_of_the_allocator(trainer_of):
    model = Limited(batch_size=7)
    model.most = 0
    with pytest.raises(RuntimeError, match="allocate memory") as raised:
        found_by(trainer_of(max_epochs=1), model)
    assert "not even one sample fits" in raised.value.__notes__[0]
    assert model.batch_size == 7


def test_trials_that_are_used_up_set_nothing(trainer_of):
    model = Limited(batch_size=7)
    with pytest.warns(UserWarning, match="no batch size was found that fits: 50 is the smallest of 3"):
        assert found_by(trainer_of(max_epochs=1), model, init_val=512, max_trials=3) is None
    assert model.batch_size == 7


def test_other_errors_are_raised_and_leave_the_size(trainer_of):
    class Wrong(Limited):
        def training_step(self, batch, batch_idx):
            raise RuntimeError("shapes do not fit")

    model = Wrong(batch_size=7)
    with pytest.raises(RuntimeError, match="shapes do not fit"):
        found_by(trainer_of(max_epochs=1), model)
    assert model.batch_size == 7


def test_all_who_hold_the_size_get_it_and_a_difference_is_told(trainer_of):
    class Held(Limited):
        def __init__(self, batch_size: int = 2) -> None:
            super().__init__(batch_size)
            self.save_hyperparameters()
            self.batch_size = 3

    model = Held()
    with pytest.warns(UserWarning, match=r"Held.batch_size is 3, Held.hparams.batch_size is 2.*All of them are set"):
        found_by(trainer_of(max_epochs=1), model)
    assert (model.batch_size, model.hparams.batch_size) == (16, 16)


def test_loaders_that_do_not_use_the_size_are_told(trainer_of):
    class Ignores(Limited):
        def train_dataloader(self):
            return DataLoader(TensorDataset(torch.ones(50)), 10)

    with pytest.raises(MisconfigurationException, match="does not use `batch_size`: its batches have 10 samples"):
        found_by(trainer_of(max_epochs=1), Ignores())


def test_fast_dev_run_searches_nothing(trainer_of):
    model = Limited()
    with pytest.warns(UserWarning, match="does nothing with `fast_dev_run`"):
        assert found_by(trainer_of(fast_dev_run=True), model) is None
    assert model.batch_size == 2


class NoSize(Squares):
    def __init__(self) -> None:
        super().__init__()
        del self.batch_size
        self.batchsize = 3

    def train_dataloader(self):
        return points()


@pytest.mark.parametrize(
    ("model", "arguments", "error", "says"),
    [
        (Limited, {"mode": "double"}, ValueError, "'power' or 'binsearch'"),
        (Limited, {"margin": 1.5}, ValueError, "to below 1.0"),
        (Limited, {"max_trials": 0}, ValueError, "from 1"),
        (Limited, {"method": "train"}, ValueError, "'validate'"),
        (Limited, {"train_dataloaders": [torch.ones(2)]}, MisconfigurationException, "Define `train_dataloader`"),
        (Limited, {"dataloaders": [1]}, MisconfigurationException, "train_dataloaders="),
        (NoSize, {}, MisconfigurationException, "no 'batch_size' in NoSize.*Did you mean 'batchsize'"),
    ],
)
def test_what_cannot_be_searched_is_refused(trainer_of, model, arguments, error, says):
    with pytest.raises(error, match=says):
        found_by(trainer_of(max_epochs=1), model(), **arguments)


def test_several_loaders_of_an_evaluation_are_refused(trainer_of):
    class Two(Limited):
        def val_dataloader(self):
            return [self.samples(), self.samples()]

        def validation_step(self, batch, batch_idx, dataloader_idx=0):
            return None

    with pytest.raises(MisconfigurationException, match="`val_dataloader` gives 2"):
        found_by(trainer_of(), Two(), method="validate")


def test_second_finder_is_refused(trainer_of):
    with pytest.raises(ValueError, match="BatchSizeFinder, which searches in each `fit`"):
        found_by(trainer_of(max_epochs=1, callbacks=BatchSizeFinder()))


# -- the callback ------------------------------------------------------------------------------------------------------


class Split(LightningDataModule):
    """Shuffles, and is split anew for each loader: all by the random numbers of the process."""

    def __init__(self, batch_size: int = 2) -> None:
        super().__init__()
        self.batch_size = batch_size

    def train_dataloader(self):
        data = torch.randn(40, 3)
        return DataLoader(torch.utils.data.random_split(data, [30, 10])[0], self.batch_size, shuffle=True)

    def val_dataloader(self):
        return DataLoader(torch.randn(9, 3), self.batch_size)


class Fits(Model):
    def training_step(self, batch, batch_idx):
        loss = super().training_step(batch, batch_idx)
        return loss + torch.empty(2**60).sum() if len(batch) > 8 else loss


def test_fit_after_the_search_is_the_fit_with_that_size_from_the_start(trainer_of):
    def run(batch_size: int, *callbacks: Any) -> Any:
        torch.manual_seed(7)
        model, data, trainer = Fits(), Split(batch_size), trainer_of(max_epochs=2, callbacks=list(callbacks))
        trainer.fit(model, datamodule=data)
        losses = [float(loss) for loss in model.seen["losses"]]
        state = picture_of_weights(model), picture_of_weights(trainer.optimizers[0]), losses, trainer.global_step
        return state, data.batch_size, trainer.num_training_batches

    finder = BatchSizeFinder()
    searched = run(3, finder)
    assert finder.optimal_batch_size == 8
    assert searched[1:] == (8, 4)
    assert searched == run(8)


@pytest.mark.parametrize("verb", ["validate", "test", "predict"])
def test_evaluation_runs_with_the_size_that_was_found(trainer_of, verb):
    class Notes(Limited):
        def evaluate(self, batch, batch_idx):
            self.sizes.append(len(batch[0]))
            return super().evaluate(batch, batch_idx)

        validation_step = test_step = predict_step = evaluate

    model, finder = Notes(size=50), BatchSizeFinder(mode="binsearch", margin=0.0)
    model.sizes = []
    getattr(trainer_of(callbacks=finder), verb)(model)
    assert model.sizes == [20, 20, 10]
    assert finder.optimal_batch_size == model.batch_size == 20


def test_validation_within_a_fit_searches_nothing(trainer_of):
    model, finder = Limited(size=8), BatchSizeFinder(max_val=4)
    trainer_of(max_epochs=2, callbacks=finder).fit(model)
    assert finder.optimal_batch_size == 4
    assert model.rates == [0.1] * 4


def test_search_at_a_chosen_epoch_holds_from_there(trainer_of):
    class InSecond(BatchSizeFinder):
        def on_fit_start(self, *args: Any) -> None:
            return

        def on_train_epoch_start(self, trainer: Any, pl_module: Any) -> None:
            if trainer.current_epoch == 1:
                self.scale_batch_size(trainer, pl_module)

    class Notes(Limited):
        def training_step(self, batch, batch_idx):
            self.sizes.append((self.current_epoch, len(batch[0])))
            return super().training_step(batch, batch_idx)

    model = Notes(size=40, batch_size=10)
    model.sizes = []
    trainer = trainer_of(max_epochs=3, callbacks=InSecond())
    trainer.fit(model)
    assert model.sizes == [(0, 10)] * 4 + [(1, 16), (1, 16), (1, 8), (2, 16), (2, 16), (2, 8)]
    assert (trainer.global_step, trainer.num_training_batches) == (10, 3)


def test_resumed_fit_goes_on_with_its_size(trainer_of, tmp_path):
    def run(ckpt_path: Any = None) -> Any:
        torch.manual_seed(8)
        model, data, finder = Fits(), Data(batch_size=3), BatchSizeFinder()
        model.grows = False
        saves = ModelCheckpoint(tmp_path, filename="{epoch}", save_top_k=-1)
        trainer = trainer_of(max_epochs=2, callbacks=[finder, saves], enable_checkpointing=None)
        trainer.fit(model, datamodule=data, ckpt_path=ckpt_path)
        return picture_of_weights(model), data.batch_size, finder.optimal_batch_size

    weights, size, found = run()
    assert (size, found) == (8, 8)
    assert run(tmp_path / "epoch=0.ckpt") == (weights, 8, None)
