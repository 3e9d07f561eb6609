"""BasePredictionWriter: what is written, with which indices."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch.utils.data import DataLoader, Dataset

from fulmen import Trainer
from fulmen.callbacks.prediction_writer import BasePredictionWriter, WriteInterval
from fulmen.demos.boring_classes import BoringModel
from fulmen.utilities.exceptions import MisconfigurationException


class Numbers(Dataset):
    """0, 1, 2 as samples."""

    def __len__(self) -> int:
        return 3

    def __getitem__(self, index: int) -> torch.Tensor:
        return torch.tensor(float(index))


class Doubles(BoringModel):
    def predict_step(self, batch: Any, batch_idx: int, dataloader_idx: int = 0) -> Any:
        return (2 * batch).tolist()


class Writer(BasePredictionWriter):
    def __init__(self, write_interval: Any) -> None:
        super().__init__(write_interval)
        self.batches: list[Any] = []
        self.epochs: list[Any] = []

    def write_on_batch_end(
        self,
        trainer: Any,
        pl_module: Any,
        prediction: Any,
        batch_indices: Any,
        batch: Any,
        batch_idx: int,
        dataloader_idx: int,
    ) -> None:
        self.batches.append((prediction, batch_indices, batch.tolist(), batch_idx, dataloader_idx))

    def write_on_epoch_end(self, trainer: Any, pl_module: Any, predictions: Any, batch_indices: Any) -> None:
        self.epochs.append((predictions, batch_indices))


def _predict(writer: BasePredictionWriter, loaders: Any = None, return_predictions: bool = False) -> Any:
    trainer = Trainer(accelerator="cpu", logger=False, enable_progress_bar=False, callbacks=[writer])
    loaders = DataLoader(Numbers(), batch_size=2) if loaders is None else loaders
    return trainer.predict(Doubles(), loaders, return_predictions=return_predictions)


def test_writer_per_batch_gets_each_prediction_with_its_place():
    writer = Writer("batch")
    _predict(writer)

    assert writer.batches == [
        ([0.0, 2.0], [0, 1], [0.0, 1.0], 0, 0),
        ([4.0], [2], [2.0], 1, 0),
    ]
    assert writer.epochs == []


@pytest.mark.parametrize("returned", [True, False])
def test_writer_per_epoch_gets_all_of_them_also_when_none_are_returned(returned):
    writer = Writer("epoch")
    _predict(writer, return_predictions=returned)

    assert writer.epochs == [([[0.0, 2.0], [4.0]], [[[0, 1], [2]]])]
    assert writer.batches == []


@pytest.mark.parametrize("returned", [True, False])
def test_writer_of_several_loaders_gets_a_list_per_loader(returned):
    writer = Writer("batch_and_epoch")
    loaders = [DataLoader(Numbers(), batch_size=2), DataLoader(Numbers(), batch_size=3)]
    _predict(writer, loaders, return_predictions=returned)

    assert writer.epochs == [([[[0.0, 2.0], [4.0]], [[0.0, 2.0, 4.0]]], [[[0, 1], [2]], [[0, 1, 2]]])]
    assert [batch[-1] for batch in writer.batches] == [0, 0, 1]


def test_writer_of_shuffled_data_gets_the_true_indices():
    writer = Writer("batch")
    sampler = torch.utils.data.SubsetRandomSampler([2, 0, 1])
    _predict(writer, DataLoader(Numbers(), batch_size=2, sampler=sampler))

    for _, indices, batch, _, _ in writer.batches:
        assert indices == batch


def test_writer_keeps_nothing_between_runs():
    writer = Writer("epoch")
    _predict(writer)
    _predict(writer)

    assert writer.epochs[0] == writer.epochs[1]


def test_writer_without_the_method_it_needs_says_which():
    with pytest.raises(NotImplementedError, match="`write_on_batch_end`"):
        _predict(BasePredictionWriter("batch"))


def test_step_that_fetches_its_own_batches_is_refused():
    class Fetches(BoringModel):
        def predict_step(self, dataloader_iter: Any) -> Any:
            return next(dataloader_iter)

    trainer = Trainer(accelerator="cpu", logger=False, enable_progress_bar=False, callbacks=[Writer("batch")])
    with pytest.raises(NotImplementedError, match="dataloader_iter"):
        trainer.predict(Fetches(), DataLoader(Numbers()))


def test_interval_says_when_it_writes():
    assert WriteInterval("batch").on_batch
    assert not WriteInterval("batch").on_epoch
    assert WriteInterval("batch_and_epoch").on_batch
    assert WriteInterval("batch_and_epoch").on_epoch


def test_interval_that_is_not_known_is_named():
    with pytest.raises(MisconfigurationException, match=r"write_interval='step'.*'batch', 'epoch', 'batch_and_epoch'"):
        Writer("step")
