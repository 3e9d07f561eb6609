"""Loaders of every kind go on where they stood: those with a state, those that workers read, those read only once."""

from __future__ import annotations

import itertools
import multiprocessing
import random
from typing import Any

import numpy as np
import pytest
import torch
from resuming import BATCH, SAMPLES, Model, Noisy, assert_same, loader, run
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, DistributedSampler, IterableDataset, RandomSampler, Sampler, Subset
from torchdata.stateful_dataloader import StatefulDataLoader
from torchdata.stateful_dataloader.sampler import StatefulDistributedSampler

from fulmen import Callback, LightningDataModule, Trainer, seed_everything
from fulmen.utilities.combined_loader import CombinedLoader


def item(index: int) -> tuple[int, Tensor]:
    return index, torch.full((4,), float(index)) + torch.rand(())


class Positioned(IterableDataset):
    """Says where it stands, and goes on from there; each worker reads its share."""

    def __init__(self) -> None:
        self.position = 0

    def __iter__(self) -> Any:
        worker = torch.utils.data.get_worker_info()
        number, workers = (worker.id, worker.num_workers) if worker else (0, 1)
        while self.position * workers + number < SAMPLES:
            self.position += 1  # before it is given, as it is done with then
            yield item((self.position - 1) * workers + number)
        self.position = 0

    def state_dict(self) -> dict[str, Any]:
        return {"position": self.position}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.position = state["position"]


class Shuffled(IterableDataset):
    """Shuffles in a buffer, with a generator of its own that goes on from epoch to epoch."""

    def __init__(self, generator: Any) -> None:
        self.parts = {"rng": generator}

    def __iter__(self) -> Any:
        buffer: list[int] = []
        worker = torch.utils.data.get_worker_info()
        for index in range(*((worker.id, SAMPLES, worker.num_workers) if worker else (SAMPLES,))):
            buffer.append(index)
            if len(buffer) == 4:
                yield item(buffer.pop(int(self.parts["rng"].random() * 4)))
        yield from map(item, buffer)


class Rarely(IterableDataset):
    """Draws its order only after the first batches."""

    def __iter__(self) -> Any:
        yield from ((index, torch.full((4,), float(index))) for index in range(4))
        yield from map(item, random.sample(range(4, SAMPLES), SAMPLES - 4))


class WithOwnState(Noisy):
    """A data set of places that has a state all the same."""

    def __init__(self) -> None:
        super().__init__()
        self.read = 0

    def __getitem__(self, index: int) -> tuple[int, Tensor]:
        self.read += 1
        place, value = super().__getitem__(index)
        return place, value + self.read

    def state_dict(self) -> dict[str, Any]:
        return {"read": self.read}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.read = state["read"]


class AllAtOnce(Noisy):
    """Reads a whole batch, without going through its places."""

    def __getitems__(self, places: Any) -> Any:
        return list(zip(places, torch.tensor(np.array(places)).view(-1, 1) * 0.1 + torch.rand(len(places), 4)))


class Epochs(Sampler):
    """A batch sampler that is told the epoch."""

    def __init__(self) -> None:
        self.epoch = 0

    def set_epoch(self, epoch: int) -> None:
        self.epoch = epoch

    def __iter__(self) -> Any:
        order = np.random.default_rng(self.epoch).permutation(SAMPLES).tolist()
        return iter([order[start : start + BATCH] for start in range(0, SAMPLES, BATCH)])

    def __len__(self) -> int:
        return SAMPLES // BATCH


class Again(Sampler):
    """The same batches over and over."""

    def __init__(self, sampler: Any) -> None:
        self.sampler = sampler

    def __iter__(self) -> Any:
        while True:
            yield from self.sampler


class Early(DataLoader):
    """Begins one pass for all epochs when it is made."""

    def __init__(self, dataset: Any, **options: Any) -> None:
        own = DataLoader(dataset, **options)
        super().__init__(dataset, batch_sampler=Again(own.batch_sampler))
        self.pass_of_all_epochs = super().__iter__()

    def __iter__(self) -> Any:
        return (next(self.pass_of_all_epochs) for _ in range(len(self)))

    def __len__(self) -> int:
        return SAMPLES // BATCH


