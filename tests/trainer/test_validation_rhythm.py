"""When `fit` validates."""

from __future__ import annotations

import itertools
from datetime import timedelta

import pytest
import torch
from torch.utils.data import IterableDataset

from fulmen import Callback
from fulmen.utilities.exceptions import MisconfigurationException

from .counting import Validates, batches


@pytest.mark.parametrize(
    ("arguments", "validated"),
    [
        ({}, [5, 10, 15, 20]),
        ({"val_check_interval": 1.0}, [5, 10, 15, 20]),
        ({"val_check_interval": 0.5}, [2, 4, 7, 9, 12, 14, 17, 19]),
        ({"val_check_interval": 0.01}, list(range(1, 21))),
        ({"val_check_interval": 1}, list(range(1, 21))),
        ({"val_check_interval": 3}, [3, 8, 13, 18]),
        ({"val_check_interval": 5}, [5, 10, 15, 20]),
        ({"val_check_interval": "3batch"}, [3, 8, 13, 18]),
        ({"val_check_interval": 3, "check_val_every_n_epoch": None}, [3, 6, 9, 12, 15, 18]),
        ({"val_check_interval": 8, "check_val_every_n_epoch": None}, [8, 16]),
        ({"val_check_interval": "8step"}, [8, 16]),
        ({"val_check_interval": "3step"}, [3, 6, 9, 12, 15, 18]),
        ({"val_check_interval": "2epoch"}, [10, 20]),
        ({"val_check_interval": "1epoch"}, [5, 10, 15, 20]),
        ({"check_val_every_n_epoch": 2}, [10, 20]),
        ({"check_val_every_n_epoch": 3}, [15]),
        ({"check_val_every_n_epoch": 2, "val_check_interval": 2}, [7, 9, 17, 19]),
        ({"check_val_every_n_epoch": 2, "val_check_interval": 0.4}, [7, 9, 17, 19]),
        ({"val_check_interval": "4step", "accumulate_grad_batches": 2}, [7, 14, 20]),
        ({"val_check_interval": timedelta(hours=1)}, []),
        ({"val_check_interval": {"hours": 1}}, []),
        ({"val_check_interval": "1h"}, []),
        ({"val_check_interval": "00:01:00:00"}, []),
        ({"val_check_interval": timedelta(microseconds=1)}, list(range(1, 21))),
        ({"val_check_interval": timedelta(microseconds=1), "check_val_every_n_epoch": 4}, list(range(16, 21))),
        ({"limit_val_batches": 0}, []),
        ({"limit_train_batches": 2}, [2, 4, 6, 8]),
        ({"limit_train_batches": 0.5}, [2, 4, 6, 8]),
        ({"max_steps": 7}, [5]),
    ],
)
def test_validation_follows_these_batches(trainer_of, arguments, validated):
    module = Validates()
    trainer_of(**{"max_epochs": 4, **arguments}).fit(module, batches(5), batches(2))

    assert module.validated == validated


@pytest.mark.parametrize(
    ("arguments", "validated"),
    [
        ({}, [5, 10]),
        ({"val_check_interval": 2}, [2, 4, 7, 9]),
        ({"val_check_interval": 4, "check_val_every_n_epoch": None}, [4, 8]),
        ({"check_val_every_n_epoch": 2}, [10]),
        ({"val_check_interval": "2epoch"}, [10]),
        ({"limit_train_batches": 3}, [3, 6]),
    ],
)
def test_validation_of_data_without_a_length_follows_these_batches(trainer_of, arguments, validated):
    class Stream(IterableDataset):
        def __iter__(self):
            return iter(torch.ones(10, 1))

    module = Validates()
    stream = torch.utils.data.DataLoader(Stream(), batch_size=2)
    trainer_of(**{"max_epochs": 2, **arguments}).fit(module, stream, batches(2))

    assert module.validated == validated


def test_validation_comes_when_training_is_stopped(trainer_of):
    class Stops(Callback):
        def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx):
            trainer.should_stop = len(pl_module.trained) == 3

    module = Validates()
    trainer_of(max_epochs=4, callbacks=Stops()).fit(module, batches(5), batches(2))

    assert module.validated == [3]


def test_validation_interval_longer_than_the_epoch_says_what_to_write(trainer_of):
    with pytest.raises(ValueError, match="check_val_every_n_epoch=None"):
        trainer_of(max_epochs=1, val_check_interval=6).fit(Validates(), batches(5), batches(2))


@pytest.mark.parametrize("interval", ["0s", "0step", 0, 0.0, -1, 1.5, "often", True, timedelta(0)])
def test_interval_that_means_nothing_is_refused(trainer_of, interval):
    with pytest.raises(MisconfigurationException):
        trainer_of(val_check_interval=interval)


def test_interval_counted_over_epochs_goes_on_in_a_second_fit(trainer_of):
    module = Validates()
    trainer = trainer_of(max_epochs=1, val_check_interval=3, check_val_every_n_epoch=None, num_sanity_val_steps=0)
    trainer.fit(module, batches(5), batches(1))
    trainer.max_epochs = 2
    trainer.fit(module, batches(5), batches(1))

    assert module.validated == [3, 6, 9]


