"""Users' loaders, untouched, with what is known of the batches that they give."""

from __future__ import annotations

import inspect
import math
import os
from collections import deque
from collections.abc import Generator, Iterator, Sequence
from contextlib import contextmanager
from itertools import chain, islice
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import BatchSampler, DataLoader, SequentialSampler
from torch.utils.data.dataloader import _BaseDataLoaderIter as _Running

from fulmen.trainer.streams import (
    IndexStream,
    OwnDraws,
    generator_state,
    generators_of,
    samplers_of,
    set_generator_state,
)
from fulmen.trainer.workers import start
from fulmen.utilities.data import has_iterable_dataset
from fulmen.utilities.exceptions import MisconfigurationException
from fulmen.utilities.rank_zero import rank_zero_info, rank_zero_warn
from fulmen.utilities.seed import collect_rng_states, restore_rng_states
from fulmen.utilities.text import a_kind, shown


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
    """

    def __init__(self, loader: Any, in_order: bool = False) -> None:
        self.loader = loader
        self.key: tuple[int | str, ...] = ()
        self.limit: int | float = math.inf
        self.batch_indices: list[int] | None = None
        self.under_way: deque[Any] | None = None
        self.position_in_pass = 0
        self.has_ended_a_pass = False
        self._passes = 0
        self._began_with: dict[str, Any] = {}  # the random numbers at the start of the pass
        self._draws: OwnDraws | None = None
        self._sought: Iterator[Any] | None = None  # a pass that was opened in the middle, not read yet
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
        self.position_in_pass, self.has_ended_a_pass = 0, False
        sampler = getattr(self.loader, "sampler", None)
        of_batches = getattr(getattr(self.loader, "batch_sampler", None), "sampler", None)
        for one in (sampler,) if of_batches is sampler else (sampler, of_batches):
            tell = getattr(one, "set_epoch", None)
            if callable(tell):
                tell(epoch)

    # -- one pass -----------------------------------------------------------------------------------------------------

    def __iter__(self) -> Iterator[Any]:
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
        self.position_in_pass = 0
        self._passes += 1
        self._began_with = self._generators()
        return self._open(0, None)

    def _open(self, skip: int, drew: bool | None, position: int = 0) -> Iterator[Any]:
        """The batches of a pass without the first ``skip``, which are not read; a loader that keeps its state is at
        ``position``.
        """
        loader, stream = self.loader, self._watch()
        key = (*self.key, self._passes)
        reads_here = getattr(loader, "num_workers", 0) == 0
        draws = self._draws = OwnDraws(key, drew) if reads_here else None
        self.batch_indices = None
        self.under_way = None if stream is None else stream.under_way
        if stream is None:
            batches = start(loader)
            return batches if draws is None else draws.read(batches, position)
        stream.begin_pass(key, draws, skip, waits=reads_here)
        # the loader keeps the stream that stands in for its sampler when its iterator is made; a loader that makes it
        # late makes it before the first batch
        attributes, name = loader.__dict__, self._sampler_name()
        own, first = attributes[name], []
        attributes[name] = stream
        try:
            batches = start(loader)
            if not skip or not (stream.leave_out() if reads_here else isinstance(batches, _Running)):
                stream.waits_after_skip = False
                first = list(islice(batches, 1))
        finally:
            attributes[name] = own
            if draws is not None:
                draws.leave()
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
        if isinstance(inner, SequentialSampler) or type(sampler) is not BatchSampler:
            return sampler
        return BatchSampler(SequentialSampler(self.loader.dataset), sampler.batch_size, sampler.drop_last)

    def _watch(self) -> IndexStream | None:
        loader = self.loader
        if not isinstance(loader, DataLoader) or not getattr(loader, "in_order", True) or self.keeps_state:
            return None
        wanted = self._batch_sampler()
        if wanted is None or (has_iterable_dataset(loader) and loader.num_workers == 0):
            return None
        running = getattr(loader, "_iterator", None)  # of persistent workers, which keep the stream they began with
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
        """Give the loader back in the order that its user gave it."""
        self._sought = None
        if self._stream is None or self._stream.sampler is self.loader.__dict__.get(self._sampler_name()):
            return
        if getattr(self.loader, "_iterator", None) is not None:
            self.loader._iterator = None

    # -- where it stands ----------------------------------------------------------------------------------------------

    @property
    def why_inexact(self) -> str | None:
        """Why a run cannot go on exactly in the middle of this loader; None if it can."""
        loader = self.loader
        if self.keeps_state:
            return None
        if isinstance(loader, Iterator):
            return f"{a_kind(loader)} can be read only once. Give an object with `__iter__`, such as a DataLoader"
        workers = getattr(loader, "num_workers", 0)
        if workers and not getattr(loader, "in_order", True):
            return "`in_order=False` gives the batches as they come. Write `in_order=True`"
        if workers and generators_of(getattr(loader, "dataset", None)):
            return (
                f"{type(loader.dataset).__name__} keeps a random number generator, and each worker changes a copy of "
                "it. Draw from `torch`, `random` or `numpy.random` instead, which are seeded for each batch"
            )
        return None

    @property
    def keeps_state(self) -> bool:
        """The loader, or a data set that is read in its own order, can say where it stands."""
        return _has_state(self.loader) or self._state_of_data_set() is not None

    def _state_of_data_set(self) -> Any:
        """An iterable data set that is read in this process and can say where it stands; None otherwise."""
        loader = self.loader
        if not has_iterable_dataset(loader) or getattr(loader, "num_workers", 0):
            return None
        return loader.dataset if _has_state(loader.dataset) else None

    def _generators(self) -> dict[str, Any]:
        """All random numbers that an order of samples can come from, and the samplers' own state."""
        samplers = samplers_of(self.loader)
        return {
            "random": collect_rng_states(include_cuda=False),
            "generators": [generator_state(one) for one in generators_of(self.loader, *samplers)],
            "samplers": [sampler.state_dict() for sampler in samplers if _has_state(sampler)],
        }

    def mark(self) -> dict[str, Any]:
        """Where the source stands after the batch that it gave last; what the next batch changes, and nothing else."""
        mark = {
            "position": self.position_in_pass,
            "passes": self._passes,
            "has_ended": self.has_ended_a_pass,
            "data_set": [generator_state(one) for one in generators_of(getattr(self.loader, "dataset", None))],
        }
        owner = self.loader if _has_state(self.loader) else self._state_of_data_set()
        if owner is not None:
            mark["state"] = owner.state_dict()
        return mark

    def state_dict(self, mark: dict[str, Any] | None = None) -> dict[str, Any]:
        """Where the source stands (at ``mark``, if the batch after it was read already), as plain data."""
        return {
            **(self.mark() if mark is None else mark),
            "num_batches": self.num_batches,
            "began_with": self._began_with,
            "drew": None if self._draws is None else self._draws.drew,
            "now": {**self._generators(), "random": None},
        }

    def begin_with(self, mark: dict[str, Any]) -> None:
        """Between two passes: put back what the next one depends on."""
        self._put_back(mark["now"])
        _set_all(generators_of(getattr(self.loader, "dataset", None)), mark["data_set"])
        if mark["has_ended"]:  # else it was left in the middle, and begins anew
            self._load_state(mark)

    def seek(self, mark: dict[str, Any], hook: str) -> None:
        """Open the pass that ``mark`` was made in, at the batch after it. Indices are drawn, and no sample is read
        where that can be helped.
        """
        self.position_in_pass, self._passes, self.has_ended_a_pass = mark["position"], mark["passes"], mark["has_ended"]
        self._began_with = mark["began_with"]
        if mark["num_batches"] != self.num_batches:
            rank_zero_warn(
                f"the loader from `{hook}` had {mark['num_batches']} batches when the checkpoint was made, and has "
                f"{self.num_batches} now: the epoch goes on at batch {self.position_in_pass} of another order. "
                "Give the same data, or begin a new run from the weights."
            )
        if self._passes:  # else it has not been opened in this epoch
            if self._began_with:
                restore_rng_states(self._began_with["random"])
                self._put_back(self._began_with)
            self._sought = self._opened_at(mark, hook)
        _set_all(generators_of(getattr(self.loader, "dataset", None)), mark["data_set"])

    def seek_batch(self, position: int, hook: str) -> None:
        """Open a pass at batch ``position``; its order is that of the random numbers of this moment."""
        self.position_in_pass, self._passes = position, 1
        self._began_with = self._generators()
        self._sought = self._opened_at({"position": position, "drew": None}, hook)

    def _opened_at(self, mark: dict[str, Any], hook: str) -> Iterator[Any]:
        position, drew = mark["position"], mark["drew"]
        if self._load_state(mark):
            return self._open(0, drew, position)
        if self._watch_skips():
            return self._open(position, drew)
        batches = self._open(0, drew)
        if position:
            rank_zero_info(
                "%s from `%s` cannot be opened in the middle: reading %d batches again ...",
                a_kind(self.loader),
                hook,
                position,
            )
        count = 0
        for count, _ in enumerate(islice(batches, position), 1):
            if self.under_way:
                self.under_way.popleft()
            if count % 1000 == 0:
                rank_zero_info("... %d of %d read again", count, position)
        if count < position:
            rank_zero_warn(f"the loader from `{hook}` gave only {count} of the {position} batches to be read again.")
        return batches

    def _watch_skips(self) -> bool:
        """Whether leaving out indices is leaving out batches."""
        loader = self.loader
        return (
            isinstance(loader, DataLoader)
            and not has_iterable_dataset(loader)
            and getattr(loader, "in_order", True)
            and self._batch_sampler() is not None
        )

    def _load_state(self, mark: dict[str, Any]) -> bool:
        owner = self.loader if _has_state(self.loader) else self._state_of_data_set()
        if owner is None or "state" not in mark:
            return False
        owner.load_state_dict(mark["state"])
        return True

    def _put_back(self, generators: dict[str, Any]) -> None:
        samplers = samplers_of(self.loader)
        _set_all(generators_of(self.loader, *samplers), generators["generators"])
        for sampler, state in zip((one for one in samplers if _has_state(one)), generators["samplers"]):
            sampler.load_state_dict(state)


def _has_state(owner: Any) -> bool:
    return callable(getattr(owner, "state_dict", None)) and callable(getattr(owner, "load_state_dict", None))


def _set_all(generators: list[Any], states: list[Any]) -> None:
    for generator, state in zip(generators, states):
        set_generator_state(generator, state)


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