class Numbers(Dataset):
    def __len__(self) -> int:
        return SAMPLES

    def __getitem__(self, index: int) -> tuple[int, Tensor]:
        return index, torch.full((4,), index / 10)


class Places(DataLoader):
    """A loader of the user's own that has a state: which batches come next."""

    def __init__(self) -> None:
        super().__init__(Numbers(), batch_size=BATCH)
        self.next = 0

    def __iter__(self) -> Any:
        batches = list(super().__iter__())
        while self.next < len(batches):
            self.next += 1
            yield batches[self.next - 1]
        self.next = 0

    def state_dict(self) -> dict[str, Any]:
        return {"next": np.int64(self.next), "order": np.arange(3)}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        assert isinstance(state["order"], np.ndarray)
        self.next = state["next"]


def endless() -> Any:
    for number in itertools.count():
        place = torch.tensor([number % 97, random.randrange(97)])
        yield place, torch.rand(2, 4) + place[:, None]


def set_init(worker_id: int) -> None:
    np.random.seed(worker_id)


def stateful(dataset: Any, **options: Any) -> Any:
    return StatefulDataLoader(dataset, batch_size=BATCH, drop_last=True, **options)


TWO = {"num_workers": 2}
PERSISTENT = {"num_workers": 2, "persistent_workers": True}
LOADERS = {
    "torchdata": lambda: stateful(Noisy(), shuffle=True),
    "torchdata, workers": lambda: stateful(Noisy(), shuffle=True, **TWO),
    "torchdata, persistent workers": lambda: stateful(Noisy(), shuffle=True, **PERSISTENT),
    "torchdata, generator": lambda: stateful(Noisy(), shuffle=True, generator=torch.Generator().manual_seed(4)),
    "torchdata, stateful data set": lambda: stateful(WithOwnState(), shuffle=True),
    "torchdata, stateful data set, worker": lambda: stateful(WithOwnState(), shuffle=True, num_workers=1),
    "torchdata, iterable": lambda: stateful(Positioned()),
    "torchdata, iterable, workers": lambda: stateful(Positioned(), **TWO),
    "torchdata, iterable, few snapshots": lambda: stateful(Positioned(), snapshot_every_n_steps=3, **TWO),
    "torchdata, iterable without state": lambda: stateful(Shuffled(random.Random(3))),
    "torchdata, iterable without state, workers": lambda: stateful(Shuffled(random.Random(3)), **TWO),
    "torchdata, sampler": lambda: stateful(
        Noisy(), sampler=StatefulDistributedSampler(Noisy(), num_replicas=1, rank=0)
    ),
    "distributed sampler": lambda: loader(shuffle=False, sampler=DistributedSampler(Noisy(), 1, 0)),
    "batch sampler with epochs": lambda: DataLoader(Noisy(), batch_sampler=Epochs()),
    "iterable with a generator of random": lambda: DataLoader(Shuffled(random.Random(3)), batch_size=BATCH),
    "iterable with a generator of numpy": lambda: DataLoader(Shuffled(np.random.default_rng(3)), batch_size=BATCH),
    "iterable, workers": lambda: DataLoader(Shuffled(random.Random(3)), batch_size=BATCH, drop_last=True, **TWO),
    "iterable with state, workers": lambda: DataLoader(Positioned(), batch_size=BATCH, drop_last=True, **TWO),
    "iterable that draws late": lambda: DataLoader(Rarely(), batch_size=BATCH),
    "batches at once": lambda: DataLoader(AllAtOnce(), batch_size=BATCH, shuffle=True),
    "batches at once, workers": lambda: DataLoader(AllAtOnce(), batch_size=BATCH, shuffle=True, **TWO),
    "one pass for all epochs": lambda: Early(Numbers(), batch_size=BATCH),
    "own state": Places,
    "list": lambda: [(torch.tensor([n, n]), torch.full((2, 4), n / 10)) for n in range(7)],
    "prefetch": lambda: loader(prefetch_factor=4, worker_init_fn=set_init, num_workers=1),
    "out of order, one worker": lambda: loader(in_order=False, num_workers=1),
    "sub-set": lambda: DataLoader(Subset(Noisy(), range(SAMPLES)), batch_size=BATCH, shuffle=True),
}
#: in which third of the run, and how many batches from its beginning
PLACES = {"in an epoch": (0, 2), "at its end": (1, 0), "after it": (1, 0), "in the next one": (1, 2)}


