"""A run that goes on from a checkpoint is the run that never stopped, bit for bit."""

from __future__ import annotations

import random
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.utils.data import (
    DataLoader,
    Dataset,
    IterableDataset,
    RandomSampler,
    Sampler,
    SubsetRandomSampler,
    WeightedRandomSampler,
)

from fulmen import Callback, LightningModule, Trainer, seed_everything
from fulmen.utilities.combined_loader import CombinedLoader

SAMPLES, BATCH = 14, 2


class Noisy(Dataset):
    """Numbers with noise from all three generators."""

    def __init__(self, samples: int = SAMPLES) -> None:
        self.samples = samples

    def __len__(self) -> int:
        return self.samples

    def __getitem__(self, index: int) -> tuple[int, Tensor]:
        noise = torch.rand(()) + random.random() + np.random.rand()
        return index, torch.full((4,), float(index)) * 0.1 + noise


class Model(LightningModule):
    """Dropout, and a list of what it was trained on."""

    def __init__(self) -> None:
        super().__init__()
        self.net = nn.Sequential(nn.Linear(4, 8), nn.Dropout(0.5), nn.BatchNorm1d(8), nn.Linear(8, 1))
        self.seen: list[Any] = []
        self.checked: list[Any] = []

    def loss(self, batch: Any) -> Tensor:
        return self.net(batch[1]).pow(2).mean()

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        batches = batch if isinstance(batch, list) and isinstance(batch[0], list) else [batch]
        self.seen.append([one[0].tolist() for one in batches if one is not None])
        losses = [self.loss(one) for one in batches if one is not None]
        return sum(losses[1:], losses[0])

    def validation_step(self, batch: Any, batch_idx: int) -> None:
        self.checked.append(batch[1].sum().item())
        self.log("val_loss", self.loss(batch))

    def configure_optimizers(self) -> Any:
        optimizer = torch.optim.Adam(self.parameters(), lr=0.01)
        per_step = torch.optim.lr_scheduler.StepLR(optimizer, 3, 0.9)
        plateau = torch.optim.lr_scheduler.ReduceLROnPlateau(optimizer, patience=0)
        return [optimizer], [
            {"scheduler": per_step, "interval": "step"},
            {"scheduler": plateau, "monitor": "val_loss", "interval": "step", "frequency": 4},
        ]


class SaveAt(Callback):
    """Writes a checkpoint at the end of the step that trained the batch of this number, and can stop the run there."""

    def __init__(self, path: Any, batch: int) -> None:
        self.path, self.batch = path, batch

    def on_train_batch_end(self, trainer: Trainer, *args: Any) -> None:
        if trainer.progress.total_batches == self.batch:
            trainer.boundary.defer(lambda: self.save(trainer))

    def save(self, trainer: Trainer) -> None:
        trainer.save_checkpoint(self.path)
        raise KeyboardInterrupt


def loader(**options: Any) -> DataLoader:
    return DataLoader(Noisy(), batch_size=BATCH, **{"shuffle": True, **options})


def run(
    train: Any, path: Any = None, stop_at: int | None = None, resume: Any = None, seed: int = 1, **flags: Any
) -> Model:
    seed_everything(seed, verbose=False)
    model = Model()
    trainer = Trainer(
        **{
            "max_epochs": 3,
            "accelerator": "cpu",
            "logger": False,
            "enable_checkpointing": False,
            "enable_progress_bar": False,
            "enable_model_summary": False,
            "callbacks": [SaveAt(path, stop_at)] if stop_at else [],
            "accumulate_grad_batches": 3,
            "val_check_interval": 2,
            **flags,
        }
    )
    validation = DataLoader(Noisy(4), batch_size=2)
    try:
        trainer.fit(model, train, validation, ckpt_path=resume)
    except SystemExit:
        assert stop_at
    model.optimizer_state = trainer.optimizers[0].state_dict()  # type: ignore[assignment]
    model.schedulers = [c.scheduler.state_dict() for c in trainer.lr_scheduler_configs]  # type: ignore[assignment]
    return model


def assert_same(resumed: Model, whole: Model) -> None:
    assert resumed.seen == whole.seen[len(whole.seen) - len(resumed.seen) :]
    assert resumed.checked == whole.checked[len(whole.checked) - len(resumed.checked) :]
    for name, value in whole.state_dict().items():
        assert torch.equal(resumed.state_dict()[name], value), name
    torch.testing.assert_close(resumed.optimizer_state, whole.optimizer_state, rtol=0, atol=0)
    assert str(resumed.schedulers) == str(whole.schedulers)


WORKERS = {
    "0": {},
    "2": {"num_workers": 2},
    "persistent": {"num_workers": 2, "persistent_workers": True},
}


@pytest.mark.parametrize("before", WORKERS)
@pytest.mark.parametrize("batch", [1, 3, 6, 7, 8, 13, 14, 20])
def test_run_that_stopped_after_any_batch_goes_on_exactly(tmp_path, before, batch):
    options = WORKERS[before]
    whole = run(loader(**options))

    run(loader(**options), tmp_path / "k.ckpt", stop_at=batch)
    resumed = run(loader(**options), resume=tmp_path / "k.ckpt", seed=2)

    assert len(resumed.seen) == 21 - batch
    assert_same(resumed, whole)


@pytest.mark.parametrize(("before", "after"), [("0", "2"), ("2", "0"), ("persistent", "0"), ("2", "persistent")])
@pytest.mark.parametrize("batch", [4, 7, 10])
def test_run_goes_on_exactly_with_another_number_of_workers(tmp_path, before, after, batch):
    whole = run(loader(**WORKERS[before]))

    run(loader(**WORKERS[before]), tmp_path / "k.ckpt", stop_at=batch)
    resumed = run(loader(**WORKERS[after]), resume=tmp_path / "k.ckpt", seed=2)

    assert_same(resumed, whole)


