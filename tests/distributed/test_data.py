"""The data on several processes: one stream of batches, of which each takes its own."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from tests.distributed.evaluating import trainer_of
from tests.distributed.processes import run
from tests.distributed.simulated import Job, Simulated
from torch.utils.data import BatchSampler, DataLoader, Dataset, DistributedSampler, IterableDataset, Sampler, Subset
from torch.utils.data import get_worker_info as worker_info

from fulmen import LightningModule, seed_everything
from fulmen.callbacks import Callback
from fulmen.trainer.shares import in_common_order
from fulmen.utilities.combined_loader import CombinedLoader
from fulmen.utilities.exceptions import MisconfigurationException
from fulmen.utilities.warnings import PossibleUserWarning

torchdata = pytest.importorskip("torchdata.stateful_dataloader")
pytestmark = [
    pytest.mark.filterwarnings("ignore:'set_vital' is deprecated"),
    pytest.mark.filterwarnings("ignore:.*so nothing was trained"),  # by a process that had no batch
]


class Numbers(Dataset[Any]):
    """Each sample with a random number, which must not depend on the process."""

    def __init__(self, size: int) -> None:
        self.size = size

    def __len__(self) -> int:
        return self.size

    def __getitem__(self, index: int) -> Any:
        return torch.tensor([float(index), torch.rand(()).item()])


class Looks(LightningModule):
    """Remembers its batches, by epoch, and draws random numbers as a model with dropout does."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = torch.nn.Linear(1, 1)
        self.seen: list[list[Any]] = []
        self.sizes: list[Any] = []

    def on_train_epoch_start(self) -> None:
        self.seen.append([])

    def training_step(self, batch: Any, batch_idx: int) -> Any:
        torch.rand(1 + self.trainer.global_rank)
        self.seen[-1].append(plain(batch))
        self.sizes.append(self.trainer.data.group_sizes)
        return self.layer(torch.ones(1, 1)).sum()

    def configure_optimizers(self) -> Any:
        return torch.optim.SGD(self.parameters(), lr=0.1)


def plain(batch: Any) -> Any:
    if isinstance(batch, dict):
        return {name: plain(part) for name, part in batch.items()}
    if isinstance(batch, (list, tuple)):
        return [plain(part) for part in batch]
    return batch.tolist() if isinstance(batch, torch.Tensor) else batch


def trained(world: int, loaders: Any, epochs: int = 1, **arguments: Any) -> list[Looks]:
    """The module of each of ``world`` simulated processes after training on ``loaders(rank)``."""
    job = Job(world)

    def fit(rank: int) -> Looks:
        module = Looks()
        strategy = Simulated(job, rank) if world > 1 else "auto"
        trainer_of(world, strategy=strategy, max_epochs=epochs, **arguments).fit(module, loaders(rank))
        return module

    seed_everything(3, verbose=False)
    return job.run(fit)


def epoch(modules: list[Looks], number: int = 0) -> list[Any]:
    """The batches of an epoch, of all processes, in the order of one."""
    return in_common_order([module.seen[number] for module in modules])


# -- map-style data sets -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("world", [2, 3, 4])
@pytest.mark.parametrize("workers", [0, 2])
def test_processes_take_the_batches_of_one_process_in_turn_with_its_random_numbers(world: int, workers: int) -> None:
    if workers and world != 2:
        pytest.skip("once is enough")

    def loader(rank: int) -> Any:
        return DataLoader(Numbers(17), 2, shuffle=True, num_workers=workers)

    alone, several = trained(1, loader), trained(world, loader)
    assert epoch(several) == epoch(alone)
    assert several[0].seen[0] == alone[0].seen[0][::world]


class NeedsArguments(BatchSampler):
    def __init__(self, source: Any, secret: str) -> None:
        assert secret
        super().__init__(torch.utils.data.RandomSampler(source), 2, False)


class Slots(Sampler[int]):
    __slots__ = ("size",)

    def __init__(self, size: int) -> None:
        self.size = size

    def __iter__(self) -> Any:
        for _ in range(self.size):  # draws until its end
            yield int(torch.randint(self.size, ()))

    def __len__(self) -> int:
        return self.size


class Subclass(DataLoader[Any]):
    def __init__(self, required: int, *, size: int) -> None:
        super().__init__(Numbers(size), batch_size=required, shuffle=True)