def assert_goes_on_exactly(make: Any, path: Any, place: str, **flags: Any) -> tuple[Model, Model]:
    flags = {"val_check_interval": None, "check_val_every_n_epoch": 1, "num_sanity_val_steps": 0, **flags}
    whole = run(make, **flags)
    epoch, batches = PLACES[place]
    batch = epoch * len(whole.seen) // 3 + batches
    run(make, path, batch, after_epoch=place == "after it", **flags)
    resumed = run(make, resume=path, seed=2, **flags)
    assert 0 < len(resumed.seen) == len(whole.seen) - batch
    assert_same(resumed, whole)
    return resumed, whole


@pytest.mark.filterwarnings("ignore:.*no length", "ignore:'set_vital' is deprecated")
@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize("kind", LOADERS)
def test_run_goes_on_exactly_with_every_kind_of_loader(tmp_path, kind, place):
    assert_goes_on_exactly(LOADERS[kind], tmp_path / "k.ckpt", place)


class Asked(LightningDataModule):
    """Chooses the samples when it is asked for a loader, by the epoch and by chance; keeps count of it."""

    def __init__(self) -> None:
        super().__init__()
        self.asked: list[int] = []
        self.chosen: list[list[int]] = []
        self.saved: list[str] = []

    def train_dataloader(self) -> Any:
        self.asked.append(self.trainer.current_epoch)
        self.chosen.append(sorted(random.sample(range(SAMPLES), 10)))
        return DataLoader(Subset(Noisy(), self.chosen[-1]), batch_size=BATCH, shuffle=True)

    def val_dataloader(self) -> Any:
        generator = torch.Generator().manual_seed(8)
        return DataLoader(Noisy(4), batch_size=2, sampler=RandomSampler(Noisy(4), generator=generator))

    def state_dict(self) -> dict[str, Any]:
        return {"chosen": self.chosen}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.saved = state["chosen"]


@pytest.mark.filterwarnings("ignore:.*shuffles, which")
@pytest.mark.parametrize("batch", [4, 5, 7, 10, 12, 16])
def test_loaders_that_are_asked_for_anew_are_asked_in_the_same_epochs_and_give_the_same_samples(tmp_path, batch):
    flags = {"max_epochs": 5, "reload_dataloaders_every_n_epochs": 2, "val_check_interval": None}
    flags |= {"check_val_every_n_epoch": 1}
    whole_data, resumed_data = Asked(), Asked()
    whole = run(None, datamodule=whole_data, **flags)
    run(None, tmp_path / "k.ckpt", batch, datamodule=Asked(), **flags)
    resumed = run(None, resume=tmp_path / "k.ckpt", seed=2, datamodule=resumed_data, **flags)

    assert_same(resumed, whole)
    assert whole_data.asked == [0, 2, 4]
    assert resumed_data.asked == whole_data.asked[-len(resumed_data.asked) :]
    assert resumed_data.chosen == whole_data.chosen[-len(resumed_data.chosen) :]
    assert resumed_data.saved == whole_data.chosen[: len(resumed_data.saved)]


def test_batch_sampler_is_told_the_epoch():
    model = run(DataLoader(Noisy(), batch_sampler=Epochs()))
    epochs = [np.ravel(model.seen[start : start + 7]).tolist() for start in (0, 7, 14)]
    assert epochs == [np.random.default_rng(epoch).permutation(SAMPLES).tolist() for epoch in range(3)]


