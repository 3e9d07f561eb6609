"""Which batches of a loader are this process's, in a loop that its user writes."""

from __future__ import annotations

import math
from collections.abc import Iterator
from itertools import count
from typing import TYPE_CHECKING, Any

from fulmen.trainer.data import seed_of_this_moment
from fulmen.trainer.sharding import agree
from fulmen.trainer.shares import MISSING, Share, groups
from fulmen.trainer.sources import Source
from fulmen.trainer.streams import samplers_of
from fulmen.utilities.exceptions import MisconfigurationException
from fulmen.utilities.text import a_kind

if TYPE_CHECKING:
    from fulmen.strategies.strategy import Strategy

_HOOK = "fabric.setup_dataloaders"
_numbers = count()


class Batches:
    """The batches of a user's loader, which is not changed. Samplers that shuffle by epoch are told which pass it is.

    Args:
        loader: the loader, or any iterable.
    """

    def __init__(self, loader: Any) -> None:
        self.loader = loader
        self.passes = 0

    def __len__(self) -> int:
        return len(self.loader)

    def __iter__(self) -> Iterator[Any]:
        for sampler in samplers_of(self.loader):
            tell = getattr(sampler, "set_epoch", None)
            if callable(tell):
                tell(self.passes)
        self.passes += 1
        return iter(self.loader)


class SharedBatches(Batches):
    """Those of a process of several: of each group of as many batches as there are processes, each takes one.

    All get the same number, as they go backward together: where the last group has too few, those without a batch get
    the one again that they had before.
    """

    def __init__(self, source: Source, seed: int) -> None:
        super().__init__(source.loader)
        self._source = source
        self._key = (seed, "fabric", next(_numbers))

    def __len__(self) -> int:
        rows = self._source.num_rows
        if math.isinf(rows):
            raise TypeError(f"{a_kind(self.loader)} has no length")
        return math.ceil(rows / self._source.share.size)

    def __iter__(self) -> Iterator[Any]:
        source = self._source
        source.begin_epoch(self.passes, (*self._key, self.passes))
        self.passes += 1
        before: Any = MISSING
        for batch, _, _ in groups(iter(source), source.share, [source], MISSING):
            if batch is MISSING and before is MISSING:
                raise MisconfigurationException(
                    f"{a_kind(self.loader)} has fewer batches than there are processes ({source.share.size}), so that "
                    "this one has none. Write a smaller `batch_size`, or fewer `devices`."
                )
            before = before if batch is MISSING else batch
            yield before


def divided(loaders: list[Any], strategy: Strategy) -> list[Batches]:
    """The batches of each loader that are this process's; to be called on all processes with the same loaders.

    A loader whose user has divided it, by a sampler or a data set that knows its rank, gives all of its batches.
    """
    share = Share(strategy)
    if share.size == 1:
        return [Batches(loader) for loader in loaders]
    sources = [Source(loader, share=share) for loader in loaders]
    agree(sources, share, _HOOK, user_shards=False, in_order=False)
    seed = share.broadcast(seed_of_this_moment())
    return [
        Batches(source.loader) if source.is_sharded and not source.splits_as_workers else SharedBatches(source, seed)
        for source in sources
    ]