class Rewrites(DataLoader[Any]):
    """Does not ask the sampler that it has."""

    def __iter__(self) -> Any:
        yield from (torch.tensor([[float(index), 0.0]]) for index in torch.randperm(7))

    def __len__(self) -> int:
        return 7


LOADERS: dict[str, Any] = {
    "batch sampler with arguments": lambda rank: DataLoader(
        Numbers(11), batch_sampler=NeedsArguments(Numbers(11), "x")
    ),
    "sampler with slots": lambda rank: DataLoader(Numbers(9), 2, sampler=Slots(9)),
    "sub-class with arguments": lambda rank: Subclass(2, size=9),
    "sub-class that reads by itself": lambda rank: Rewrites(Numbers(7)),
    "stateful": lambda rank: torchdata.StatefulDataLoader(Numbers(9), 2, shuffle=True),
    "stateful with workers": lambda rank: torchdata.StatefulDataLoader(Numbers(9), 2, shuffle=True, num_workers=1),
    "persistent workers": lambda rank: DataLoader(Numbers(9), 2, shuffle=True, num_workers=1, persistent_workers=True),
    "no batches": lambda rank: DataLoader(Numbers(5), batch_size=None, shuffle=True),
    "generator": lambda rank: DataLoader(
        Numbers(9), 2, shuffle=True, generator=torch.Generator().manual_seed(rank + 5)
    ),
    "list": lambda rank: [torch.full((1, 2), float(number)) for number in range(5)],
}


@pytest.mark.parametrize("name", LOADERS)
def test_any_loader_gives_the_same_samples_to_two_processes_as_to_one(name: str) -> None:
    modules = trained(2, LOADERS[name], epochs=2)
    alone = trained(1, lambda rank: LOADERS[name](0), epochs=2)
    lazily = name == "sampler with slots"  # one process draws the numbers of the model in between
    if not lazily:
        assert epoch(modules) == epoch(alone)
    for number in range(2):
        together, expected = samples(epoch(modules, number)), samples(alone[0].seen[number])
        assert len(together) == len(expected)
        assert lazily or sorted(together) == sorted(expected)


def samples(batches: list[Any]) -> list[Any]:
    """The numbers of the samples in batches."""
    return [sample[0] if isinstance(sample, list) else sample for batch in batches for sample in batch]


def test_sampler_that_draws_until_its_end_is_the_same_on_all_processes() -> None:
    class Remembers(Slots):
        drawn: dict[int, list[int]] = {}

        def __iter__(self) -> Any:
            for index in super().__iter__():
                self.drawn.setdefault(id(self), []).append(index)
                yield index

    samplers = {rank: Remembers(12) for rank in range(3)}
    trained(3, lambda rank: DataLoader(Numbers(12), 2, sampler=samplers[rank]))
    assert len({tuple(drawn) for drawn in Remembers.drawn.values()}) == 1


def test_every_process_knows_the_sizes_of_a_group() -> None:
    modules = trained(3, lambda rank: DataLoader(Numbers(11), 2))
    assert modules[0].sizes == [(2, 2, 2), (2, 2, 1)]
    modules = trained(3, lambda rank: DataLoader(Numbers(8), 2))
    assert modules[0].sizes == [(2, 2, 2), (2, 0, 0)]
    assert [len(module.sizes) for module in modules] == [2, 1, 1]


def test_nothing_is_exchanged_per_step() -> None:
    exchanges = []
    for size in (8, 80):
        job = Job(2)

        def fit(rank: int) -> None:
            loader = DataLoader(Numbers(size), 2, shuffle=True)  # noqa: B023
            trainer_of(2, strategy=Simulated(job, rank), max_epochs=1).fit(Looks(), loader)  # noqa: B023

        job.run(fit)
        exchanges.append(job.exchanges[0])
    assert exchanges[0] == exchanges[1]


def test_samples_chosen_by_a_hook_that_draws_are_the_same_on_all_processes() -> None:
    class Splits(Looks):
        def train_dataloader(self) -> Any:
            return DataLoader(Subset(Numbers(20), torch.randperm(20)[:8].tolist()), 2)

    job = Job(2)

    def fit(rank: int) -> Looks:
        module = Splits()
        torch.manual_seed(rank)
        trainer_of(2, strategy=Simulated(job, rank), max_epochs=1).fit(module)
        return module

    modules = job.run(fit)
    assert len({sample[0] for batch in epoch(modules) for sample in batch}) == 8