NESTS = {
    "dict of lists": lambda: {
        "a": [loader(), DataLoader(Noisy(6), batch_size=2, shuffle=True)],
        "b": DataLoader(Positioned(), batch_size=BATCH),
    },
    "one generator": lambda: (
        lambda one: [DataLoader(Noisy(6), batch_size=2, shuffle=True, generator=one), loader(generator=one)]
    )(torch.Generator().manual_seed(5)),
    "states": lambda: [DataLoader(Positioned(), batch_size=BATCH), stateful(Noisy(), shuffle=True)],
    "replays": lambda: CombinedLoader(
        [DataLoader(Shuffled(random.Random(1)), batch_size=BATCH), DataLoader(Noisy(4), batch_size=2, shuffle=True)],
        "max_size_cycle",
    ),
}


@pytest.mark.filterwarnings("ignore:.*no length", "ignore:'set_vital' is deprecated")
@pytest.mark.parametrize("batch", [2, 4, 7, 9])
@pytest.mark.parametrize("nest", NESTS)
def test_run_goes_on_exactly_with_a_nest_of_loaders(tmp_path, nest, batch):
    flags = {"val_check_interval": None, "check_val_every_n_epoch": 1}
    whole = run(NESTS[nest], **flags)
    run(NESTS[nest], tmp_path / "k.ckpt", batch, **flags)
    resumed = run(NESTS[nest], resume=tmp_path / "k.ckpt", seed=2, **flags)

    assert len(resumed.seen) == len(whole.seen) - batch > 0
    assert_same(resumed, whole)


LIMITED = {
    "plain": loader,
    "workers": lambda: loader(num_workers=1, persistent_workers=True),
    "iterable": lambda: DataLoader(Shuffled(random.Random(3)), batch_size=BATCH),
    "with state": lambda: DataLoader(Positioned(), batch_size=BATCH),
    "torchdata": lambda: stateful(Noisy(), shuffle=True),
    "torchdata, iterable": lambda: stateful(Positioned()),
    "torchdata, sampler": lambda: stateful(
        Noisy(), sampler=StatefulDistributedSampler(Noisy(), num_replicas=1, rank=0)
    ),
    "endless generator": endless,
    "several": lambda: [loader(), DataLoader(Positioned(), batch_size=BATCH)],
}


@pytest.mark.filterwarnings("ignore:.*no length", "ignore:'set_vital' is deprecated")
@pytest.mark.parametrize("batch", [2, 4, 6])
@pytest.mark.parametrize("kind", LIMITED)
def test_run_of_limited_epochs_goes_on_exactly(tmp_path, kind, batch):
    flags = {"limit_train_batches": 4, "val_check_interval": None, "check_val_every_n_epoch": 1}
    flags |= {"num_sanity_val_steps": 0}
    whole = run(LIMITED[kind], **flags)
    run(LIMITED[kind], tmp_path / "k.ckpt", batch, **flags)
    resumed = run(LIMITED[kind], resume=tmp_path / "k.ckpt", seed=2, **flags)

    assert len(resumed.seen) == len(whole.seen) - batch > 0
    assert_same(resumed, whole)


@pytest.mark.filterwarnings("ignore:.*overfit_batches", "ignore:'set_vital' is deprecated")
@pytest.mark.parametrize("kind", ["plain", "workers", "torchdata"])
def test_run_on_the_same_batches_every_time_goes_on_exactly(tmp_path, kind):
    flags = {"overfit_batches": 3, "val_check_interval": None, "check_val_every_n_epoch": 1}
    whole = run(LIMITED[kind], **flags)
    run(LIMITED[kind], tmp_path / "k.ckpt", 5, **flags)
    resumed = run(LIMITED[kind], resume=tmp_path / "k.ckpt", seed=2, **flags)

    assert whole.seen[0] == [[0, 1]]
    assert len(resumed.seen) == 4
    assert_same(resumed, whole)


