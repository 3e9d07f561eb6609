"""In which order a loader gives its samples, and which random numbers they are made with.

Both are a function of the seed, the epoch and the position of the batch. A loader can thus be opened in the middle, by
drawing indices and reading nothing, and gives the same samples with any number of workers.
"""

from __future__ import annotations

import random
from collections import deque
from collections.abc import Iterator
from itertools import islice
from typing import Any

import torch

from fulmen.utilities.seed import seed_host_generators


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
        self._outer: tuple[Any, ...] | None = None
        self._seeded: tuple[Any, ...] = ()

    def enter(self, position: int) -> None:
        """A batch is about to be read: from here on random numbers are those of its position."""
        if self._outer is None:
            self._outer = _states()
        elif self.drew is None:  # a loader that reads several batches at once
            self.drew = _differ(self._seeded, _states()) or None
        seed_host_generators(*self.key, position)
        if self.drew is None:
            self._seeded = _states()

    def leave(self) -> None:
        """The batch is there, or could not be read: the others get their random numbers back."""
        if self._outer is None:
            return
        if self.drew is None and self._seeded:  # else Ctrl-C came before anything was read
            self.drew = _differ(self._seeded, _states())
        _restore(self._outer)
        self._outer = None

    def read(self, batches: Iterator[Any], position: int) -> Iterator[Any]:
        """The same batches, each read with random numbers of its own if the data set draws any."""
        while self.drew is not False:
            self.enter(position)
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


def _states() -> tuple[Any, ...]:
    """The generators of the host, as they give their states themselves: several times a batch, so no plain data."""
    import numpy.random

    return torch.get_rng_state(), random.getstate(), numpy.random.get_state(legacy=False)


def _restore(states: tuple[Any, ...]) -> None:
    import numpy.random

    torch.set_rng_state(states[0])
    random.setstate(states[1])
    numpy.random.set_state(states[2])


def _differ(one: tuple[Any, ...], other: tuple[Any, ...]) -> bool:
    if one[1] != other[1] or not torch.equal(one[0], other[0]):
        return True
    mine, theirs = one[2]["state"], other[2]["state"]
    return mine["pos"] != theirs["pos"] or not (mine["key"] == theirs["key"]).all()


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
    """

    def __init__(self, sampler: Any) -> None:
        self.sampler = sampler
        self.under_way: deque[Any] = deque()
        self.key: tuple[int | str, ...] = ()
        self.draws: OwnDraws | None = None
        self.skip = self.passed = 0
        self.waits_after_skip = False
        self._pass: Iterator[Any] | None = None

    def __iter__(self) -> Iterator[Any]:
        self.under_way.clear()
        self._pass = self._indices()
        return self._pass

    def _indices(self) -> Iterator[Any]:
        batches, under_way, key, draws = iter(self.sampler), self.under_way, self.key, self.draws
        position = self.skip
        deque(islice(batches, position), maxlen=0)
        if self.waits_after_skip:
            yield None  # the batches are left out, and the first one is not drawn yet
        for indices in batches:
            known = isinstance(indices, (list, tuple)) and indices and indices[0] is not None
            under_way.append(indices if known else None)
            if position < self.passed:
                pass  # nobody reads them
            elif draws is None:
                indices = _for_worker(indices, (*key, position))
            elif draws.drew is not False:
                draws.enter(position)
            yield indices
            position += 1

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


def samplers_of(loader: Any) -> list[Any]:
    """The samplers of a loader, each once, the outer ones first."""
    found: list[Any] = []
    for sampler in (getattr(loader, "batch_sampler", None), getattr(loader, "sampler", None)):
        while sampler is not None and not any(sampler is one for one in found):
            found.append(sampler)
            sampler = getattr(sampler, "sampler", None)
    return found