def test_limits_count_the_batches_of_each_process_in_training() -> None:
    modules = trained(2, lambda rank: DataLoader(Numbers(20), 2), limit_train_batches=3)
    assert [len(module.seen[0]) for module in modules] == [3, 3]
    modules = trained(2, lambda rank: DataLoader(Numbers(20), 2), limit_train_batches=0.6)
    assert [len(module.seen[0]) for module in modules] == [3, 3]


# -- shares of the user's --------------------------------------------------------------------------------------------


def test_distributed_sampler_of_the_user_is_left_alone_and_named(caplog: Any) -> None:
    def loader(rank: int) -> Any:
        return DataLoader(Numbers(8), 2, sampler=DistributedSampler(Numbers(8), 2, rank, shuffle=False))

    with caplog.at_level("INFO"):
        first, second = trained(2, loader)
    assert [[sample[0] for sample in batch] for batch in first.seen[0]] == [[0, 2], [4, 6]]
    assert [[sample[0] for sample in batch] for batch in second.seen[0]] == [[1, 3], [5, 7]]
    assert "one share for each process: a DistributedSampler has `rank=0` and `num_replicas=2`" in caplog.text


def test_without_use_distributed_sampler_every_process_has_all_that_its_loader_gives() -> None:
    modules = trained(2, lambda rank: DataLoader(Numbers(4), 2), use_distributed_sampler=False)
    assert [len(module.seen[0]) for module in modules] == [2, 2]


def test_sampler_of_another_number_of_processes_is_warned_of() -> None:
    def loader(rank: int) -> Any:
        return DataLoader(Numbers(9), 1, sampler=DistributedSampler(Numbers(9), 3, 0, shuffle=False))

    with pytest.warns(UserWarning, match="takes one of 3 shares, and there are 2 processes"):
        trained(2, loader)


def test_shares_of_different_lengths_are_trained_on_until_the_longest_ends() -> None:
    first, second = trained(2, lambda rank: DataLoader(Numbers((7, 5)[rank])))
    assert (len(first.seen[0]), len(second.seen[0])) == (7, 5)
    assert first.sizes == [(1, 1)] * 5 + [(1, 0)] * 2


def test_processes_with_different_numbers_of_loaders_are_refused() -> None:
    with pytest.raises(MisconfigurationException, match="gives 1 and 2 loaders on the processes"):
        trained(2, lambda rank: [DataLoader(Numbers(4)) for _ in range(rank + 1)])


# -- iterable data sets ------------------------------------------------------------------------------------------------


class Plain(IterableDataset[Any]):
    def __init__(self, size: int) -> None:
        self.size = size

    def __iter__(self) -> Any:
        yield from range(self.size)


class Divided(Plain):
    def __iter__(self) -> Any:
        info = worker_info()
        yield from range(info.id if info else 0, self.size, info.num_workers if info else 1)


class Sharded(Plain):
    def __init__(self, size: int, rank: int, world_size: int) -> None:
        super().__init__(size)
        self.rank, self.world_size = rank, world_size

    def __iter__(self) -> Any:
        yield from range(self.rank, self.size, self.world_size)


class SaysSo(Plain):
    shards_itself = True

    def __init__(self, size: int, mine: int) -> None:
        super().__init__(size)
        self.mine = mine

    def __iter__(self) -> Any:
        yield from range(self.mine, self.size, 2)


class Asks(Plain):
    def __init__(self, size: int, answer: int) -> None:
        super().__init__(size)
        self.answer = answer

    def __iter__(self) -> Any:
        rank, world_size = self.answer, 2
        if torch.distributed.is_initialized():
            rank, world_size = torch.distributed.get_rank(), torch.distributed.get_world_size()
        yield from range(rank, self.size, world_size)