# -- what cannot go on exactly -----------------------------------------------------------------------------------------


class Counts(IterableDataset):
    """Shuffles by the epoch, which it counts itself."""

    def __init__(self) -> None:
        self.epoch = 0

    def __iter__(self) -> Any:
        self.epoch += 1
        yield from map(item, np.random.default_rng(self.epoch).permutation(SAMPLES).tolist())


class Stream(Sampler):
    """Keeps a generator from epoch to epoch."""

    def __init__(self) -> None:
        self.places = (number % SAMPLES for number in itertools.count())

    def __iter__(self) -> Any:
        return itertools.islice(self.places, SAMPLES)

    def __len__(self) -> int:
        return SAMPLES


class Augmented(Noisy):
    def __init__(self) -> None:
        super().__init__()
        self.transforms = [random.Random(1)]


class ShuffledOnce:
    """Batches in an order that is drawn when this is made, for all epochs."""

    def __init__(self) -> None:
        self.order = list(range(SAMPLES))
        random.shuffle(self.order)

    def __iter__(self) -> Any:
        return iter(DataLoader(Noisy(), batch_size=BATCH, sampler=self.order))

    def __len__(self) -> int:
        return SAMPLES // BATCH


class StreamShuffledOnce(IterableDataset):
    def __init__(self) -> None:
        self.order = np.random.permutation(SAMPLES).tolist()

    def __iter__(self) -> Any:
        return map(item, self.order)


class SamplerShuffledOnce(Sampler):
    def __init__(self) -> None:
        self.order = torch.randperm(SAMPLES).tolist()

    def __iter__(self) -> Any:
        return iter(self.order)

    def __len__(self) -> int:
        return SAMPLES


class IteratorShuffledOnce:
    """One pass for the whole run."""

    def __init__(self) -> None:
        self.order = [random.randrange(SAMPLES) for _ in range(100)]

    def __iter__(self) -> Any:
        return self

    def __next__(self) -> Any:
        return torch.tensor([self.order.pop()]), torch.ones(1, 4)


INEXACT = {
    "shuffled when made": (ShuffledOnce, "draws from `random.shuffle` when it is made.*Write `seed_everything"),
    "stream shuffled when made": (lambda: DataLoader(StreamShuffledOnce(), BATCH), "`np.random.permutation`"),
    "sampler shuffled when made": (
        lambda: DataLoader(Noisy(), BATCH, sampler=SamplerShuffledOnce()),
        "`torch.randperm`",
    ),
    "iterator shuffled when made": (IteratorShuffledOnce, "`random.randrange`"),
    "out of order": (lambda: loader(num_workers=2, in_order=False), "`in_order=False`"),
    "counter": (lambda: DataLoader(Counts(), batch_size=BATCH), "counts in `self.epoch`"),
    "generator": (lambda: DataLoader(Noisy(), batch_size=BATCH, sampler=Stream()), "keeps a generator, `places`"),
    "copies": (lambda: DataLoader(Augmented(), batch_size=BATCH, num_workers=1), "`transforms\\[0\\]`"),
}


class EndsAtOnce(Callback):
    def on_train_start(self, trainer: Trainer, module: Any) -> None:
        trainer.should_stop = True


def begin(trainer_of: Any, train: Any, **flags: Any) -> None:
    """Fit until training would start."""
    module = Model()
    trainer_of(max_epochs=1, callbacks=EndsAtOnce(), **flags).fit(module, train, DataLoader(Noisy(4), batch_size=2))
    assert not module.seen


@pytest.mark.parametrize("kind", INEXACT)
def test_loader_that_cannot_go_on_exactly_is_told_before_training_starts(trainer_of, kind, monkeypatch):
    monkeypatch.delenv("PL_GLOBAL_SEED", raising=False)  # of another test in this process
    make, reason = INEXACT[kind]
    with pytest.warns(UserWarning, match=f"cannot be resumed exactly: .*{reason}") as caught:
        begin(trainer_of, make(), enable_checkpointing=True)
    assert len(caught) == 1


