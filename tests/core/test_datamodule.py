"""The datamodule: made from datasets, shown, sent to other processes, made again from a checkpoint."""

from __future__ import annotations

import pickle
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.utils.data import DataLoader, IterableDataset, RandomSampler, SequentialSampler, TensorDataset

from fulmen.core.datamodule import LightningDataModule
from fulmen.core.hparams import hparams_for_checkpoint
from fulmen.utilities.exceptions import MisconfigurationException


class Stream(IterableDataset):
    def __iter__(self) -> Any:
        return iter(range(3))


def dataset(size: int) -> TensorDataset:
    return TensorDataset(torch.arange(size))


class Digits(LightningDataModule):
    def __init__(self, folder: Path, batch_size: int = 4):
        super().__init__()
        self.save_hyperparameters()
        self.folder = folder
        self.position = 0

    def state_dict(self) -> dict[str, Any]:
        return {"position": self.position}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self.position = state_dict["position"]


def saved(data: LightningDataModule, path: Path) -> Path:
    torch.save({**hparams_for_checkpoint(data), type(data).__qualname__: data.state_dict()}, path)
    return path


def test_datamodule_without_hooks_has_no_name_no_trainer_and_no_state() -> None:
    data = LightningDataModule("anything", goes=True)

    assert data.name is None
    assert data.trainer is None
    assert data.state_dict() == {}
    with pytest.raises(MisconfigurationException, match="train_dataloader"):
        data.train_dataloader()


def test_dataclass_can_be_a_datamodule_without_calling_init() -> None:
    @dataclass
    class Data(LightningDataModule):
        size: int = 3

        def __post_init__(self) -> None:
            self.save_hyperparameters()

    assert Data(5).hparams == {"size": 5}
    assert Data().trainer is None


def test_init_goes_on_to_the_classes_behind_it() -> None:
    class Also:
        def __init__(self) -> None:
            self.was_called = True

    class Data(LightningDataModule, Also):
        pass

    assert Data().was_called


# -- from_datasets ----------------------------------------------------------------------------------------------------


def test_from_datasets_makes_the_loaders_that_it_has_datasets_for() -> None:
    data = LightningDataModule.from_datasets(dataset(10), test_dataset=dataset(4), batch_size=3, num_workers=2)

    train, test = data.train_dataloader(), data.test_dataloader()

    assert (train.batch_size, train.num_workers, len(train.dataset)) == (3, 2, 10)
    assert isinstance(train.sampler, RandomSampler)
    assert isinstance(test.sampler, SequentialSampler)
    for missing in (data.val_dataloader, data.predict_dataloader):
        with pytest.raises(MisconfigurationException):
            missing()


def test_from_datasets_keeps_lists_and_dicts() -> None:
    data = LightningDataModule.from_datasets({"a": dataset(3), "b": Stream()}, [dataset(1), dataset(2)])

    train, val = data.train_dataloader(), data.val_dataloader()

    assert set(train) == {"a", "b"}
    assert isinstance(train["a"].sampler, RandomSampler)
    assert [len(loader.dataset) for loader in val] == [1, 2]


def test_from_datasets_loads_iterable_datasets_in_their_order_without_warnings() -> None:
    data = LightningDataModule.from_datasets(Stream(), batch_size=3)

    assert [batch.tolist() for batch in data.train_dataloader()] == [[0, 1, 2]]


def test_from_datasets_gives_the_constructor_what_it_takes() -> None:
    class Data(LightningDataModule):
        def __init__(self, width: int, batch_size: int):
            super().__init__()
            self.save_hyperparameters()

    data = Data.from_datasets(dataset(3), batch_size=2, num_workers=0, width=5)

    assert data.hparams == {"width": 5, "batch_size": 2}


def test_from_datasets_can_be_pickled() -> None:
    data = pickle.loads(pickle.dumps(LightningDataModule.from_datasets(dataset(10), batch_size=5)))

    assert len(data.train_dataloader()) == 2


# -- str, pickle ------------------------------------------------------------------------------------------------------


def test_str_shows_the_size_of_each_loader() -> None:
    class Data(LightningDataModule):
        def val_dataloader(self):
            return [DataLoader(dataset(3)), {"a": DataLoader(Stream())}]

        def test_dataloader(self):
            return DataLoader(Stream())

        def predict_dataloader(self):
            raise RuntimeError("not set up")

    data = Data.from_datasets(dataset(64))
    assert str(data).splitlines() == [
        "{Train dataloader: size=64}",
        "{Validation dataloader: 1. size=3 ; 2. size=NA}",
        "{Test dataloader: size=NA}",
        "{Predict dataloader: None}",
    ]


def test_pickle_leaves_the_trainer_behind() -> None:
    data = Digits(Path("x"))
    data.trainer = lambda: "cannot be pickled"  # type: ignore[assignment]

    again = pickle.loads(pickle.dumps(data))

    assert again.trainer is None
    assert again.hparams == data.hparams
    assert data.trainer is not None


# -- load_from_checkpoint ---------------------------------------------------------------------------------------------


def test_load_from_checkpoint_makes_it_again_with_its_state(tmp_path) -> None:
    data = Digits(Path("here"), batch_size=8)
    data.position = 7

    again = Digits.load_from_checkpoint(saved(data, tmp_path / "x.ckpt"))

    assert type(again) is Digits
    assert again.hparams == {"folder": Path("here"), "batch_size": 8}
    assert again.position == 7


def test_load_from_checkpoint_takes_arguments_in_place_of_saved_ones(tmp_path) -> None:
    path = saved(Digits(Path("here")), tmp_path / "x.ckpt")

    assert Digits.load_from_checkpoint(path, batch_size=99).hparams.batch_size == 99


def test_load_from_checkpoint_on_an_instance_raises(tmp_path) -> None:
    with pytest.raises(TypeError, match=r"`Digits\.load_from_checkpoint` makes a new object"):
        Digits(tmp_path).load_from_checkpoint(tmp_path / "x.ckpt")


def test_checkpoint_holds_the_hyperparameters_under_the_datamodules_own_keys() -> None:
    assert hparams_for_checkpoint(Digits(Path("a"))) == {
        "datamodule_hyper_parameters": {"folder": "a", "batch_size": 4},
        "datamodule_hparams_name": "kwargs",
        "datamodule_hparams_kinds": {"folder": "path"},
    }
