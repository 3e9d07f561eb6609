"""The share of the data that each process takes, and what the processes agree on for it.

All draw the same stream of batches. Of each *group* of as many batches as there are processes, the process with rank
``r`` takes batch ``r``. Nothing is padded, repeated or dropped, so that at the end some may have no batch in a group.
"""

from __future__ import annotations

import functools
from collections import deque
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from fulmen.utilities.data import extract_batch_size
from fulmen.utilities.exceptions import MisconfigurationException

if TYPE_CHECKING:
    from fulmen.strategies.strategy import Strategy
    from fulmen.trainer.sources import Source


class _Elsewhere:
    """The type of :data:`ELSEWHERE` and :data:`MISSING`."""

    def __init__(self, name: str) -> None:
        self._name = name

    def __repr__(self) -> str:
        return self._name


#: stands for a batch that another process has
ELSEWHERE: Any = _Elsewhere("ELSEWHERE")
#: stands for a batch that nobody has: the shard of a process has ended before those of others
MISSING: Any = _Elsewhere("MISSING")

_END: Any = object()
_UNKNOWN, _NONE = -2, -1  # as a number of samples


class Share:
    """Which of the processes that share the data this one is, and how they talk.

    Args:
        strategy: knows them. None: there is one alone.
    """

    def __init__(self, strategy: Strategy | None = None) -> None:
        self._strategy = strategy

    @functools.cached_property
    def rank(self) -> int:
        """Which share is taken here, from 0."""
        return 0 if self._strategy is None else self._strategy.data_parallel_rank

    @functools.cached_property
    def size(self) -> int:
        """How many shares there are."""
        return 1 if self._strategy is None else self._strategy.data_parallel_size

    @functools.cached_property
    def global_rank(self) -> int:
        """The rank of this process in the whole job."""
        return 0 if self._strategy is None else self._strategy.global_rank

    def gather(self, obj: Any) -> list[Any]:
        """The objects of all shares, by rank; to be called by all."""
        if self._strategy is None or self._strategy.world_size == 1:
            return [obj]
        if self.size == self._strategy.world_size:
            return self._strategy.gather_objects(obj)
        by_rank: dict[int, Any] = {}
        for rank, theirs in self._strategy.gather_objects((self.rank, obj)):
            by_rank.setdefault(rank, theirs)  # several work on one share, and have the same
        return [by_rank[rank] for rank in range(self.size)]

    def gather_number(self, number: int) -> list[int]:
        """The numbers of all shares, by rank: as :meth:`gather`, and faster."""
        strategy = self._strategy
        if strategy is None or self.size != strategy.world_size or self.size == 1:
            return self.gather(number)
        return strategy.all_gather(torch.tensor([number], device=strategy.root_device)).flatten().tolist()

    def all_gather(self, tensor: Tensor, group: Any = None) -> Tensor:
        """The tensors of all shares, or of the processes of ``group``, stacked."""
        assert self._strategy is not None
        every = self._strategy.all_gather(tensor, group)
        copies = len(every) // self.size if group is None else 1  # several work on one share, and have the same
        if copies < 2:
            return every
        ranks = self.gather_ranks
        return every[[ranks.index(rank) for rank in range(self.size)]]

    @functools.cached_property
    def gather_ranks(self) -> list[int]:
        """The share of each process of the job; to be asked for by all."""
        assert self._strategy is not None
        return self._strategy.gather_objects(self.rank)

    def broadcast(self, obj: Any) -> Any:
        """The object of the first process, on all."""
        return obj if self._strategy is None or self._strategy.world_size == 1 else self._strategy.broadcast(obj)


# -- one pass over a source, all processes together --------------------------------------------------------------------

_Row = tuple[Any, Any, "int | None"]  # a batch, the places of its samples, and how many they are


def rows(source: Source) -> Iterator[Any]:
    """All batches of a pass, in order: those of this process, and for the others :data:`ELSEWHERE` or :data:`MISSING`.

    What is known of each is in ``source.batch_indices`` and ``source.size``.
    """
    if source.limit == 0:
        return
    for batch, indices, size in _of_own_shard(source) if source.is_sharded else _of_common_stream(source):
        source.batch_indices, source.size = indices, size
        source.position_in_pass += 1
        source.row += 1
        yield batch
    source.has_ended_a_pass = True