@pytest.mark.parametrize(
    ("steps", "loaders", "expected"),
    [(0, 1, 0), (None, 1, 2), (1, 1, 1), (3, 1, 3), (9, 1, 4), (-1, 1, 4), (1, 2, 2)],
)
def test_sanity_check_runs_so_many_batches_of_each_loader(trainer_of, steps, loaders, expected):
    seen = []

    class Looks(Callback):
        def on_sanity_check_end(self, trainer, pl_module):
            seen.append(len(pl_module.checked))

    class TakesLoaders(Validates):
        def validation_step(self, batch, batch_idx, dataloader_idx=0):
            return super().validation_step(batch, batch_idx)

    data = [batches(4) for _ in range(loaders)]
    trainer = trainer_of(max_epochs=1, num_sanity_val_steps=steps, callbacks=Looks())
    trainer.fit(TakesLoaders(), batches(1), data)

    assert seen == ([expected] if expected else [])


def test_sanity_check_leaves_no_trace_in_random_numbers_and_modes(trainer_of):
    class Draws(Validates):
        def __init__(self):
            super().__init__()
            self.norm = torch.nn.BatchNorm1d(1)
            self.drawn = []

        def validation_step(self, batch, batch_idx):
            torch.rand(17)
            self.norm(batch)

        def training_step(self, batch, batch_idx):
            self.drawn.append(torch.rand(1).item())
            assert self.training
            return super().training_step(batch, batch_idx)

    drawn = []
    for steps in (0, 2):
        torch.manual_seed(3)
        module = Draws()
        trainer_of(max_epochs=1, num_sanity_val_steps=steps, val_check_interval=5).fit(
            module, batches(5, shuffle=True), batches(3)
        )
        drawn.append((module.drawn, module.numbers, module.norm.num_batches_tracked.item()))

    assert drawn[0] == drawn[1]


def test_validation_gives_each_sub_module_its_mode_back(trainer_of):
    class Frozen(Validates):
        def __init__(self):
            super().__init__()
            self.frozen = torch.nn.Sequential(torch.nn.Dropout(0.5))
            self.modes = []

        def on_train_start(self):
            self.frozen.eval()

        def validation_step(self, batch, batch_idx):
            assert not any(child.training for child in self.modules())

        def training_step(self, batch, batch_idx):
            self.modes.append((self.training, self.layer.training, self.frozen.training, self.frozen[0].training))
            return super().training_step(batch, batch_idx)

    module = Frozen()
    trainer_of(max_epochs=2, val_check_interval=1).fit(module, batches(3), batches(1))

    assert set(module.modes) == {(True, True, False, False)}


@pytest.mark.parametrize("inference_mode", [True, False])
def test_inference_mode_is_for_evaluation_alone_and_no_gradient_anywhere(trainer_of, inference_mode):
    seen = {}

    class Looks(Validates):
        def _look(self, name, batch):
            seen[name] = (torch.is_inference_mode_enabled(), torch.is_grad_enabled(), self.layer(batch).is_inference())

        def validation_step(self, batch, batch_idx):
            self._look(str(self.trainer.state.fn), batch)

        def test_step(self, batch, batch_idx):
            self._look("test", batch)

        def predict_step(self, batch, batch_idx):
            self._look("predict", batch)
            return batch

    module = Looks()
    trainer = trainer_of(max_epochs=1, inference_mode=inference_mode)
    trainer.fit(module, batches(1), batches(1))
    trainer.validate(module, batches(1), verbose=False)
    trainer.test(module, batches(1), verbose=False)
    trainer.predict(module, batches(1))

    assert seen == {
        "fit": (False, False, False),
        **dict.fromkeys(("validate", "test", "predict"), (inference_mode, False, inference_mode)),
    }


def test_tensors_kept_from_validation_within_fit_can_be_trained_on(trainer_of):
    class Keeps(Validates):
        kept = None

        def validation_step(self, batch, batch_idx):
            self.kept = self.layer(batch)

        def training_step(self, batch, batch_idx):
            loss = super().training_step(batch, batch_idx)
            return loss if self.kept is None else loss + (self.layer(batch) * self.kept.mean()).mean()

    module = Keeps()
    trainer_of(max_epochs=2).fit(module, batches(2), batches(1))

    assert len(module.trained) == 4


def test_several_validation_loaders_are_run_one_after_another(trainer_of):
    seen = []

    class Looks(Validates):
        def validation_step(self, batch, batch_idx, dataloader_idx=0):
            seen.append((dataloader_idx, batch_idx))

    trainer_of(max_epochs=1, num_sanity_val_steps=0, limit_val_batches=2).fit(
        Looks(), batches(1), {"one": batches(3), "two": batches(1)}
    )

    assert seen == [(0, 0), (0, 1), (1, 0)]


def test_validation_during_accumulation_keeps_the_gradients(trainer_of):
    weights = []
    for interval in (1, 4):
        torch.manual_seed(1)
        module = Validates()
        trainer = trainer_of(max_epochs=2, val_check_interval=interval, accumulate_grad_batches=2)
        trainer.fit(module, batches(4), batches(1))
        weights.append(torch.cat([p.detach().flatten() for p in module.parameters()]))

    assert torch.equal(*weights)


def test_every_combination_of_interval_and_epochs_validates_as_often_as_arithmetic_says(trainer_of):
    for interval, every, epochs in itertools.product((1, 2, 4), (1, 2, 3), (1, 3)):
        module = Validates()
        trainer = trainer_of(max_epochs=epochs, val_check_interval=interval, check_val_every_n_epoch=every)
        trainer.fit(module, batches(4), batches(1))

        assert len(module.validated) == (epochs // every) * (4 // interval)
