from __future__ import annotations

import pytest
import torch
from torch.utils.data import DataLoader

from fulmen.demos import boring_classes as boring

BATCH = torch.ones(2, 32)


@pytest.mark.parametrize(
    ("dataset", "length"),
    [
        (boring.RandomDataset(3, 5), 5),
        (boring.RandomDictDataset(3, 5), 5),
        (boring.RandomIterableDataset(3, 5), None),
        (boring.RandomIterableDatasetWithLen(3, 5), 5),
    ],
)
def test_dataset_gives_its_vectors_and_tells_its_length_or_not(dataset, length):
    batches = list(DataLoader(dataset))
    assert len(batches) == 5
    first = batches[0]["a"] if isinstance(batches[0], dict) else batches[0]
    assert first.shape == (1, 3)
    if length is None:
        with pytest.raises(TypeError):
            len(dataset)
    else:
        assert len(dataset) == length


def test_items_of_the_dict_dataset_differ_by_two():
    item = boring.RandomDictDataset(3, 5)[0]
    assert torch.equal(item["b"], item["a"] + 2)


def test_boring_model_returns_its_loss_under_the_name_of_the_stage():
    model = boring.BoringModel()
    loss = torch.nn.functional.mse_loss(model(BATCH), torch.ones(2, 2))
    assert torch.equal(model.training_step(BATCH, 0)["loss"], loss)
    assert torch.equal(model.validation_step(BATCH, 0)["x"], loss)
    assert torch.equal(model.test_step(BATCH, 0)["y"], loss)
    assert torch.equal(model.loss(model(BATCH), model(BATCH)), torch.tensor(0.0))


def test_boring_model_has_sgd_with_a_scheduler_and_four_loaders():
    model = boring.BoringModel()
    [optimizer], [scheduler] = model.configure_optimizers()
    assert type(optimizer) is torch.optim.SGD
    assert optimizer.param_groups[0]["lr"] == 0.1
    assert scheduler.step_size == 1
    for loader in (model.train_dataloader, model.val_dataloader, model.test_dataloader, model.predict_dataloader):
        assert len(loader()) == 64
        assert next(iter(loader())).shape == (1, 32)


def test_manual_model_optimizes_by_itself():
    assert boring.BoringModel().automatic_optimization
    assert not boring.ManualOptimBoringModel().automatic_optimization


def test_demo_model_takes_hyperparameters():
    model = boring.DemoModel(out_dim=3, learning_rate=0.5)
    assert model(BATCH).shape == (2, 3)
    assert model.training_step(BATCH, 0).shape == ()
    optimizer = model.configure_optimizers()
    assert type(optimizer) is torch.optim.Adam
    assert optimizer.param_groups[0]["lr"] == 0.5


def test_net_gives_log_probabilities_of_ten_digits():
    output = boring.Net()(torch.rand(2, 1, 28, 28))
    assert torch.allclose(output.exp().sum(dim=1), torch.ones(2))
    assert output.shape == (2, 10)


STAGES = [("fit", "train"), ("fit", "val"), ("validate", "val"), ("test", "test"), ("predict", "predict")]


@pytest.mark.parametrize(("stage", "loader"), STAGES)
def test_datamodule_has_the_loaders_of_the_stage(stage, loader):
    datamodule = boring.BoringDataModule()
    datamodule.setup(stage)
    assert len(getattr(datamodule, f"{loader}_dataloader")()) == 64


def test_parts_of_the_datamodule_do_not_overlap():
    datamodule = boring.BoringDataModule()
    for stage in ("fit", "test", "predict"):
        datamodule.setup(stage)
    loaders = [getattr(datamodule, f"{name}_dataloader")() for name in ("train", "val", "test", "predict")]
    assert torch.equal(torch.cat([torch.cat(list(loader)) for loader in loaders]), datamodule.random_full.data)


@pytest.mark.parametrize(("stage", "loader"), STAGES)
def test_datamodule_without_length_gives_as_many_as_it_says(stage, loader):
    datamodule = boring.BoringDataModuleNoLen()
    datamodule.setup(stage)
    count = {"train": 512, "val": 128, "test": 256, "predict": 64}[loader]
    assert len(list(getattr(datamodule, f"{loader}_dataloader")())) == count


@pytest.mark.parametrize(("stage", "loader"), STAGES)
def test_iterable_datamodule_has_a_sized_and_an_unsized_loader(stage, loader):
    datamodule = boring.IterableBoringDataModule()
    datamodule.setup(stage)
    sized, unsized = getattr(datamodule, f"{loader}_dataloader")()
    count = {"train": 16, "val": 32, "test": 64, "predict": 128}[loader]
    assert len(sized) == len(list(sized)) == len(list(unsized)) == count
    with pytest.raises(TypeError):
        len(unsized)