ITERABLES: dict[str, tuple[Any, str]] = {
    "plain": (lambda rank: DataLoader(Plain(11), 2), "a Plain from `train_dataloader` knows nothing of processes"),
    "plain with a worker": (lambda rank: DataLoader(Plain(11), 2, num_workers=1), "knows nothing of processes"),
    "divided": (lambda rank: DataLoader(Divided(11), 2), "over 2 processes x 1 worker,"),
    "divided with workers": (lambda rank: DataLoader(Divided(11), 2, num_workers=2), "over 2 processes x 2 workers,"),
    "sharded": (lambda rank: DataLoader(Sharded(11, rank, 2), 2), "has `rank=0` and `world_size=2`"),
    "says so": (lambda rank: DataLoader(SaysSo(11, rank), 2), "`shards_itself` is True"),
    "asks": (lambda rank: DataLoader(Asks(11, rank), 2), "asks for `get_rank` and `get_world_size`"),
    "generator": (lambda rank: (torch.tensor([number]) for number in range(11)), ""),
}


@pytest.mark.parametrize("name", ITERABLES)
def test_iterable_data_comes_once_and_one_line_says_how_it_is_shared(name: str, caplog: Any) -> None:
    loader, line = ITERABLES[name]
    with caplog.at_level("INFO"):
        modules = trained(2, loader)
    assert sorted(sample for module in modules for batch in module.seen[0] for sample in batch) == list(range(11))
    assert all(module.seen[0] for module in modules)
    assert line in caplog.text


@pytest.mark.parametrize("name", ["plain", "plain with a worker", "generator"])
def test_iterable_data_that_knows_nothing_of_processes_comes_in_the_order_of_one(name: str) -> None:
    loader, _ = ITERABLES[name]
    assert epoch(trained(2, loader)) == epoch(trained(1, loader))


def test_iterable_shares_of_different_lengths_end_together() -> None:
    first, second = trained(2, lambda rank: DataLoader(SaysSo((14, 10)[rank], rank)), epochs=2)
    assert [len(batches) for batches in first.seen] == [7, 7]
    assert [len(batches) for batches in second.seen] == [5, 5]
    assert first.sizes[:7] == [(1, 1)] * 5 + [(1, 0)] * 2


def test_predictions_of_data_divided_among_workers_come_in_the_order_of_one_process() -> None:
    class Echo(LightningModule):
        def predict_step(self, batch: Any, batch_idx: int) -> Any:
            return batch

    job = Job(2)

    def predicted(rank: int) -> Any:
        return trainer_of(2, strategy=Simulated(job, rank)).predict(Echo(), DataLoader(Divided(7), 2))

    for batches in job.run(predicted):
        assert plain(batches) == [[0, 1], [2, 3], [4, 5], [6]]


def test_workers_that_each_read_all_of_an_iterable_data_set_are_warned_of() -> None:
    with pytest.warns(PossibleUserWarning, match="each of the 2 workers .* each sample comes 2 times"):
        trained(1, lambda rank: DataLoader(Plain(4), 2, num_workers=2))


# -- several loaders ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("world", [2, 3])
@pytest.mark.parametrize("mode", ["min_size", "max_size", "max_size_cycle"])
def test_rows_of_several_loaders_are_those_of_one_process(mode: Any, world: int) -> None:
    def loaders(rank: int) -> Any:
        short, long = DataLoader(Numbers(5), 2), DataLoader(Numbers(7), 1, shuffle=True)
        return CombinedLoader({"short": short, "long": long, "one": DataLoader(Numbers(1))}, mode)

    def places(rows: list[Any]) -> list[Any]:
        return [{name: part and [sample[0] for sample in part] for name, part in row.items()} for row in rows]

    assert places(epoch(trained(world, loaders))) == places(epoch(trained(1, loaders)))


# -- going on ----------------------------------------------------------------------------------------------------------


class SavesAt(Callback):
    def __init__(self, path: Any, epoch: int, batch: int) -> None:
        self.path, self.at = path, (epoch, batch)

    def on_train_batch_end(self, trainer: Any, pl_module: Any, outputs: Any, batch: Any, batch_idx: int) -> None:
        if (trainer.current_epoch, batch_idx) == self.at:
            trainer.save_checkpoint(self.path)


class Sums(Looks):
    def training_step(self, batch: Any, batch_idx: int) -> Any:
        options: dict[str, Any] = {"on_step": False, "on_epoch": True}
        self.log("sum", sum(sample[0] for sample in plain(batch)), reduce_fx="sum", **options)
        self.log("mean", batch[:, 0].mean(), **options)
        return super().training_step(batch, batch_idx)


