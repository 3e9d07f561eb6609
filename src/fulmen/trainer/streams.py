"""In which order a loader gives its samples, and which random numbers they are made with.

Both are a function of the seed, the epoch and the position of the batch. A loader can thus be opened in the middle, by
drawing indices and reading nothing, and gives the same samples with any number of workers.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Iterator
from itertools import islice
from typing import Any

import torch
from torch.utils.data import BatchSampler, RandomSampler, SequentialSampler, SubsetRandomSampler, WeightedRandomSampler

from fulmen.utilities.seed import collect_rng_states, restore_rng_states, seed_host_generators


class OwnDraws:
    """Random numbers for a data set that is read in this process, apart from those of the model.

    Args:
        key: what the numbers depend on, besides the position of the batch.
        drew: whether the data set draws any random numbers; None: that is seen at the first batch, and if it does not,
            nothing is done from then on.
    """

    def __init__(self, key: tuple[int | str, ...], drew: bool | None = None) -> None:
        self.key = key
        self.drew = drew
        self._outer: dict[str, Any] | None = None
        self._seeded: dict[str, Any] = {}

    def enter(self, position: int) -> None:
        """A batch is about to be read: from here on random numbers are those of its position."""
        if self._outer is None:
            self._outer = collect_rng_states(include_cuda=False)
        elif self.drew is None:  # a loader that reads several batches at once
            self.drew = _differ(self._seeded, collect_rng_states(include_cuda=False)) or None
        seed_host_generators(*self.key, position)
        if self.drew is None:
            self._seeded = collect_rng_states(include_cuda=False)

    def leave(self) -> None:
        """The batch is there, or could not be read: the others get their random numbers back."""
        if self._outer is None:
            return
        if self.drew is None and self._seeded:  # else Ctrl-C came before anything was read
            self.drew = _differ(self._seeded, collect_rng_states(include_cuda=False))
        restore_rng_states(self._outer)
        self._outer = None

    def read(self, batches: Iterator[Any], position: int, step: int = 1, offset: int = 0) -> Iterator[Any]:
        """The same batches, each read with random numbers of its own if the data set draws any.

        Args:
            position: that of the first batch.
            step, offset: batch ``n`` gets the numbers of ``n * step + offset``, except the first of all: with it may be
                drawn what all processes must have in common.
        """
        while self.drew is not False:
            self.enter(position * step + offset if position else 0)
            try:
                batch = next(batches)
            except StopIteration:
                return
            finally:
                self.leave()
            yield batch
            position += 1
        yield from batches

    def read_indexed(self, batches: Iterator[Any]) -> Iterator[Any]:
        """The same where an :class:`IndexStream` says when a batch is read, as its sampler may draw, too."""
        while self.drew is not False:
            try:
                batch = next(batches)
            except StopIteration:
                return
            finally:
                self.leave()
            yield batch
        yield from batches


def _differ(one: dict[str, Any], other: dict[str, Any]) -> bool:
    return not torch.equal(one["torch"], other["torch"]) or any(
        one[name] != other[name] for name in one if name != "torch"
    )


class _Places(list[Any]):
    """The places of the samples of a batch, on their way to a worker: with them it gets the batch's random numbers."""

    key: tuple[int | str, ...]

    def __reduce__(self) -> Any:
        return _received, (self[:], self.key)


class _Place(int):
    """The place of one sample, likewise."""

    key: tuple[int | str, ...]

    def __reduce__(self) -> Any:
        return _received, (int(self), self.key)


def _received(indices: Any, key: tuple[int | str, ...]) -> Any:
    seed_host_generators(*key)
    return indices


def _for_worker(indices: Any, key: tuple[int | str, ...]) -> Any:
    """The same indices; what is neither a list nor the place of a sample goes as it is."""
    kind: Any = {list: _Places, int: _Place}.get(type(indices))
    if kind is None:
        return indices
    marked = kind(indices)
    marked.key = key
    return marked


