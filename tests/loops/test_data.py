"""All kinds of data that a module can be trained on: the weights are those of the hand-written loop over it."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch.utils.data import BatchSampler, DataLoader, IterableDataset, RandomSampler, SequentialSampler

from fulmen import LightningDataModule
from fulmen.utilities.combined_loader import CombinedLoader

from .by_hand import Regressor, assert_same_weights, loader, sgd, train_by_hand


class Stream(IterableDataset):
    """Samples one after another, without a length."""

    def __init__(self, samples):
        self.samples = samples

    def __iter__(self):
        yield from zip(*self.samples.tensors)


class Forgetful:
    """Any iterable: no length, no loader."""

    def __init__(self, batches):
        self.batches = batches

    def __iter__(self):
        return iter(self.batches)


def stream():
    return DataLoader(Stream(loader(14).dataset), batch_size=4)


DATA = {
    "list_of_batches": lambda: list(loader(14)),
    "any_iterable": lambda: Forgetful(list(loader(14))),
    "iterable_dataset": stream,
    "generator_of_batches": lambda: loader(14),
    "batch_sampler": lambda: DataLoader(
        loader(14).dataset, batch_sampler=BatchSampler(SequentialSampler(range(14)), 3, drop_last=True)
    ),
    "no_batching": lambda: DataLoader(list(loader(14)), batch_size=None),
    "drop_last": lambda: loader(14, drop_last=True),
    "random_sampler": lambda: loader(14, sampler=RandomSampler(range(14), num_samples=9, replacement=True)),
}


@pytest.mark.parametrize("accumulate", [1, 2])
@pytest.mark.parametrize("name", DATA)
def test_weights_over_any_data_equal_the_hand_written_loop(trainer_of, name, accumulate):
    torch.manual_seed(1)
    module, twin = Regressor(), Regressor()
    twin.load_state_dict(module.state_dict())
    trainer = trainer_of(max_epochs=2, accumulate_grad_batches=accumulate)
    torch.manual_seed(4)
    trainer.fit(module, DATA[name]())

    class Known:  # the reference needs the length that the trainer must do without
        def __init__(self, batches):
            self.batches = batches

        def __iter__(self):
            return iter(self.batches)

        def __len__(self):
            return sum(1 for _ in loader(14)) if not hasattr(self.batches, "__len__") else len(self.batches)

    torch.manual_seed(4)
    batches = DATA[name]()
    if isinstance(batches, DataLoader) and isinstance(batches.dataset, IterableDataset):
        batches = list(batches)
    train_by_hand(twin, Known(batches), 2, sgd(twin), accumulate=accumulate)

    if accumulate == 2 and name in ("any_iterable", "iterable_dataset"):
        for one, other in zip(module.parameters(), twin.parameters(), strict=True):
            torch.testing.assert_close(one, other, rtol=1e-5, atol=1e-7)  # rescaled at the end of the window
    else:
        assert_same_weights(module, twin)
    assert trainer.is_last_batch


@pytest.mark.parametrize("limit", [1, 2, 3])
def test_weights_over_data_without_a_length_honour_a_limit(trainer_of, limit):
    torch.manual_seed(1)
    module, twin = Regressor(), Regressor()
    twin.load_state_dict(module.state_dict())
    trainer = trainer_of(max_epochs=2, limit_train_batches=limit)
    trainer.fit(module, stream())

    train_by_hand(twin, list(stream())[:limit], 2, sgd(twin))

    assert_same_weights(module, twin)
    assert trainer.global_step == 2 * limit


def test_data_without_a_length_is_not_drawn_beyond_its_limit(trainer_of):
    drawn = []

    class Counts(IterableDataset):
        def __iter__(self):
            for index in range(100):
                drawn.append(index)
                yield torch.ones(4) * index, torch.ones(1)

    trainer_of(max_epochs=1, limit_train_batches=3).fit(Regressor(), DataLoader(Counts(), batch_size=2))

    assert drawn == list(range(6))


class OfParts(Regressor):
    """Its batches are made of the batches of several loaders."""

    def training_step(self, batch, batch_idx):
        return self.loss_of_parts(batch)

    def loss_of_parts(self, parts):
        parts = parts.values() if isinstance(parts, dict) else parts
        return sum(F.mse_loss(self.net(x), y) for x, y in (part for part in parts if part is not None))


def parts_of(mode, loaders):
    """What several loaders give together, written out."""
    batches = [list(one) for one in loaders]
    lengths = [len(one) for one in batches]
    for index in range(min(lengths) if mode == "min_size" else max(lengths)):
        if mode == "max_size_cycle":
            yield [one[index % len(one)] for one in batches]
        else:
            yield [one[index] if index < len(one) else None for one in batches]


@pytest.mark.parametrize("mode", ["min_size", "max_size", "max_size_cycle"])
@pytest.mark.parametrize("form", ["dict", "list", "nest"])
def test_weights_over_a_combined_loader_equal_the_hand_written_loop(trainer_of, mode, form):
    loaders = [loader(20), loader(12), loader(9)]
    forms = {
        "dict": dict(zip("abc", loaders)),
        "list": loaders,
        "nest": [loaders[0], loaders[1], loaders[2]],
    }
    torch.manual_seed(1)
    module, twin = OfParts(), OfParts()
    twin.load_state_dict(module.state_dict())
    trainer = trainer_of(max_epochs=2)
    trainer.fit(module, CombinedLoader(forms[form], mode))

    train_by_hand(twin, list(parts_of(mode, loaders)), 2, sgd(twin), loss_of=twin.loss_of_parts)

    assert_same_weights(module, twin)
    assert trainer.num_training_batches == (3 if mode == "min_size" else 5)


@pytest.mark.parametrize("form", ["dict", "list"])
def test_weights_over_several_loaders_cycle_the_shorter_ones(trainer_of, form):
    loaders = [loader(20), loader(12)]
    torch.manual_seed(1)
    module, twin = OfParts(), OfParts()
    twin.load_state_dict(module.state_dict())
    trainer_of(max_epochs=2).fit(module, dict(zip("ab", loaders)) if form == "dict" else loaders)

    train_by_hand(twin, list(parts_of("max_size_cycle", loaders)), 2, sgd(twin), loss_of=twin.loss_of_parts)

    assert_same_weights(module, twin)


def test_combined_loader_in_sequence_is_refused_for_training(trainer_of):
    with pytest.raises(ValueError, match="sequential"):
        trainer_of(max_epochs=1).fit(OfParts(), CombinedLoader([loader(4), loader(4)], "sequential"))


@pytest.mark.parametrize("mode", ["min_size", "max_size", "max_size_cycle", "sequential"])
def test_validation_over_a_combined_loader_sees_its_batches(trainer_of, mode):
    seen = []

    class Looks(Regressor):
        def validation_step(self, batch, batch_idx, dataloader_idx=0):
            if mode == "sequential":
                seen.append((batch_idx, dataloader_idx, len(batch[0])))
            else:
                seen.append((batch_idx, dataloader_idx, tuple(None if p is None else len(p[0]) for p in batch)))

    trainer_of().validate(Looks(), CombinedLoader([loader(6), loader(10)], mode), verbose=False)

    assert (
        seen
        == {
            "min_size": [(0, 0, (4, 4)), (1, 0, (2, 4))],
            "max_size": [(0, 0, (4, 4)), (1, 0, (2, 4)), (2, 0, (None, 2))],
            "max_size_cycle": [(0, 0, (4, 4)), (1, 0, (2, 4)), (2, 0, (4, 2))],
            "sequential": [(0, 0, 4), (1, 0, 2), (0, 1, 4), (1, 1, 4), (2, 1, 2)],
        }[mode]
    )


def test_datamodule_gives_its_loaders(trainer_of):
    class Data(LightningDataModule):
        def train_dataloader(self):
            return loader(14)

    torch.manual_seed(1)
    module, twin = Regressor(), Regressor()
    twin.load_state_dict(module.state_dict())
    trainer_of(max_epochs=2).fit(module, datamodule=Data())
    train_by_hand(twin, loader(14), 2, sgd(twin))

    assert_same_weights(module, twin)


@pytest.mark.parametrize("workers", [0, 2])
def test_one_loader_for_training_and_validation_gives_both_all_batches(trainer_of, workers):
    sizes = {"train": [], "val": []}

    class Looks(Regressor):
        def training_step(self, batch, batch_idx):
            sizes["train"].append(len(batch[0]))
            return self.loss(batch)

        def validation_step(self, batch, batch_idx):
            sizes["val"].append(len(batch[0]))
            self.log("mean", batch[0].mean())

    one = loader(10, num_workers=workers)
    trainer = trainer_of(max_epochs=1, val_check_interval=2, num_sanity_val_steps=0)
    trainer.fit(Looks(), one, one)

    assert sizes == {"train": [4, 4, 2], "val": [4, 4, 2]}
    assert trainer.callback_metrics["mean"].item() == pytest.approx(one.dataset.tensors[0].mean().item(), rel=1e-5)


@pytest.mark.parametrize("persistent", [False, True])
def test_limited_batches_of_workers_begin_anew_in_each_epoch(trainer_of, persistent):
    seen = []

    class Looks(Regressor):
        def training_step(self, batch, batch_idx):
            seen.append(batch[0])
            self.log("x", 1.0, on_step=False, on_epoch=True, reduce_fx="mean")
            return self.loss(batch)

    workers = loader(20, num_workers=2, persistent_workers=persistent)
    trainer_of(max_epochs=2, limit_train_batches=2).fit(Looks(), workers)

    few = [x for x, _ in loader(20)][:2]
    assert len(seen) == 4
    assert all(torch.equal(one, other) for one, other in zip(seen, few * 2))


def test_users_loader_is_left_as_it_was(trainer_of):
    given = loader(14, shuffle=True)
    before = dict(given.__dict__)
    trainer_of(max_epochs=2).fit(Regressor(), given)

    after = dict(given.__dict__)
    assert {name: id(value) for name, value in after.items()} == {name: id(value) for name, value in before.items()}


def test_loader_that_ends_early_says_so(trainer_of):
    class Liar:
        def __len__(self):
            return 5

        def __iter__(self):
            return iter(list(loader(8)))

    trainer = trainer_of(max_epochs=1)
    with pytest.warns(UserWarning, match="said that it has 5 batches"):
        trainer.fit(Regressor(), Liar())

    assert trainer.global_step == 2


@pytest.mark.parametrize("by_hand", [False, True])
def test_batch_that_is_none_is_skipped_with_a_warning(trainer_of, by_hand):
    seen = []

    class Looks(Regressor):
        def __init__(self):
            super().__init__()
            self.automatic_optimization = not by_hand

        def training_step(self, batch, batch_idx):
            seen.append(batch_idx)
            return self.loss(batch)

    one, other = loader(8)
    with pytest.warns(UserWarning, match="None instead of a batch"):
        trainer_of(max_epochs=1).fit(Looks(), Forgetful([one, None, other]))

    assert seen == [0, 2]


def test_loader_without_batches_trains_nothing(trainer_of):
    trainer = trainer_of(max_epochs=2)
    with pytest.warns(UserWarning, match="has no batches"):
        trainer.fit(Regressor(), loader(4, sampler=[]))

    assert trainer.global_step == 0


def test_samplers_that_shuffle_by_epoch_are_told_the_epoch(trainer_of):
    told = []

    class ByEpoch(SequentialSampler):
        def set_epoch(self, epoch):
            told.append(epoch)

    trainer_of(max_epochs=3).fit(Regressor(), loader(8, sampler=ByEpoch(range(8))))

    assert told == [0, 1, 2]


@pytest.mark.filterwarnings("ignore:.*shuffling of the")
def test_overfitting_with_persistent_workers_is_in_order_and_leaves_the_shuffling(trainer_of):
    firsts = []

    class Looks(Regressor):
        def training_step(self, batch, batch_idx):
            firsts.append(self.trainer.data.batch_indices)
            return super().training_step(batch, batch_idx)

    shuffled = loader(20, shuffle=True, num_workers=1, persistent_workers=True)
    list(shuffled)  # its workers are running
    trainer_of(max_epochs=2, overfit_batches=2).fit(Looks(), shuffled)

    assert firsts == [[0, 1, 2, 3], [4, 5, 6, 7]] * 2

    firsts.clear()
    trainer_of(max_epochs=1).fit(Looks(), shuffled)
    assert sorted(index for indices in firsts for index in indices) == list(range(20))
    assert firsts[0] != [0, 1, 2, 3]
