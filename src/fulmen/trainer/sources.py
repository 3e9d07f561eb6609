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

from torch import Tensor
from torch.utils.data import BatchSampler, DataLoader, SequentialSampler

from fulmen.utilities.data import has_iterable_dataset
from fulmen.utilities.exceptions import MisconfigurationException
from fulmen.utilities.text import a_kind, shown


class IndexStream:
    """A batch sampler that remembers which indices it gave out until their batch arrives. All else is the sampler's."""

    def __init__(self, sampler: Any) -> None:
        self.sampler = sampler
        self.under_way: deque[Any] = deque()

    def __iter__(self) -> Iterator[Any]:
        self.under_way.clear()
        for indices in self.sampler:
            self.under_way.append(indices)
            yield indices

    def __len__(self) -> int:
        return len(self.sampler)

    def __getattr__(self, name: str) -> Any:
        if name in ("sampler", "under_way"):
            raise AttributeError(name)  # not there yet while being unpickled
        return getattr(self.sampler, name)


class Source:
    """One user's loader (or any iterable), with what is known of the batch it gave last.

    Attributes:
        loader: the user's object, untouched.
        batch_indices: the places of the last batch's samples in the data set; None when they cannot be known.
        under_way: the places of the samples of each batch that is still to come; None when they cannot be known.
    """

    def __init__(self, loader: Any, in_order: bool = False) -> None:
        self.loader = loader
        self.batch_indices: list[int] | None = None
        self.under_way: deque[Any] | None = None
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

    def set_epoch(self, epoch: int) -> None:
        """Tell samplers that shuffle by epoch which one it is."""
        sampler = getattr(self.loader, "sampler", None)
        of_batches = getattr(getattr(self.loader, "batch_sampler", None), "sampler", None)
        for one in (sampler,) if of_batches is sampler else (sampler, of_batches):
            tell = getattr(one, "set_epoch", None)
            if callable(tell):
                tell(epoch)

    def __iter__(self) -> Iterator[Any]:
        for batch in self.open():
            self.batch_indices = self.under_way.popleft() if self.under_way else None
            yield batch

    def open(self) -> Iterator[Any]:
        """Begin a pass. The indices of each batch are the next of :attr:`under_way`, to be taken by the caller."""
        stream = self._watch()
        self.batch_indices = None
        if stream is None:
            self.under_way = None
            return iter(self.loader)
        self.under_way = stream.under_way
        self.under_way.clear()
        # the loader keeps the stream that stands in for its batch sampler when its iterator is made; a loader that
        # makes it late makes it before the first batch
        attributes = self.loader.__dict__
        own = attributes["batch_sampler"]
        attributes["batch_sampler"] = stream
        try:
            batches = iter(self.loader)
            first = list(islice(batches, 1))
        finally:
            attributes["batch_sampler"] = own
        return chain(first, batches)

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

    def _batch_sampler(self) -> Any:
        """The loader's batch sampler, without shuffling if batches must come in order."""
        if has_iterable_dataset(self.loader):  # it is read in its own order, and only it knows how far a batch goes
            return None
        sampler = self.loader.__dict__.get("batch_sampler")
        if sampler is None or not self._in_order:
            return sampler
        inner = getattr(sampler, "sampler", None)
        if isinstance(inner, SequentialSampler) or type(sampler) is not BatchSampler:
            return sampler
        return BatchSampler(SequentialSampler(self.loader.dataset), sampler.batch_size, sampler.drop_last)

    def _watch(self) -> IndexStream | None:
        loader = self.loader
        if not isinstance(loader, DataLoader) or not getattr(loader, "in_order", True):
            return None
        if self._batch_sampler() is None:  # batching is the data set's own business
            return None
        running = getattr(loader, "_iterator", None)  # of persistent workers, which keep the stream they began with
        if running is not None and not self._draws_as_wanted(running):
            running = loader._iterator = None  # the workers of an `overfit_batches` run, or those from before it
        if running is not None and isinstance(running._index_sampler, IndexStream):
            self._stream = running._index_sampler
        elif self._stream is None:
            self._stream = IndexStream(self._batch_sampler())
        return self._stream

    def _draws_as_wanted(self, running: Any) -> bool:
        """Whether persistent workers, which keep the order that they began with, give the one that is asked for now."""
        sampler, own = running._index_sampler, self.loader.__dict__["batch_sampler"]
        if sampler is self._stream:
            return True
        sampler = sampler.sampler if isinstance(sampler, IndexStream) else sampler
        return sampler is own and self._batch_sampler() is own

    def close(self) -> None:
        """Give the loader back in the order that its user gave it."""
        if self._stream is None or self._stream.sampler is self.loader.__dict__.get("batch_sampler"):
            return
        if getattr(self.loader, "_iterator", None) is not None:
            self.loader._iterator = None


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