class IndexStream:
    """A sampler that remembers which indices it gave out until their batch arrives, and can begin in the middle.

    All else is the sampler's.

    Attributes:
        sampler: the user's sampler, or batch sampler.
        under_way: the places of the samples of each batch that is still to come; None in it where they are unknown.
        key: what the random numbers of the data set depend on, besides the position of the batch.
        draws: takes care of them in this process; None if workers read.
        skip: batches that the next pass leaves out.
        passed: batches that the loader itself leaves out at the start of the next pass.
        waits_after_skip: stop when they are left out until the first batch is wanted: see :meth:`leave_out`.
        split: the share of this process, if its loader is to get no more than that: see :meth:`_of_this_process`.
        row: where in its group the first batch of the next pass is, if the stream is split.
        stop: the most batches of a pass, all processes together, if the stream is split.
        places: batch ``n`` of the loader gets the random numbers of ``n * places[0] + places[1]``.
    """

    def __init__(self, sampler: Any) -> None:
        self.sampler = sampler
        self.under_way: deque[Any] = deque()
        self.key: tuple[int | str, ...] = ()
        self.draws: OwnDraws | None = None
        self.skip = self.passed = 0
        self.waits_after_skip = False
        self.split: tuple[int, int] | None = None
        self.row = 0
        self.stop: int | float = math.inf
        self.places: tuple[int, int] = (1, 0)
        self._pass: Iterator[Any] | None = None

    def __iter__(self) -> Iterator[Any]:
        self.under_way.clear()
        self._pass = self._indices() if self.split is None else self._of_this_process(*self.split)
        return self._pass

    def _indices(self) -> Iterator[Any]:
        under_way, key, draws, position = self.under_way, self.key, self.draws, self.skip
        step, offset = self.places
        batches = _without_first(self.sampler, position)
        if self.waits_after_skip:
            yield None  # the batches are left out, and the first one is not drawn yet
        for indices in batches:
            known = isinstance(indices, (list, tuple)) and indices and indices[0] is not None
            under_way.append(indices if known else None)
            if position < self.passed:
                pass  # nobody reads them
            elif draws is None:
                indices = _for_worker(indices, (*key, position * step + offset))
            elif draws.drew is not False:
                draws.enter(position * step + offset)
            yield indices
            position += 1

    def _of_this_process(self, rank: int, size: int) -> Iterator[Any]:
        """Every ``size``-th batch, for one of ``size`` processes that all draw the same.

        A group, which is what they take together, is drawn at once, so that each knows of the batches of the others:
        :attr:`under_way` has ``(is its own, places, samples)`` for every batch of all.
        """
        key, draws, position = self.key, self.draws, self.skip
        batches = _without_first(self.sampler, position)
        if not draws_at_once(self.sampler):
            batches = _with_numbers_of_its_own(batches)
        if self.waits_after_skip:
            yield None
        first = self.row % size
        while True:
            wanted = min(size - first, self.stop - position)
            group = list(islice(batches, int(wanted)))
            for place, indices in enumerate(group, first):
                known = isinstance(indices, (list, tuple)) and indices and indices[0] is not None
                self.under_way.append((place == rank, indices if known else None, _length(indices)))
            if first <= rank < first + len(group):
                own, place = group[rank - first], position + rank - first
                if place < self.passed:
                    pass
                elif draws is None:
                    own = _for_worker(own, (*key, place))
                elif draws.drew is not False:
                    draws.enter(place)
                yield own
            position += len(group)
            if len(group) < size - first:
                return
            first = 0

    @property
    def is_in_use(self) -> bool:
        """The loader asks this stream, and no one that it kept from before."""
        return self._pass is not None

    def leave_out(self) -> bool:
        """Leave out the batches of :attr:`skip` now; False if nobody has begun a pass."""
        if self._pass is None:
            return False
        next(self._pass, None)
        return True

    def begin_pass(
        self, key: tuple[int | str, ...], draws: OwnDraws | None, skip: int, waits: bool, passed: int
    ) -> None:
        """Set what the next ``iter()`` gives."""
        self.key, self.draws, self.skip, self.waits_after_skip = key, draws, skip, waits and skip > 0
        self.passed = passed
        self._pass = None
        self.under_way.clear()

    def __len__(self) -> int:
        return len(self.sampler)

    def __getattr__(self, name: str) -> Any:
        if name in ("sampler", "under_way"):
            raise AttributeError(name)  # not there yet while being unpickled
        return getattr(self.sampler, name)

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_pass": None}


def _without_first(sampler: Any, skip: int) -> Iterator[Any]:
    """What ``sampler`` gives after the first ``skip``, which are drawn now."""
    if skip and type(sampler) is BatchSampler:  # places need not be put into batches first, which takes longer
        places = iter(sampler.sampler)
        deque(islice(places, skip * sampler.batch_size), maxlen=0)
        return iter(BatchSampler(places, sampler.batch_size, sampler.drop_last))  # type: ignore[arg-type]
    batches = iter(sampler)
    deque(islice(batches, skip), maxlen=0)
    return batches


def _with_numbers_of_its_own(batches: Iterator[Any]) -> Iterator[Any]:
    """The same, for a sampler that may draw random numbers until its end: after the first batch it goes on with those
    that followed then, which all processes have in common, whatever each has drawn since.
    """
    for first in islice(batches, 1):
        random = collect_rng_states(include_cuda=False)
        yield first
        while True:
            outer = collect_rng_states(include_cuda=False)
            restore_rng_states(random)
            try:
                batch = next(batches)
            except StopIteration:
                return
            finally:
                random = collect_rng_states(include_cuda=False)
                restore_rng_states(outer)
            yield batch


#: torch's own samplers, which draw whatever is random before they give the first place
_AT_ONCE = (SequentialSampler, RandomSampler, SubsetRandomSampler, WeightedRandomSampler)


def draws_at_once(sampler: Any) -> bool:
    """Whether a sampler draws all its random numbers (but those of its own generator) before its first batch."""
    return type(sampler.sampler if type(sampler) is BatchSampler else sampler) in _AT_ONCE


def is_sequential(sampler: Any) -> bool:
    """Whether a sampler draws no random numbers at all."""
    return type(sampler.sampler if type(sampler) is BatchSampler else sampler) is SequentialSampler


def _length(indices: Any) -> int | None:
    """How many samples a batch has; None if it is not a list of their places."""
    return len(indices) if hasattr(indices, "__len__") and not isinstance(indices, (str, dict)) else None


def samplers_of(loader: Any) -> list[Any]:
    """The samplers of a loader, each once, the outer ones first."""
    found: list[Any] = []
    for sampler in (getattr(loader, "batch_sampler", None), getattr(loader, "sampler", None)):
        while sampler is not None and not any(sampler is one for one in found):
            found.append(sampler)
            sampler = getattr(sampler, "sampler", None)
    return found
