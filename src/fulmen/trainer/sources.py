"""Users' loaders, untouched, with what is known of the batches that they give."""

from __future__ import annotations

import inspect
import math
import os
import sys
import time
from collections import deque
from collections.abc import Generator, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from copy import deepcopy
from itertools import chain, islice
from itertools import count as counter
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import BatchSampler, DataLoader, SequentialSampler
from torch.utils.data.dataloader import _BaseDataLoaderIter as _Running

from fulmen.core.plain import LEFT_OUT, from_plain, to_plain
from fulmen.trainer.shares import Share, rows
from fulmen.trainer.streams import IndexStream, OwnDraws, is_sequential, samplers_of
from fulmen.trainer.workers import start
from fulmen.utilities.data import has_iterable_dataset
from fulmen.utilities.exceptions import MisconfigurationException
from fulmen.utilities.generators import generators_in, restore_states, states_of
from fulmen.utilities.rank_zero import rank_zero_info, rank_zero_warn
from fulmen.utilities.seed import collect_rng_states, isolate_rng, restore_rng_states
from fulmen.utilities.text import a_kind, shown

_SECONDS_BETWEEN_COUNTS = 5.0  # while batches are read again
_openings = counter(1)


class Source:
    """One user's loader (or any iterable), with what is known of the batch it gave last.

    Attributes:
        loader: the user's object, untouched.
        key: what the random numbers of its data set depend on, besides the position of the batch; the data sets it anew
            for each epoch.
        limit: the most batches of one pass.
        batch_indices: the places of the last batch's samples in the data set; None when they cannot be known.
        under_way: the places of the samples of each batch that is still to come; None when they cannot be known.
        position_in_pass: batches that were taken from the current pass.
        has_ended_a_pass: a pass has come to its end since the epoch began.
        draws_apart: the order of its samples takes no random numbers away from the others.

    With several processes, batches are counted over all of them:

    Attributes:
        share: which of them this one is.
        is_sharded: its user has given each process a loader with a share of the data.
        is_split: the loader is asked for the batches of this process alone.
        splits_as_workers: the data set divides itself among workers: it is told of those of all processes.
        lengths: of the loaders of all processes if ``is_sharded``, by rank; None where they are unknown.
        regular: likewise, how many samples their batches have, and the last one; None where that is unknown.
        size: samples in the batch that came last, whosever it is; None if unknown.
        row: batches since this process began, or went on, with the epoch.
    """

    def __init__(self, loader: Any, in_order: bool = False, share: Share | None = None) -> None:
        self.loader = loader
        self.share = Share() if share is None else share
        self.is_sharded = self.is_split = self.splits_as_workers = False
        self.lengths: tuple[int, ...] | None = None
        self.regular: list[tuple[int, int] | None] = []
        self.size: int | None = None
        self.row = 0
        self.key: tuple[int | str, ...] = ()
        self.limit: int | float = math.inf
        self.batch_indices: list[int] | None = None
        self.under_way: deque[Any] | None = None
        self.position_in_pass = 0
        self.has_ended_a_pass = False
        self.draws_apart = False
        self._passes = 0
        self._taken = 0  # batches that were taken in passes before
        self._opened = 0  # when the pass was opened, compared with those of others
        self._began_with: dict[str, Any] = {}  # the random numbers at the start of the pass
        self._draws: OwnDraws | None = None
        self._drew: bool | None = None  # of a pass that the process before has made
        self._sought: Iterator[Any] | None = None  # a pass that was opened in the middle, not read yet
        self._running: Any = None  # what the loader gave, which may have workers
        self._in_order = in_order
        self._stream: IndexStream | None = None

    @property
    def num_batches(self) -> int | float:
        """``len`` of the loader; ``inf`` when it has none."""
        if isinstance(self.loader, DataLoader) and self._in_order and self._batch_sampler() is not None:
            return len(self._batch_sampler())
        try:
            return len(self.loader)
        except (TypeError, NotImplementedError):
            return math.inf

    @property
    def num_rows(self) -> int | float:
        """Batches of one pass, those of all processes together; ``inf`` when unknown."""
        if not self.is_sharded:
            return self.num_batches
        return math.inf if self.lengths is None else max(self.lengths) * self.share.size

    def sizes_of(self, rank: int, place: int) -> int:
        """Samples in batch ``place`` of the loader of process ``rank``, if its user has sharded the data; -2 if that is
        unknown.
        """
        regular = self.regular[rank] if self.regular else None
        if regular is None or self.lengths is None:
            return -2
        return regular[place + 1 == self.lengths[rank]]

    @property
    def keeps_its_word(self) -> bool:
        """The length is known, and it is not only what an iterable data set says of itself."""
        return not math.isinf(self.num_batches) and not has_iterable_dataset(self.loader)

    def __len__(self) -> int:
        length = self.num_batches
        if math.isinf(length):
            raise TypeError(f"{type(self.loader).__name__} has no length")
        return int(length)

    def begin_epoch(self, epoch: int, key: tuple[int | str, ...]) -> None:
        """Tell samplers that shuffle by epoch which one it is, and take the key of its random numbers."""
        self.key, self._passes, self._sought = key, 0, None
        self._taken += self.position_in_pass
        self.position_in_pass, self.has_ended_a_pass, self.row = 0, False, 0
        for sampler in samplers_of(self.loader):
            tell = getattr(sampler, "set_epoch", None)
            if callable(tell):
                tell(epoch)

    # -- one pass -----------------------------------------------------------------------------------------------------

    def __iter__(self) -> Iterator[Any]:
        return self._batches() if self.share.size == 1 else rows(self)

    def _batches(self) -> Iterator[Any]:
        if self.limit == 0:
            return  # do not start its workers for nothing
        batches, under_way = self.open(), self.under_way
        while self.position_in_pass < self.limit:
            try:
                batch = next(batches)
            except StopIteration:
                break
            self.batch_indices = under_way.popleft() if under_way else None
            self.position_in_pass += 1
            yield batch
        self.has_ended_a_pass = True

    def open(self) -> Iterator[Any]:
        """Begin a pass, or go on in the one that :meth:`seek` opened.

        The indices of each batch are the next of :attr:`under_way`, to be taken by the caller.
        """
        if self._sought is not None:
            batches, self._sought = self._sought, None
            return batches
        self._taken += self.position_in_pass
        self.position_in_pass = 0
        self._passes += 1
        self._opened = next(_openings)
        self._began_with = self._generators()
        with isolate_rng(include_cuda=False) if self.draws_apart else nullcontext():
            if self.share.size == 1 or self.is_sharded or self._has_fixed_order:
                return self._open(0, None)
            with self._order_of_first_process():
                return self._open(0, None)

    @property
    def _has_fixed_order(self) -> bool:
        """No random number can change the order of its batches."""
        if self._is_list:
            return True
        plain = isinstance(self.loader, DataLoader) and type(self.loader).__iter__ is DataLoader.__iter__
        return plain and not has_iterable_dataset(self.loader) and is_sequential(self._batch_sampler())

    @contextmanager
    def _order_of_first_process(self) -> Generator[None, None, None]:
        """What is drawn here for the order of the samples is the same on all processes."""
        began_with = self.share.broadcast(self._began_with)
        if self.share.rank == 0:
            yield
            return
        if has_iterable_dataset(self.loader) or not isinstance(self.loader, DataLoader):
            restore_states(self._generators_of_data_set(), began_with["data_set"], "the data set")
        else:
            began_with["data_set"] = self._began_with["data_set"]
        self._began_with = began_with
        with isolate_rng(include_cuda=False):
            restore_rng_states(began_with["random"])
            self._put_back(began_with)
            yield

    def _open(self, skip: int, drew: bool | None, position: int = 0) -> Iterator[Any]:
        """The batches of a pass without the first ``skip``, which are not read; a loader that keeps its state is at
        ``position``.
        """
        loader, stream = self.loader, self._watch()
        key = (*self.key, self._passes)
        places = (self.share.size, self.share.rank) if self.is_sharded else (1, 0)
        if self.is_sharded:
            skip, position = skip // self.share.size, position // self.share.size
        reads_here = getattr(loader, "num_workers", 0) == 0
        if self.is_read_once:
            key, position = (
                self.key[:-1],
                self.taken // places[0],
            )  # which are the same from the first epoch to the last
        draws = self._draws = OwnDraws(key, drew) if reads_here and not self._is_list else None
        self.batch_indices = None
        self.under_way = None if stream is None else stream.under_way
        self.is_split = False
        if stream is None:
            batches = self._running = start(loader, places if self.splits_as_workers else None)
            if draws is None:
                return batches
            if self.state_owner is None:  # to be read again when a run goes on: always with the same numbers
                draws.drew = True
            return draws.read(batches, position, *places)
        splits = self.share.size > 1 and not self.is_sharded and not has_iterable_dataset(loader)
        stream.begin_pass(key, draws, skip, reads_here, position)
        stream.split, stream.places = (self.share.rank, self.share.size) if splits else None, places
        stream.row, stream.stop = self.row, self.limit
        # the loader keeps the stream that stands in for its sampler when its iterator is made; a loader that makes it
        # late makes it before the first batch
        attributes, name = loader.__dict__, self._sampler_name()
        own, first = attributes[name], []
        attributes[name] = stream
        try:
            batches = self._running = start(loader, places if self.splits_as_workers else None)
            if not skip or not (stream.leave_out() if reads_here else isinstance(batches, _Running)):
                stream.waits_after_skip = False
                first = list(islice(batches, 1))
        finally:
            attributes[name] = own
            if draws is not None:
                draws.leave()
        self.is_split = splits and stream.is_in_use
        for _ in range(min(position, len(stream.under_way))):
            stream.under_way.popleft()
        rest = batches if draws is None or draws.drew is False else draws.read_indexed(batches)
        return chain(first, rest) if first else rest

    @contextmanager
    def apart_from(self, others: Sequence[Source]) -> Generator[None, None, None]:
        """Leave alone the persistent workers of a loader that is also being trained on: this pass gets its own."""
        busy = any(other is not self and other.loader is self.loader for other in others)
        running = getattr(self.loader, "_iterator", None) if busy else None
        if running is None:
            yield
            return
        self.loader._iterator = None
        try:
            yield
        finally:
            self.loader._iterator = running

    def _sampler_name(self) -> str:
        return "batch_sampler" if self.loader.__dict__.get("batch_sampler") is not None else "sampler"

    def _batch_sampler(self) -> Any:
        """What draws the indices of the loader, without shuffling if batches must come in order."""
        sampler = self.loader.__dict__.get(self._sampler_name())
        if sampler is None or not self._in_order or has_iterable_dataset(self.loader):
            return sampler
        inner = getattr(sampler, "sampler", None)
        if isinstance(inner, SequentialSampler) or not (type(sampler) is BatchSampler or is_of_torchdata(self.loader)):
            return sampler
        return BatchSampler(SequentialSampler(self.loader.dataset), sampler.batch_size, sampler.drop_last)

    def _watch(self) -> IndexStream | None:
        loader = self.loader
        if not isinstance(loader, DataLoader) or not self.is_in_order:
            return None
        if self.state_owner is not None and not is_of_torchdata(loader):
            return None
        wanted = self._batch_sampler()
        if wanted is None or (has_iterable_dataset(loader) and loader.num_workers == 0):
            return None
        # persistent workers keep the stream they began with
        running = getattr(loader, "_iterator", None) if loader.persistent_workers else None
        if running is not None:
            stream = running._index_sampler
            if not isinstance(stream, IndexStream) or not (stream is self._stream or stream.sampler is wanted):
                running = loader._iterator = None  # workers of an `overfit_batches` run, or of nobody's
            else:
                self._stream = stream
                # each pass takes as many random numbers as one that starts its workers anew
                torch.empty((), dtype=torch.int64).random_(generator=loader.generator)
        if self._stream is None:
            self._stream = IndexStream(wanted)
        return self._stream

    def close(self) -> None:
        """End the workers, and give the loader back in the order that its user gave it.

        Workers do not wait for the garbage collector, which finds those of a run that ended in an exception late, and
        then takes seconds for each.
        """
        self._sought = None
        end_workers = getattr(self._running, "_shutdown_workers", None)
        if end_workers is not None:
            end_workers()
            if getattr(self.loader, "_iterator", None) is self._running:
                self.loader._iterator = None
        self._running = None

    # -- where it stands ----------------------------------------------------------------------------------------------

    @property
    def is_read_once(self) -> bool:
        """The loader is an iterator: each epoch goes on where the one before stopped."""
        return isinstance(self.loader, Iterator)

    @property
    def is_open(self) -> bool:
        """A pass was opened in the middle, and nobody has gone on with it yet."""
        return self._sought is not None

    @property
    def taken(self) -> int:
        """Batches that were taken since the run began."""
        return self._taken + self.position_in_pass

    @property
    def is_in_order(self) -> bool:
        """Each batch comes at its place, and not when a worker has it."""
        return getattr(self.loader, "in_order", True) or getattr(self.loader, "num_workers", 0) < 2

    @property
    def _is_list(self) -> bool:
        return isinstance(self.loader, (Batches, list, tuple))

    @property
    def state_owner(self) -> Any:
        """Who can say where the loader stands and be brought there: itself, or a data set that is read in its own
        order in this process; None if nobody can.
        """
        loader = self.loader
        dataset = getattr(loader, "dataset", None)
        if is_of_torchdata(loader):  # its own state is that of the data set, and otherwise the number of the batch
            iterator = getattr(type(dataset), "__iter__", None) if has_iterable_dataset(loader) else None
            may_have_state = iterator is not None and not inspect.isgeneratorfunction(iterator)
            return loader if _has_state(dataset) or may_have_state else None
        if _has_state(loader):
            return loader
        reads_here = has_iterable_dataset(loader) and not getattr(loader, "num_workers", 0)
        return dataset if reads_here and _has_state(dataset) else None

    def _own_generators(self) -> dict[str, Any]:
        """The random number generators that its order of samples can come from."""
        dataset, running = (getattr(self.loader, name, None) for name in ("dataset", "_iterator"))
        return generators_in(self.loader, leave_out=(dataset, running))

    def _generators_of_data_set(self) -> dict[str, Any]:
        return generators_in(getattr(self.loader, "dataset", None))

    def generators(self) -> list[Any]:
        """The random number generators of the loader and its data set."""
        return [*self._own_generators().values(), *self._generators_of_data_set().values()]

    def _samplers_with_state(self) -> list[Any]:
        return [one for one in samplers_of(self.loader) if _has_state(one) and not begins_at_its_state(one)]

    def _generators(self) -> dict[str, Any]:
        """All that the order of the samples of a pass can come from."""
        return {
            "random": collect_rng_states(include_cuda=False),
            "generators": states_of(self._own_generators()),
            "samplers": [_packed(sampler.state_dict()) for sampler in self._samplers_with_state()],
            "data_set": states_of(self._generators_of_data_set()),
        }

    def mark(self) -> dict[str, Any]:
        """Where the source stands after the batch that it gave last; what the next batch changes, and nothing else."""
        mark = {
            "position": self.position_in_pass,
            "passes": self._passes,
            "taken": self.taken,
            "has_ended": self.has_ended_a_pass,
            "data_set": states_of(self._generators_of_data_set()),
        }
        if self._opened and self.state_owner is not None:
            mark["state"] = deepcopy(self.state_owner.state_dict())
        return mark

    def state_dict(self, mark: dict[str, Any] | None = None) -> dict[str, Any]:
        """Where the source stands (at ``mark``, if the batch after it was read already), as plain data."""
        mark = self.mark() if mark is None else mark
        return {
            **mark,
            **({"state": _packed(mark["state"])} if "state" in mark else {}),
            "num_batches": self.num_batches,
            "num_workers": getattr(self.loader, "num_workers", 0),
            "opened": self._opened,
            "began_with": self._began_with,
            "drew": self._drew if self._draws is None else self._draws.drew,
            "now": {**self._generators(), "random": None},
            **({"is_sharded": True} if self.is_sharded else {}),
        }

    def warn_of_other_shards(self, mark: dict[str, Any], processes: int, hook: str) -> None:
        """Warn if the shares of the data are not those of the run that goes on here."""
        if (self.is_sharded or "is_sharded" in mark) and processes != self.share.size:
            rank_zero_warn(
                f"the loader from `{hook}` gives each process a share of its own, and the shares of {self.share.size} "
                f"are not those of the {processes} that the checkpoint was made by: in the rest of this epoch some "
                "samples may come twice, or not at all. Go on with as many processes, or at the end of an epoch."
            )

    def begin_with(self, mark: dict[str, Any], hook: str) -> None:
        """Between two passes: put back what the next one depends on. Until then a checkpoint says of the pass before
        what ``mark`` says of it.
        """
        if self.is_read_once:
            self._read_again(self._open(0, True), mark["taken"] - self.taken, hook)
            self._remember(mark)
            return
        if is_of_torchdata(self.loader):
            if mark["has_ended"] and self._load_state(mark):
                iter(self.loader)  # takes the state, which is that of an end, so that the next pass begins anew
        elif mark["has_ended"] or not isinstance(self.loader, DataLoader) or self.state_owner is self.loader.dataset:
            self._load_state(mark)  # else it was left in the middle, and begins anew
        self._put_back(mark["now"])
        restore_states(self._generators_of_data_set(), mark["data_set"], f"the data set from `{hook}`")
        self._remember(mark)

    def _remember(self, mark: dict[str, Any]) -> None:
        self.position_in_pass, self._passes, self.has_ended_a_pass = mark["position"], mark["passes"], mark["has_ended"]
        self._taken, self.row = mark["taken"] - mark["position"], 0
        self._began_with, self._drew = mark["began_with"], mark["drew"]
        self._opened = next(_openings) if mark["opened"] else 0

    def seek(self, mark: dict[str, Any], hook: str) -> None:
        """Open the pass that ``mark`` was made in, at the batch after it. Indices are drawn, and no sample is read
        where that can be helped.
        """
        if mark["num_batches"] != self.num_batches:
            rank_zero_warn(
                f"the loader from `{hook}` had {mark['num_batches']} batches when the checkpoint was made, and has "
                f"{self.num_batches} now: the epoch goes on at batch {mark['position']} of another order. "
                "Give the same data, or begin a new run from the weights."
            )
        if self.is_read_once:
            self.begin_with(mark, hook)
        self._remember(mark)
        if self.is_read_once:
            self._sought = self._open(0, True)
            return
        if self._passes:  # else it has not been opened in this epoch
            if self._began_with:
                restore_rng_states(self._began_with["random"])
                self._put_back(self._began_with)
                restore_states(self._generators_of_data_set(), self._began_with["data_set"], "the data set")
            self._sought = self._opened_at(mark, hook)
        restore_states(self._generators_of_data_set(), mark["data_set"], f"the data set from `{hook}`")

    def seek_batch(self, position: int, hook: str) -> None:
        """Open a pass at batch ``position``; its order is that of the random numbers of this moment."""
        self.position_in_pass, self._passes = position, 1
        self._began_with = self._generators()
        self._sought = self._opened_at({"position": position, "drew": None}, hook)

    def _opened_at(self, mark: dict[str, Any], hook: str) -> Iterator[Any]:
        position, drew = mark["position"], mark["drew"]
        loader = self.loader
        workers = getattr(loader, "num_workers", 0)
        same_workers = mark.get("num_workers", workers) == workers
        if has_iterable_dataset(loader) and not same_workers and max(workers, mark["num_workers"]) > 1:
            rank_zero_warn(
                f"the loader from `{hook}` had {mark['num_workers']} workers when the checkpoint was made, and has "
                f"{workers} now: the order in which an IterableDataset is read depends on it, so the epoch goes on at "
                f"batch {position} of another order. Write `num_workers={mark['num_workers']}`."
            )
        if (same_workers or not is_of_torchdata(loader)) and self._load_state(mark):
            return self._open(0, drew, position)
        skips = self._watch_skips()
        batches = self._open(position if skips else 0, drew)
        if skips and (self._stream is None or self._stream.is_in_use):
            return batches
        self._read_again(batches, position, hook)
        return batches

    def _read_again(self, batches: Iterator[Any], number: int, hook: str) -> None:
        """Leave out so many batches where that needs reading, and let the user see it."""
        if self.is_sharded:
            number //= self.share.size  # they were those of all processes
        if number <= 0:
            return
        if not self._is_list:
            rank_zero_info(
                "%s from `%s` cannot be opened in the middle: reading %d batches again ...",
                a_kind(self.loader),
                hook,
                number,
            )
        began = said = time.monotonic()
        count = 0
        for count, _ in enumerate(islice(batches, number), 1):
            if self.under_way:
                self.under_way.popleft()
            now = time.monotonic()
            if now - said >= _SECONDS_BETWEEN_COUNTS:
                said = now
                left = (now - began) / count * (number - count)
                rank_zero_info("... %d of %d read again, %.0f seconds to go", count, number, left)
        if count < number:
            rank_zero_warn(f"the loader from `{hook}` gave only {count} of the {number} batches to be read again.")

    def _watch_skips(self) -> bool:
        """Whether leaving out indices is leaving out batches."""
        loader = self.loader
        return (
            isinstance(loader, DataLoader)
            and not has_iterable_dataset(loader)
            and self.is_in_order
            and self._batch_sampler() is not None
        )

    def _load_state(self, mark: dict[str, Any]) -> bool:
        owner = self.state_owner
        if owner is None or "state" not in mark:
            return False
        owner.load_state_dict(_unpacked(mark["state"]))
        self._opened = self._opened or next(_openings)
        return True

    def _put_back(self, generators: dict[str, Any]) -> None:
        restore_states(self._own_generators(), generators["generators"], a_kind(self.loader))
        for sampler, state in zip(self._samplers_with_state(), generators["samplers"]):
            sampler.load_state_dict(_unpacked(state))