def _of_common_stream(source: Source) -> Iterator[_Row]:
    batches = source.open()
    if not source.is_split:
        yield from _of_whole_stream(source, batches)
        return
    known = source.under_way
    assert known is not None
    ahead: deque[Any] = deque()
    while source.position_in_pass < source.limit:
        if not known:  # the next batch of this process makes the group known that it is in
            batch = next(batches, _END)
            if batch is not _END:
                ahead.append(batch)
            if not known:
                return
        is_own, indices, size = known.popleft()
        if is_own:
            batch = ahead.popleft() if ahead else next(batches, MISSING)
            yield batch, indices, size if batch is not MISSING else 0
        else:
            yield ELSEWHERE, None, size


def _of_whole_stream(source: Source, batches: Iterator[Any]) -> Iterator[_Row]:
    """Where only the loader itself knows its order, every process reads everything."""
    share, under_way = source.share, source.under_way
    while source.position_in_pass < source.limit:
        batch = next(batches, _END)
        if batch is _END:
            return
        indices = under_way.popleft() if under_way else None
        if source.row % share.size == share.rank:
            yield batch, indices, size_of(batch, indices)
        else:
            yield ELSEWHERE, None, size_of(batch, indices)


def _of_own_shard(source: Source) -> Iterator[_Row]:
    """Each process has a loader of its own: they go on until the last has ended."""
    share, lengths = source.share, source.lengths
    batches, under_way = source.open(), source.under_way
    taken = source.position_in_pass // share.size
    while source.position_in_pass < source.limit:
        if lengths is not None and taken >= max(lengths):
            return
        batch = next(batches, MISSING) if lengths is None or taken < lengths[share.rank] else MISSING
        indices = under_way.popleft() if under_way and batch is not MISSING else None
        own = _NONE
        if batch is not MISSING:
            size = size_of(batch, indices)
            own = _UNKNOWN if size is None else size
        if lengths is None:
            numbers = share.gather_number(own)
            if all(number == _NONE for number in numbers):
                return
        else:
            numbers = [
                _NONE if taken >= length else source.sizes_of(rank, taken) for rank, length in enumerate(lengths)
            ]
            numbers[share.rank] = own
        for rank, number in enumerate(numbers):
            size = None if number == _UNKNOWN else max(number, 0)
            if rank == share.rank:
                yield batch, indices, size
            else:
                yield (MISSING if number == _NONE else ELSEWHERE), None, size
        taken += 1


def size_of(batch: Any, indices: Any) -> int | None:
    """How many samples a batch has; None if it does not tell."""
    if indices is not None:
        return len(indices)
    try:
        return extract_batch_size(batch)
    except MisconfigurationException:
        return None


# -- groups ------------------------------------------------------------------------------------------------------------


def groups(
    batches: Iterator[Any], share: Share, sources: list[Source], absent: Any
) -> Iterator[tuple[Any, Any, tuple[int | None, ...]]]:
    """What one step takes: the batch of this process (or ``absent``), the places of its samples, and the sizes of the
    batches of all processes, by rank.

    Args:
        batches: the rows of one pass, from one source or several.
        sources: those; the first tells of the samples.
    """
    first, one_alone = sources[0], len(sources) == 1
    while True:
        own, indices, sizes = absent, None, []
        for rank in range(share.size):
            row = next(batches, _END)
            if row is _END:
                break
            sizes.append(first.size)
            if rank == share.rank and row is not MISSING and (one_alone or not _lacks_a_batch(row)):
                own, indices = row, first.batch_indices
        if not sizes:
            return
        yield own, indices, (*sizes, *[0] * (share.size - len(sizes)))
        if len(sizes) < share.size:
            return


def _lacks_a_batch(row: Any) -> bool:
    """Whether one of several loaders has no batch here for this process."""
    if isinstance(row, dict):
        row = list(row.values())
    if isinstance(row, (list, tuple)):
        return any(map(_lacks_a_batch, row))
    return row is MISSING


# -- the order ---------------------------------------------------------------------------------------------------------


def in_common_order(gathered: list[list[Any]]) -> list[Any]:
    """What the processes made of their batches, in the order of one process.

    Args:
        gathered: of each process, a list with an item for each of its batches; those at the end may be shorter.
    """
    longest = max(map(len, gathered), default=0)
    return [items[place] for place in range(longest) for items in gathered if place < len(items)]
