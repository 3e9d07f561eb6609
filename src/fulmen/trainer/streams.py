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

from fulmen.utilities.seed import collect_rng_states, restore_rng_states, seed_host_generators


class OwnDraws:
    """Random numbers for a data set that is read in this process, apart from those of the model.

    Whether the data set draws any at all is seen at the first batch; if it does not, nothing is done from then on.

    Args:
        key: what the numbers depend on, besides the position of the batch.
        drew: whether the data set draws random numbers; None: that is not known yet.
    """

    def __init__(self, key: tuple[int | str, ...], drew: bool | None = None) -> None:
        self.key = key
        self.drew = drew
        self._outer: dict[str, Any] | None = None
        self._seeded: dict[str, Any] = {}

    def enter(self, position: int) -> None:
        """A batch is about to be read: from here on random numbers are those of its position."""
        if self._outer is not None:
            return
        self._outer = collect_rng_states(include_cuda=False)
        seed_host_generators(*self.key, position)
        if self.drew is None:
            self._seeded = collect_rng_states(include_cuda=False)

    def leave(self) -> None:
        """The batch is there, or could not be read: the others get their random numbers back."""
        if self._outer is None:
            return
        if self.drew is None and self._seeded:  # else Ctrl-C came before anything was read
            self.drew = not _same(self._seeded, collect_rng_states(include_cuda=False))
        restore_rng_states(self._outer)
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
        """The same where :class:`Indices` say when the reading of a batch begins, as their sampler may draw, too."""
        while self.drew is not False:
            try:
                batch = next(batches)
            except StopIteration:
                return
            finally:
                self.leave()
            yield batch
        yield from batches


def _same(one: dict[str, Any], other: dict[str, Any]) -> bool:
    return torch.equal(one["torch"], other["torch"]) and all(
        one[name] == other[name] for name in one if name != "torch"
    )


class Indices(list[Any]):
    """The places of the samples of one batch; whoever goes through them first gets the random numbers of this batch.

    It is what a worker is sent, and so the one thing that can tell it which batch it is about to read.
    """

    key: tuple[int | str, ...]
    position: int
    draws: OwnDraws | None = (
        None  #: in the process of the run; None in a worker, which has its random numbers for itself
    )

    def __iter__(self) -> Iterator[Any]:
        if self.draws is not None:
            self.draws.enter(self.position)
        else:
            seed_host_generators(*self.key, self.position)
        return super().__iter__()

    def __reduce__(self) -> Any:
        return _indices, (self[:], self.key, self.position)  # a slice is a plain list, and nobody goes through it


def _indices(places: list[Any], key: tuple[int | str, ...], position: int, draws: OwnDraws | None = None) -> Indices:
    indices = Indices(places)
    indices.key, indices.position, indices.draws = key, position, draws
    return indices


class IndexStream:
    """A sampler that remembers which indices it gave out until their batch arrives, and can begin in the middle.

    All else is the sampler's.

    Attributes:
        sampler: the user's sampler, or batch sampler.
        under_way: the places of the samples of each batch that is still to come; None in it where they are unknown.
        key: what the random numbers of the data set depend on, besides the position of the batch.
        draws: takes care of them in this process; None if workers read.
        skip: batches that the next pass leaves out.
        waits_after_skip: stop when they are left out until the first batch is wanted: see :meth:`leave_out`.
    """

    def __init__(self, sampler: Any) -> None:
        self.sampler = sampler
        self.under_way: deque[Any] = deque()
        self.key: tuple[int | str, ...] = ()
        self.draws: OwnDraws | None = None
        self.skip = 0
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
            if type(indices) is not list:  # of a sampler with a way of its own
                under_way.append(indices if isinstance(indices, (list, tuple)) else None)
                yield indices
            else:
                under_way.append(indices if indices and indices[0] is not None else None)
                yield indices if draws is not None and draws.drew is False else _indices(indices, key, position, draws)
            position += 1

    def leave_out(self) -> bool:
        """Leave out the batches of :attr:`skip` now; False if nobody has begun a pass."""
        if self._pass is None:
            return False
        next(self._pass, None)
        return True

    def begin_pass(self, key: tuple[int | str, ...], draws: OwnDraws | None, skip: int, waits: bool) -> None:
        """Set what the next ``iter()`` gives."""
        self.key, self.draws, self.skip, self.waits_after_skip = key, draws, skip, waits and skip > 0
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


# -- generators of the user's own --------------------------------------------------------------------------------------


def generators_of(*owners: Any) -> list[Any]:
    """The random number generators that ``owners`` (loaders, samplers, data sets) keep as attributes, each once."""
    found: dict[int, Any] = {}
    for owner in owners:
        for value in getattr(owner, "__dict__", {}).values():
            if isinstance(value, (torch.Generator, random.Random)) or _is_of_numpy(value):
                found.setdefault(id(value), value)
    return list(found.values())


def samplers_of(loader: Any) -> list[Any]:
    """The samplers of a loader, each once, the outer ones first."""
    found: list[Any] = []
    for sampler in (getattr(loader, "batch_sampler", None), getattr(loader, "sampler", None)):
        while sampler is not None and not any(sampler is one for one in found):
            found.append(sampler)
            sampler = getattr(sampler, "sampler", None)
    return found


def _is_of_numpy(value: Any) -> bool:
    return type(value).__module__.startswith("numpy.random") and (
        hasattr(value, "bit_generator") or hasattr(value, "get_state")
    )


def generator_state(generator: Any) -> Any:
    """The state of a generator as plain data."""
    if isinstance(generator, torch.Generator):
        return generator.get_state()
    if isinstance(generator, random.Random):
        return generator.getstate()
    if hasattr(generator, "bit_generator"):
        return _plain(generator.bit_generator.state)
    return _plain(generator.get_state(legacy=False))  # numpy's RandomState


def set_generator_state(generator: Any, state: Any) -> None:
    """Put back what :func:`generator_state` gave."""
    if isinstance(generator, torch.Generator):
        generator.set_state(state)
    elif isinstance(generator, random.Random):
        version, words, gauss = state
        generator.setstate((version, tuple(words), gauss))
    elif hasattr(generator, "bit_generator"):
        generator.bit_generator.state = state
    else:
        generator.set_state(state)


def _plain(value: Any) -> Any:
    """The state of one of numpy's generators: a nest of dicts with numbers and arrays of them."""
    if isinstance(value, dict):
        return {name: _plain(part) for name, part in value.items()}
    return value.tolist() if hasattr(value, "tolist") else value