def _packed(state: Any) -> dict[str, Any]:
    """A user's state as plain data, where it has such a form: with numbers of numpy in it, say."""
    plain, kinds = to_plain({"state": state})
    return {"state": deepcopy(state)} if LEFT_OUT in kinds.values() else {**deepcopy(plain), "kinds": kinds}


def _unpacked(packed: dict[str, Any]) -> Any:
    state = deepcopy(packed["state"])
    return from_plain({"state": state}, packed["kinds"])["state"] if "kinds" in packed else state


def _has_state(owner: Any) -> bool:
    return callable(getattr(owner, "state_dict", None)) and callable(getattr(owner, "load_state_dict", None))


def is_of_torchdata(loader: Any) -> bool:
    """Whether it is a StatefulDataLoader, which is only looked for where somebody has imported it."""
    torchdata = sys.modules.get("torchdata.stateful_dataloader")
    return torchdata is not None and isinstance(loader, torchdata.StatefulDataLoader)


def begins_at_its_state(sampler: Any) -> bool:
    """Whether the state of a sampler is a place in its pass, at which the next pass then begins."""
    torchdata = sys.modules.get("torchdata.stateful_dataloader.sampler")
    return torchdata is not None and isinstance(sampler, torchdata.StatefulDistributedSampler)


class Batches:
    """A list of batches, as one loader: a list by itself would be a list of loaders."""

    def __init__(self, batches: Sequence[Any]) -> None:
        self.batches = batches

    def __iter__(self) -> Iterator[Any]:
        return iter(self.batches)

    def __len__(self) -> int:
        return len(self.batches)