def gone_on(world: int, loader: Any, path: Any, save: tuple[int, int] | None = None) -> list[Any]:
    job = Job(world)

    def fit(rank: int) -> Any:
        module = Sums()
        strategy = Simulated(job, rank) if world > 1 else "auto"
        callbacks = [SavesAt(path, *save)] if save else []
        trainer = trainer_of(world, strategy=strategy, max_epochs=2, callbacks=callbacks)
        trainer.fit(module, loader(rank), ckpt_path=None if save else path)
        return module, {name: float(value) for name, value in trainer.callback_metrics.items()}

    seed_everything(3, verbose=False)
    return job.run(fit)


@pytest.mark.parametrize("before", [1, 2, 4])
def test_run_goes_on_with_any_number_of_processes_and_takes_each_sample_of_the_epoch_once(
    before: int, tmp_path: Any
) -> None:
    def loader(rank: int) -> Any:
        return DataLoader(Numbers(23), 2, shuffle=True)

    at = {1: 5, 2: 2, 4: 1}[before]  # with the last of 6 or 8 batches
    whole = gone_on(before, loader, tmp_path / "a.ckpt", (1, at))
    rest = epoch([module for module, _ in whole], 1)[(at + 1) * before :]
    for now in (1, 2, 3, 4):
        results = gone_on(now, loader, tmp_path / "a.ckpt")
        assert in_common_order([module.seen[-1] for module, _ in results]) == rest
        assert all(metrics == {"sum": 253.0, "mean": 11.0} for _, metrics in results)


@pytest.mark.parametrize("name", ["whole stream", "divided", "stateful"])
def test_as_many_processes_go_on_exactly_in_the_middle_of_an_epoch(name: str, tmp_path: Any) -> None:
    class Rows(Plain):
        def __iter__(self) -> Any:
            yield from (torch.tensor([float(number), torch.rand(()).item()]) for number in range(self.size))

    class RowsOfWorkers(Rows):
        def __iter__(self) -> Any:
            info = worker_info()
            rows = list(super().__iter__())
            yield from rows[info.id if info else 0 :: info.num_workers if info else 1]

    loader = {
        "whole stream": lambda rank: DataLoader(Rows(15), 2),
        "divided": lambda rank: DataLoader(RowsOfWorkers(15), 2, num_workers=1),
        "stateful": lambda rank: torchdata.StatefulDataLoader(Numbers(15), 2, shuffle=True),
    }[name]
    whole = gone_on(2, loader, tmp_path / "a.ckpt", (1, 1))
    rest = gone_on(2, loader, tmp_path / "a.ckpt")
    for (module, metrics), (same, same_metrics) in zip(whole, rest):
        assert same.seen[-1] == module.seen[-1][2:]
        assert same_metrics == metrics


def test_run_whose_user_shards_says_that_other_processes_have_other_shares(tmp_path: Any) -> None:
    def loader(rank: int) -> Any:
        dataset = Numbers(24)
        world = 2 if not (tmp_path / "a.ckpt").exists() else 3
        return DataLoader(dataset, 2, sampler=DistributedSampler(dataset, world, rank, shuffle=False))

    gone_on(2, loader, tmp_path / "a.ckpt", (1, 1))
    with (
        pytest.warns(UserWarning, match="the shares of 3 are not those of the 2 that the checkpoint"),
        pytest.warns(UserWarning, match="had 6 batches when the checkpoint was made, and has 4 now"),
    ):
        gone_on(3, loader, tmp_path / "a.ckpt")


# -- real processes ----------------------------------------------------------------------------------------------------


def trained_for_real(workers: int) -> Any:
    seed_everything(3, verbose=False)
    module = Looks()
    context = "fork" if workers else None  # another process could not import this module by its name
    loader = DataLoader(Numbers(16), 2, shuffle=True, num_workers=workers, multiprocessing_context=context)
    trainer_of(2, max_epochs=2).fit(module, loader)
    return module.seen


def test_real_processes_take_the_batches_of_one() -> None:
    first, second = run(2, trained_for_real, 1)

    def loader(rank: int) -> Any:
        return DataLoader(Numbers(16), 2, shuffle=True, num_workers=1)

    alone = trained(1, loader, epochs=2)[0]
    assert in_common_order([first[0], second[0]]) == alone.seen[0]
    assert sorted(sample[0] for batch in first[1] + second[1] for sample in batch) == list(range(16))
