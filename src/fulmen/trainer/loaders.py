"""The loaders of a stage, as their user gave them: checked, counted and limited."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

from torch.utils.data import Dataset, IterableDataset, RandomSampler

from fulmen.trainer.flags import LIMIT_NAMES, DataFlags
from fulmen.trainer.shares import Share
from fulmen.trainer.sources import Batches, Source, is_batches, refuse_no_loader, shown_loaders
from fulmen.utilities.combined_loader import CombinedLoader
from fulmen.utilities.data import has_iterable_dataset
from fulmen.utilities.exceptions import MisconfigurationException
from fulmen.utilities.rank_zero import rank_zero_warn
from fulmen.utilities.text import a_kind, shown
from fulmen.utilities.warnings import PossibleUserWarning

#: which hook gives the loaders of a stage
LOADER_HOOKS = {
    "train": "train_dataloader",
    "validate": "val_dataloader",
    "test": "test_dataloader",
    "predict": "predict_dataloader",
}


@dataclass(slots=True)
class Loaders:
    """The loaders of one stage.

    Attributes:
        given: what the user returned or passed: a loader, any iterable, or a list, dict or nest of them.
        sources: its leaves.
        num_batches: how many batches each leaf gives to each process, limits applied; ``inf`` when unknown.
        mode: how several are combined (:class:`CombinedLoader`).
        rows: the same for all processes together.
        hook: the hook that gives them.
    """

    given: Any
    sources: list[Source]
    num_batches: list[int | float]
    mode: str
    combined: CombinedLoader | None
    rows: list[int | float]
    hook: str = ""

    @property
    def several(self) -> bool:
        """More than one leaf, one after another: batches carry the number of their loader."""
        return self.mode == "sequential" and len(self.sources) > 1

    @property
    def total(self) -> int | float:
        """Batches of one pass, all leaves together, for each process."""
        return self._together(self.num_batches)

    @property
    def num_rows(self) -> int | float:
        """The same, for all processes together."""
        return self._together(self.rows)

    def _together(self, numbers: list[int | float]) -> int | float:
        if self.mode == "sequential":
            return sum(numbers)
        if not numbers:
            return 0
        return min(numbers) if self.mode == "min_size" else max(numbers)


def prepared(stage: str, given: Any, flags: DataFlags, share: Share, user_shards: bool) -> Loaders:
    """The loaders of ``stage``, as the user gave them.

    Args:
        flags: the limits.
        share: which share of the data is this process's.
        user_shards: the user divides the data among the processes.
    """
    source = f"`{LOADER_HOOKS[stage]}`"
    combined = given if isinstance(given, CombinedLoader) else None
    if combined is None:
        if given is None:
            raise TypeError(
                f"{source} returned None: was `return` forgotten? "
                "Return a DataLoader, any iterable, or a list or dict of them."
            )
        refuse_no_loader(source, given)
        mode = "max_size_cycle" if stage == "train" else "sequential"
        try:
            combined = CombinedLoader(Batches(given) if is_batches(given) else given, mode)  # type: ignore[arg-type]
        except (TypeError, ValueError, MisconfigurationException) as error:
            raise TypeError(
                f"{source} gave {shown_loaders(given)}, which cannot be iterated over. "
                "Give a DataLoader, any iterable, or a list or dict of them."
            ) from error
        if stage == "train" and not combined.flattened:
            rank_zero_warn(f"{source} gave {shown(given)} of loaders: there is nothing to train on.")
    if stage == "train" and combined.mode == "sequential":
        raise ValueError(
            "`fit` cannot train on `CombinedLoader(..., mode='sequential')`: an epoch has no order of loaders. "
            "Use the mode 'min_size', 'max_size' or 'max_size_cycle'."
        )
    if stage == "predict" and combined.mode != "sequential":
        raise ValueError(
            f"`predict` cannot use `CombinedLoader(..., mode={combined.mode!r})`. "
            "Use the mode 'sequential', or pass a list."
        )
    in_order = _in_order(stage, flags)
    sources = [Source(leaf, in_order, share) for leaf in combined.flattened]
    if share.size > 1:
        from fulmen.trainer.sharding import agree

        agree(sources, share, LOADER_HOOKS[stage], user_shards, stage == "predict")
    for leaf in sources:
        _advise(stage, leaf, flags)
    limits = [_limit(stage, leaf.num_rows, flags, share.size) for leaf in sources]
    copy: CombinedLoader | None = None
    if len(sources) > 1 or (sources and combined.iterables is not combined.flattened[0]):
        copy = CombinedLoader(combined.iterables, combined.mode)
        copy.flattened = sources
    if copy is not None or share.size > 1:
        for leaf, limit in zip(sources, limits):
            leaf.limit = limit
    rows = [min(leaf.num_rows, limit) for leaf, limit in zip(sources, limits)]
    num_batches = [of_each(number, share.size) for number in rows]
    return Loaders(given, sources, num_batches, combined.mode, copy, rows, LOADER_HOOKS[stage])


def of_each(rows: int | float, size: int) -> int | float:
    """How many of so many batches each of ``size`` processes has; some may lack the last one."""
    return rows if math.isinf(rows) else math.ceil(rows / size)


def _in_order(stage: str, flags: DataFlags) -> bool:
    """The same batches are taken every time."""
    return flags.overfit_batches > 0 and stage in ("train", "validate")


def _advise(stage: str, source: Source, flags: DataFlags) -> None:
    if getattr(source.loader, "num_workers", 0) > 1 and has_iterable_dataset(source.loader):
        from fulmen.trainer.sharding import warn_of_copies

        warn_of_copies(source, LOADER_HOOKS[stage])
    if isinstance(source.loader, Dataset) and not isinstance(source.loader, IterableDataset):
        rank_zero_warn(
            f"`{LOADER_HOOKS[stage]}` gave {a_kind(source.loader)}, which is a dataset: each sample would be a "
            "batch. Write `DataLoader(dataset, batch_size=...)`.",
            category=PossibleUserWarning,
        )
    sampler = getattr(source.loader, "sampler", None)
    if _in_order(stage, flags) and isinstance(sampler, RandomSampler):
        rank_zero_warn(
            f"`overfit_batches={flags.overfit_batches}` takes the same batches every time, so the shuffling "
            f"of the {stage} loader is switched off."
        )
    elif stage in ("validate", "test", "predict") and isinstance(sampler, RandomSampler):
        rank_zero_warn(
            f"the loader from `{LOADER_HOOKS[stage]}` shuffles, which changes no result and makes batches hard to "
            "compare. Write `shuffle=False`.",
            category=PossibleUserWarning,
        )
    if source.num_batches == 0 and limit_of(stage, flags) != 0:
        rank_zero_warn(f"a loader from `{LOADER_HOOKS[stage]}` has no batches: its length is 0.")


def limit_of(stage: str, flags: DataFlags) -> int | float:
    """How much of a loader of ``stage`` is used: a number of batches, or a fraction of all."""
    overfit = flags.overfit_batches
    if overfit > 0 and stage in ("train", "validate"):
        return overfit
    return flags.limits[stage]


def _limit(stage: str, num_batches: int | float, flags: DataFlags, size: int) -> int | float:
    """The most batches to take, all processes together. A number of them is that of each process in training, and
    of all together where there are results: these are then the same with any number of processes.
    """
    limit = limit_of(stage, flags)
    per_process = stage == "train" or flags.overfit_batches > 0 or flags.is_trial
    times = size if per_process else 1
    if isinstance(limit, int):
        return limit * times
    if limit == 1.0:
        return math.inf
    name = LIMIT_NAMES[stage] if not flags.overfit_batches else "overfit_batches"
    if limit == 0.0:
        return 0
    if math.isinf(num_batches):
        raise MisconfigurationException(
            f"`{name}={limit}` is a fraction, but the loader from `{LOADER_HOOKS[stage]}` has no length to take a "
            f"fraction of. Give a number of batches, such as `{name}=100`."
        )
    num_batches = math.ceil(num_batches / times)
    batches = int(num_batches * limit)
    if batches == 0 and num_batches > 0:
        raise MisconfigurationException(
            f"`{name}={limit}` of {num_batches} batches is less than one batch. "
            f"Write at least `{name}={1 / num_batches:.3g}`, or a number of batches such as `{name}=1`."
        )
    return batches * times