def is_batches(given: Any) -> bool:
    """Whether a list holds batches instead of loaders: no tensor is a loader."""
    if not isinstance(given, (list, tuple)) or not given:
        return False
    first = given[0]
    return isinstance(first, Tensor) or (
        isinstance(first, (list, tuple)) and bool(first) and isinstance(first[0], Tensor)
    )


def refuse_no_loader(source: str, given: Any) -> None:
    """Refuse what can be iterated over, or made into a loader, but is none."""
    if isinstance(given, type):
        raise TypeError(f"{source} gave {shown(given)} instead of an instance. Write `{given.__name__}(...)`.")
    if isinstance(given, (str, bytes, os.PathLike)):
        raise TypeError(
            f"{source} gave {shown(given)}, which is no loader. Read it, and give a DataLoader of what is there."
        )
    if inspect.isroutine(given):
        raise TypeError(f"{source} gave a function instead of what it returns. Write `{given.__name__}()`.")


def shown_loaders(given: Any) -> str:
    """Loaders in a message: a list or dict of them by its members."""
    members = given.values() if isinstance(given, dict) else given if isinstance(given, (list, tuple)) else None
    return shown(given) if members is None else f"{a_kind(given)} of {', '.join(map(shown, members))}"


def refuse_used_up(loader: Any, hook: str, when: str) -> None:
    """A loader gave nothing: say so if that is because it can be iterated over only once."""
    try:
        once = iter(loader) is loader
    except TypeError:
        once = False
    if once:
        raise MisconfigurationException(
            f"`{hook}` gave {a_kind(loader)} that gives no batch {when}: it can be iterated over only once, and is "
            "used up. Give what starts anew each time: a DataLoader, a list, or an object with `__iter__`."
        )