@pytest.mark.parametrize("kind", INEXACT)
def test_loader_is_not_complained_about_where_nothing_is_saved(trainer_of, kind):
    begin(trainer_of, INEXACT[kind][0]())


@pytest.mark.filterwarnings("ignore:'set_vital' is deprecated")
@pytest.mark.parametrize("kind", LOADERS)
def test_loader_that_goes_on_exactly_is_not_complained_about(trainer_of, kind):
    begin(trainer_of, LOADERS[kind](), enable_checkpointing=True)


@pytest.mark.parametrize("make", [ShuffledOnce, StreamShuffledOnce, IteratorShuffledOnce, SamplerShuffledOnce])
def test_loader_that_is_shuffled_when_it_is_made_by_a_program_with_a_seed_is_not_complained_about(trainer_of, make):
    seed_everything(3, verbose=False)
    made = make()
    wrapped = DataLoader(Noisy(), BATCH, sampler=made) if isinstance(made, Sampler) else made
    begin(trainer_of, wrapped if make is not StreamShuffledOnce else DataLoader(made, BATCH), enable_checkpointing=True)


def test_sampler_that_draws_from_a_generator_that_it_makes_is_not_complained_about(trainer_of):
    class Own(Sampler):
        def __init__(self) -> None:
            self.order = torch.randperm(SAMPLES, generator=torch.Generator().manual_seed(2)).tolist()

        def __iter__(self) -> Any:
            return iter(self.order)

        def __len__(self) -> int:
            return SAMPLES

    begin(trainer_of, DataLoader(Noisy(), BATCH, sampler=Own()), enable_checkpointing=True)


@pytest.mark.filterwarnings("ignore:.*no length")
def test_another_number_of_workers_for_an_iterable_data_set_is_told(tmp_path):
    def make(workers: int) -> Any:
        return DataLoader(Positioned(), batch_size=BATCH, num_workers=workers, drop_last=True)

    flags = {"val_check_interval": None, "check_val_every_n_epoch": 1, "max_epochs": 2}
    run(make(2), tmp_path / "k.ckpt", 3, **flags)
    with pytest.warns(UserWarning, match="had 2 workers when .* and has 1 now: .* Write `num_workers=2`"):
        run(make(1), resume=tmp_path / "k.ckpt", **flags)


def test_batches_that_must_be_read_again_are_counted_in_sight(tmp_path, caplog, monkeypatch):
    monkeypatch.setattr("fulmen.trainer.sources._SECONDS_BETWEEN_COUNTS", 0.0)
    flags = {"val_check_interval": None, "check_val_every_n_epoch": 1, "max_epochs": 2}
    run(lambda: DataLoader(Rarely(), batch_size=BATCH), tmp_path / "k.ckpt", 3, **flags)
    with caplog.at_level("INFO"):
        run(lambda: DataLoader(Rarely(), batch_size=BATCH), resume=tmp_path / "k.ckpt", **flags)
    said = [record.getMessage() for record in caplog.records if "again" in record.getMessage()]
    assert said[0] == "a DataLoader from `train_dataloader` cannot be opened in the middle: reading 3 batches again ..."
    assert said[1].startswith("... 1 of 3 read again, ")
    assert len(said) == 4


class Ten(Dataset):
    """Ten million places, and a list of those that were read."""

    def __init__(self) -> None:
        self.read: list[int] = []

    def __len__(self) -> int:
        return 10**7

    def __getitem__(self, place: int) -> tuple[int, Tensor]:
        self.read.append(place)
        return place, torch.full((4,), place / 10**7)