class OwnBatches(Sampler):
    """A user's batch sampler with random numbers of its own, from all over the place."""

    def __init__(self) -> None:
        self.numbers = np.random.default_rng(3)
        self.others = random.Random(4)

    def __iter__(self) -> Any:
        order = self.numbers.permutation(SAMPLES).tolist()
        self.others.shuffle(order)
        for start in range(0, SAMPLES, BATCH):
            yield order[start : start + BATCH]

    def __len__(self) -> int:
        return SAMPLES // BATCH


class Counting(Sampler):
    """A sampler that can say where it stands."""

    def __init__(self) -> None:
        self.epoch = 0

    def __iter__(self) -> Any:
        self.epoch += 1
        return iter(torch.randperm(SAMPLES, generator=torch.Generator().manual_seed(self.epoch)).tolist())

    def __len__(self) -> int:
        return SAMPLES

    def state_dict(self) -> dict[str, Any]:
        return {"epoch": self.epoch}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.epoch = state["epoch"]


class Stream(IterableDataset):
    """Read in its own order, with a buffer that shuffles."""

    def __iter__(self) -> Any:
        buffer: list[int] = []
        for index in range(SAMPLES):
            buffer.append(index)
            if len(buffer) == 4:
                yield self.item(buffer.pop(random.randrange(4)))
        for index in buffer:
            yield self.item(index)

    @staticmethod
    def item(index: int) -> tuple[int, Tensor]:
        return index, torch.full((4,), float(index)) + torch.rand(())


class Stateful(IterableDataset):
    """Read in its own order; says where it stands, and goes on from there."""

    def __init__(self) -> None:
        self.position = 0
        self.read = 0

    def __iter__(self) -> Any:
        while self.position < SAMPLES:
            self.position += 1
            self.read += 1
            yield Stream.item(self.position - 1)
        self.position = 0

    def state_dict(self) -> dict[str, Any]:
        return {"position": self.position}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.position = state["position"]


class Custom:
    """Any iterable."""

    def __iter__(self) -> Any:
        order = random.sample(range(SAMPLES), SAMPLES)
        for start in range(0, SAMPLES, BATCH):
            places = torch.tensor(order[start : start + BATCH])
            yield places, torch.rand(BATCH, 4) + places[:, None]


LOADERS = {
    "sequential": lambda: loader(shuffle=False),
    "generator": lambda: loader(generator=torch.Generator().manual_seed(7)),
    "replacement": lambda: loader(shuffle=False, sampler=RandomSampler(Noisy(), True, 14)),
    "weighted": lambda: loader(shuffle=False, sampler=WeightedRandomSampler([1.0 + i for i in range(14)], 14)),
    "subset": lambda: loader(shuffle=False, sampler=SubsetRandomSampler(range(14))),
    "batch sampler": lambda: DataLoader(Noisy(), batch_sampler=OwnBatches()),
    "sampler with state": lambda: loader(shuffle=False, sampler=Counting()),
    "no batching": lambda: DataLoader(Noisy(), sampler=OwnBatches(), batch_size=None, collate_fn=_of_many),
    "iterable data set": lambda: DataLoader(Stream(), batch_size=BATCH),
    "iterable data set, workers": lambda: DataLoader(Stream(), batch_size=2 * BATCH, num_workers=1),
    "iterable data set with state": lambda: DataLoader(Stateful(), batch_size=BATCH),
    "any iterable": Custom,
}


class Many(Noisy):
    def __getitem__(self, index: Any) -> Any:
        return [super(Many, self).__getitem__(one) for one in index]


def _of_many(items: Any) -> Any:
    return torch.utils.data.default_collate(items)


LOADERS["no batching"] = lambda: DataLoader(Many(), sampler=OwnBatches(), batch_size=None, collate_fn=_of_many)


@pytest.mark.filterwarnings("ignore:.*no length")
@pytest.mark.parametrize("batch", [2, 7, 9])
@pytest.mark.parametrize("kind", LOADERS)
def test_run_goes_on_exactly_with_every_kind_of_loader(tmp_path, kind, batch):
    whole = run(LOADERS[kind](), val_check_interval=None, check_val_every_n_epoch=1)

    run(LOADERS[kind](), tmp_path / "k.ckpt", batch, val_check_interval=None, check_val_every_n_epoch=1)
    resumed = run(LOADERS[kind](), resume=tmp_path / "k.ckpt", seed=2, val_check_interval=None)

    assert 0 < len(resumed.seen) == len(whole.seen) - batch
    assert_same(resumed, whole)


@pytest.mark.parametrize("mode", ["min_size", "max_size", "max_size_cycle"])
@pytest.mark.parametrize("batch", [2, 5, 7, 8])
def test_run_goes_on_exactly_with_several_loaders(tmp_path, mode, batch):
    def loaders() -> CombinedLoader:
        return CombinedLoader([loader(), DataLoader(Noisy(6), batch_size=2, shuffle=True)], mode)

    whole = run(loaders(), val_check_interval=1.0)

    run(loaders(), tmp_path / "k.ckpt", batch, val_check_interval=1.0)
    resumed = run(loaders(), resume=tmp_path / "k.ckpt", seed=2, val_check_interval=1.0)

    assert len(resumed.seen) == len(whole.seen) - batch
    assert_same(resumed, whole)