def test_middle_of_a_large_data_set_is_found_without_reading(tmp_path):
    def fit(stop_at: int | None = None, **arguments: Any) -> tuple[Ten, Model]:
        data = Ten()
        train = DataLoader(data, batch_size=1000, shuffle=True)
        flags = {"val_check_interval": 1.0, "num_sanity_val_steps": 0, "accumulate_grad_batches": 1}
        return data, run(train, stop_at=stop_at, max_steps=2, **flags, **arguments)

    fit(1, path=tmp_path / "k.ckpt")
    checkpoint = torch.load(tmp_path / "k.ckpt", weights_only=True)
    (mark,) = checkpoint["resume"]["data"]["train"]
    mark["position"] = checkpoint["loops"]["progress"]["batches_done"] = 5000  # as after hours
    torch.save(checkpoint, tmp_path / "k.ckpt")
    data, model = fit(resume=tmp_path / "k.ckpt", seed=2)

    torch.set_rng_state(mark["began_with"]["random"]["torch"])
    torch.empty((), dtype=torch.int64).random_()  # the loader's own, for its workers
    order = list(itertools.islice(RandomSampler(data), 5_000_000, 5_001_000))
    assert data.read == order
    assert model.seen == [[order]]


# -- the random numbers of data sets -----------------------------------------------------------------------------------


def noise_of(train: Any, **flags: Any) -> list[float]:
    """The data that a model sees in three epochs, without its places."""

    class Listens(Model):
        def training_step(self, batch: Any, batch_idx: int) -> Tensor:
            noise.extend((batch[1][:, 0] - batch[0] * 0.1).tolist())
            return super().training_step(batch, batch_idx)

    noise: list[float] = []
    run(train, model=Listens, **flags)
    return noise


@pytest.mark.parametrize("workers", [0, 1])
def test_random_numbers_of_a_data_set_depend_on_the_seed_and_repeat_with_it(workers):
    def make() -> Any:
        return loader(num_workers=workers)

    one, again, other = (noise_of(make, seed=seed) for seed in (1, 1, 2))
    assert one == again
    assert len({round(value, 5) for value in one + other}) == 2 * len(one)


def test_random_numbers_of_a_data_set_are_those_of_any_number_of_workers():
    def make(dataset: Any, workers: int) -> Any:
        return lambda: DataLoader(dataset, batch_size=BATCH, shuffle=True, num_workers=workers)

    for dataset in (Noisy(), AllAtOnce()):
        assert noise_of(make(dataset, 0)) == noise_of(make(dataset, 2))


class InitFunction:
    def __init__(self, path: Any) -> None:
        self.path = path

    def __call__(self, worker_id: int) -> None:
        info = torch.utils.data.get_worker_info()
        assert info is not None
        assert info.seed == torch.initial_seed()  # torch has seeded the worker, and nobody else yet
        with open(self.path, "a") as file:
            file.write(f"{worker_id} of {info.num_workers} {type(info.dataset).__name__}\n")


def test_workers_begin_with_the_users_function_and_read_plain_places(tmp_path):
    class Plain(Noisy):
        def __getitems__(self, places: Any) -> Any:
            assert type(places) is list
            assert {type(place) for place in places} == {int}
            return [self[place] for place in places]

    run(
        DataLoader(Plain(), batch_size=BATCH, num_workers=2, worker_init_fn=InitFunction(tmp_path / "init")),
        max_epochs=1,
    )
    assert sorted((tmp_path / "init").read_text().splitlines()) == ["0 of 2 Plain", "1 of 2 Plain"]


@pytest.mark.parametrize("persistent", [False, True])
def test_workers_end_with_a_run_that_ends_in_an_exception(persistent):
    train = loader(num_workers=2, persistent_workers=persistent)

    class Fails(Model):
        def training_step(self, batch: Any, batch_idx: int) -> Tensor:
            if batch_idx == 2:
                raise ZeroDivisionError
            return super().training_step(batch, batch_idx)

    with pytest.raises(ZeroDivisionError) as caught:
        run(train, model=Fails)
    assert caught.traceback  # which knows the frames of the loop
    assert not [child for child in multiprocessing.active_children() if child.is_alive()]
