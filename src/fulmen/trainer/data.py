"""The data of a run: where loaders come from, how many batches they give, in which order, and the way to the device.

A user's loader is never rebuilt. Its stream of indices is watched from outside (:class:`IndexStream`), so that the number
of samples in each batch and their places in the data set are known instead of guessed.
"""

from __future__ import annotations

import inspect
import math
import os
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from torch.utils.data import BatchSampler, DataLoader, Dataset, IterableDataset, RandomSampler, SequentialSampler

from fulmen.core.hooks import DataHooks
from fulmen.trainer.flags import LIMIT_NAMES, DataFlags
from fulmen.trainer.validation import check_dataloader_idx
from fulmen.utilities.apply_func import move_data_to_device
from fulmen.utilities.combined_loader import CombinedLoader
from fulmen.utilities.data import extract_batch_size
from fulmen.utilities.exceptions import MisconfigurationException, SIGTERMException
from fulmen.utilities.rank_zero import rank_zero_warn
from fulmen.utilities.text import a_kind, shown
from fulmen.utilities.warnings import PossibleUserWarning

if TYPE_CHECKING:
    from fulmen.core.module import LightningModule
    from fulmen.loops.progress import Progress

_LOADER_HOOKS = {
    "train": "train_dataloader",
    "validate": "val_dataloader",
    "test": "test_dataloader",
    "predict": "predict_dataloader",
}


class IndexStream:
    """A batch sampler that remembers which indices it gave out, until their batch arrives. All else is the sampler's."""

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
    """

    def __init__(self, loader: Any, in_order: bool = False) -> None:
        self.loader = loader
        self.batch_indices: list[int] | None = None
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

    def __len__(self) -> int:
        length = self.num_batches
        if math.isinf(length):
            raise TypeError(f"{type(self.loader).__name__} has no length")
        return int(length)

    def set_epoch(self, epoch: int) -> None:
        """Tell samplers that shuffle by epoch which one it is."""
        samplers = [getattr(self.loader, "sampler", None)]
        samplers.append(getattr(getattr(self.loader, "batch_sampler", None), "sampler", None))
        for sampler in dict.fromkeys(id(s) for s in samplers if s is not None):
            target = next(s for s in samplers if id(s) == sampler)
            if callable(getattr(target, "set_epoch", None)):
                target.set_epoch(epoch)

    def __iter__(self) -> Iterator[Any]:
        stream = self._watch()
        if stream is None:
            self.batch_indices = None
            yield from self.loader
            return
        stream.under_way.clear()
        # the loader keeps the stream that stands in for its batch sampler when its iterator is made; a loader that makes
        # it late makes it before the first batch
        attributes = self.loader.__dict__
        own = attributes["batch_sampler"]
        attributes["batch_sampler"] = stream
        try:
            iterator = iter(self.loader)
            batch = next(iterator, _END)
        finally:
            attributes["batch_sampler"] = own
        while batch is not _END:
            self.batch_indices = stream.under_way.popleft() if stream.under_way else None
            yield batch
            batch = next(iterator, _END)

    def _batch_sampler(self) -> Any:
        """The loader's batch sampler, without shuffling if batches must come in order."""
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
        if loader.__dict__.get("batch_sampler") is None:  # batching is the data set's own business
            return None
        running = getattr(loader, "_iterator", None)  # of persistent workers, which keep the stream they began with
        if running is not None and isinstance(running._index_sampler, IndexStream):
            self._stream = running._index_sampler
        elif self._stream is None:
            self._stream = IndexStream(self._batch_sampler())
        return self._stream


_END: Any = object()


class Batches:
    """A list of batches, as one loader: a list by itself would be a list of loaders."""

    def __init__(self, batches: Sequence[Any]) -> None:
        self.batches = batches

    def __iter__(self) -> Iterator[Any]:
        return iter(self.batches)

    def __len__(self) -> int:
        return len(self.batches)


def _is_batches(given: Any) -> bool:
    """Whether a list holds batches instead of loaders: no tensor is a loader."""
    if not isinstance(given, (list, tuple)) or not given:
        return False
    first = given[0]
    return isinstance(first, Tensor) or (
        isinstance(first, (list, tuple)) and bool(first) and isinstance(first[0], Tensor)
    )


def _refuse_no_loader(source: str, given: Any) -> None:
    """Refuse what can be iterated over, or made into a loader, but is none."""
    if isinstance(given, type):
        raise TypeError(f"{source} gave {shown(given)} instead of an instance. Write `{given.__name__}(...)`.")
    if isinstance(given, (str, bytes, os.PathLike)):
        raise TypeError(f"{source} gave {shown(given)}, which is no loader. Read it, and give a DataLoader of what is there.")
    if inspect.isroutine(given):
        raise TypeError(f"{source} gave a function instead of what it returns. Write `{given.__name__}()`.")


def _shown_loaders(given: Any) -> str:
    members = given.values() if isinstance(given, dict) else given if isinstance(given, (list, tuple)) else None
    return shown(given) if members is None else f"{a_kind(given)} of {', '.join(map(shown, members))}"


def _refuse_used_up(loader: Any, hook: str, when: str) -> None:
    """A loader gave nothing: say so if that is because it can be iterated over only once."""
    try:
        once = iter(loader) is loader
    except TypeError:
        once = False
    if once:
        raise MisconfigurationException(
            f"`{hook}` gave {a_kind(loader)} that gives no batch {when}: it can be iterated over only once, and is used up. "
            "Give what starts anew each time: a DataLoader, a list, or an object with `__iter__`."
        )


def _returned(hook: str, batch: Any, result: Any) -> Any:
    """What the transfer hook ``hook`` made of a batch, checked that it is one."""
    if result is None and batch is not None:
        raise MisconfigurationException(f"`{hook}` returned None instead of a batch. Was `return batch` forgotten?")
    return result


@dataclass(slots=True)
class Loaders:
    """The loaders of one stage.

    Attributes:
        given: what the user returned or passed: a loader, any iterable, or a list, dict or nest of them.
        sources: its leaves.
        num_batches: how many batches each leaf gives, limits applied; ``inf`` when unknown.
        mode: how several are combined (:class:`CombinedLoader`).
        limits: the most batches to take from each leaf.
        hook: the hook that gives them.
    """

    given: Any
    sources: list[Source]
    num_batches: list[int | float]
    mode: str
    combined: CombinedLoader | None
    limits: list[int | float]
    hook: str = ""

    @property
    def several(self) -> bool:
        """More than one leaf, one after another: batches carry the number of their loader."""
        return self.mode == "sequential" and len(self.sources) > 1

    @property
    def total(self) -> int | float:
        """Batches of one pass, all leaves together."""
        if self.mode == "sequential":
            return sum(self.num_batches)
        if not self.num_batches:
            return 0
        return min(self.num_batches) if self.mode == "min_size" else max(self.num_batches)


class Data:
    """All loaders of one run, and the way of a batch from a loader to the device.

    Args:
        module: the module; owner of loaders that were not passed.
        datamodule: the datamodule, or None; its loaders come before the module's.
        given: loaders that were passed to the verb, by stage.
        flags: the limits.
        progress: the run's clock, moved on by :meth:`train_batches`.
        device: where batches go.
        convert_input: the precision plugin's change of a batch; None if it makes none.
        interrupted: says whether the process was asked to end.
        quiet: wraps a hook in which nothing can be logged.
        callbacks: those whose hooks get batches.
    """

    def __init__(
        self,
        module: LightningModule,
        datamodule: DataHooks | None,
        given: dict[str, Any],
        flags: DataFlags,
        progress: Progress,
        device: torch.device,
        convert_input: Callable[[Any], Any] | None,
        interrupted: Callable[[], bool],
        quiet: Callable[[str, Callable[..., Any]], Callable[..., Any]],
        callbacks: list[Any],
    ) -> None:
        self.module, self.datamodule, self.given, self.flags = module, datamodule, given, flags
        self.progress, self.device = progress, device
        self.loaders: dict[str, Loaders] = {}
        self.epoch_batch_indices: list[list[Any]] = []
        self._interrupted = interrupted
        self._convert_input = convert_input
        self._quiet = quiet
        self._callbacks = callbacks
        self._transfer = self._planned_transfer()
        self._epoch_of_load: dict[str, int] = {}
        self._batch: Any = None
        self._batch_size: int | None = None
        self._indices: list[int] | None = None

    # -- where loaders come from --------------------------------------------------------------------------------------

    def is_defined(self, stage: str) -> bool:
        """Whether loaders for ``stage`` were passed or can be asked for."""
        return self.given.get(stage) is not None or self._owner(_LOADER_HOOKS[stage]) is not None

    def _owner(self, hook: str) -> DataHooks | None:
        """Who wrote the data hook ``hook``; the datamodule is asked first."""
        for owner in (self.datamodule, self.module):
            method = getattr(owner, hook, None)
            if owner is not None and method is not None:
                if getattr(method, "__func__", method) is not getattr(DataHooks, hook, None):
                    return owner
        return None

    def request(self, stage: str) -> Loaders:
        """Ask for the loaders of ``stage``: once per run, or once in so many epochs."""
        every, epoch = self.flags.reload_dataloaders_every_n_epochs, self.progress.epoch
        is_old = every > 0 and epoch - self._epoch_of_load.get(stage, epoch) >= every
        if stage not in self.loaders or is_old:
            self._epoch_of_load[stage] = epoch
            hook = _LOADER_HOOKS[stage]
            given = self.given.get(stage)
            if given is None:
                owner = self._owner(hook)
                if owner is None:  # the empty body says what is missing, and where
                    owner = self.datamodule if self.datamodule is not None else self.module
                given = self._quiet(hook, getattr(owner, hook))()
            self.loaders[stage] = self._prepared(stage, given)
        return self.loaders[stage]

    def _prepared(self, stage: str, given: Any) -> Loaders:
        source = f"`{_LOADER_HOOKS[stage]}`"
        combined = given if isinstance(given, CombinedLoader) else None
        if combined is None:
            if given is None:
                raise TypeError(
                    f"{source} returned None: was `return` forgotten? "
                    "Return a DataLoader, any iterable, or a list or dict of them."
                )
            _refuse_no_loader(source, given)
            mode = "max_size_cycle" if stage == "train" else "sequential"
            try:
                combined = CombinedLoader(Batches(given) if _is_batches(given) else given, mode)  # type: ignore[arg-type]
            except (TypeError, ValueError, MisconfigurationException) as error:
                raise TypeError(
                    f"{source} gave {_shown_loaders(given)}, which cannot be iterated over. "
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
        in_order = self.flags.overfit_batches > 0 and stage in ("train", "validate")
        sources = [Source(leaf, in_order) for leaf in combined.flattened]
        for leaf in sources:
            self._advise(stage, leaf, in_order)
        limits = [self._limit(stage, leaf.num_batches) for leaf in sources]
        copy: CombinedLoader | None = None
        if len(sources) > 1 or (sources and combined.iterables is not combined.flattened[0]):
            copy = CombinedLoader(combined.iterables, combined.mode)
            copy.flattened = sources
            copy.limits = limits
        num_batches = [min(leaf.num_batches, limit) for leaf, limit in zip(sources, limits)]
        return Loaders(given, sources, num_batches, combined.mode, copy, limits, _LOADER_HOOKS[stage])

    def _advise(self, stage: str, source: Source, in_order: bool) -> None:
        if isinstance(source.loader, Dataset) and not isinstance(source.loader, IterableDataset):
            rank_zero_warn(
                f"`{_LOADER_HOOKS[stage]}` gave {a_kind(source.loader)}, which is a dataset: each sample would be a batch. "
                "Write `DataLoader(dataset, batch_size=...)`.",
                category=PossibleUserWarning,
            )
        sampler = getattr(source.loader, "sampler", None)
        if in_order and isinstance(sampler, RandomSampler):
            rank_zero_warn(
                f"`overfit_batches={self.flags.overfit_batches}` takes the same batches every time, so the shuffling of "
                f"the {stage} loader is switched off."
            )
        elif stage in ("validate", "test", "predict") and isinstance(sampler, RandomSampler):
            rank_zero_warn(
                f"the loader from `{_LOADER_HOOKS[stage]}` shuffles, which changes no result and makes batches hard to "
                "compare. Write `shuffle=False`.",
                category=PossibleUserWarning,
            )
        if source.num_batches == 0 and self._limit_of(stage) != 0:
            rank_zero_warn(f"a loader from `{_LOADER_HOOKS[stage]}` has no batches: its length is 0.")

    def _limit_of(self, stage: str) -> int | float:
        overfit = self.flags.overfit_batches
        if overfit > 0 and stage in ("train", "validate"):
            return overfit
        return self.flags.limits[stage]

    def _limit(self, stage: str, num_batches: int | float) -> int | float:
        limit = self._limit_of(stage)
        if isinstance(limit, int):
            return limit
        if limit == 1.0:
            return math.inf
        name = LIMIT_NAMES[stage] if not self.flags.overfit_batches else "overfit_batches"
        if limit == 0.0:
            return 0
        if math.isinf(num_batches):
            raise MisconfigurationException(
                f"`{name}={limit}` is a fraction, but the loader from `{_LOADER_HOOKS[stage]}` has no length to take a "
                f"fraction of. Give a number of batches, such as `{name}=100`."
            )
        batches = int(num_batches * limit)
        if batches == 0 and num_batches > 0:
            raise MisconfigurationException(
                f"`{name}={limit}` of {num_batches} batches is less than one batch. "
                f"Write at least `{name}={1 / num_batches:.3g}`, or a number of batches such as `{name}=1`."
            )
        return batches

    # -- training -----------------------------------------------------------------------------------------------------

    @property
    def num_training_batches(self) -> int | float:
        return self.loaders["train"].total if "train" in self.loaders else math.inf

    def start_epoch(self) -> None:
        """Ask for the loader anew if that is due, and tell the clock and the samplers which epoch begins."""
        loaders = self.request("train")
        for source in loaders.sources:
            source.set_epoch(self.progress.epoch)
        self.progress.start_epoch(loaders.total)

    def train_batches(self) -> Iterator[tuple[int, Any]]:
        """The batches of one epoch, on the device; moves the clock to each before it is given."""
        progress, loaders = self.progress, self.loaders["train"]
        if progress.done:  # somebody set `should_stop` when the epoch began
            return
        skip = progress.batches_done
        size_known = not math.isinf(loaders.total) and not any(math.isinf(s.num_batches) for s in loaders.sources)
        transfer = self._transfer
        for batch_idx, (batch, indices), is_last in self._counted(loaders, int(loaders.total) if size_known else None):
            if self._interrupted():
                raise SIGTERMException
            if batch_idx < skip:  # consumed before the run was interrupted
                continue
            self._batch, self._indices, self._batch_size = batch, indices, None
            progress.start_batch(batch_idx, is_last)
            if batch is None:
                rank_zero_warn("the training loader gave None instead of a batch: it is skipped.")
            yield batch_idx, transfer(batch, 0)
        self._batch = None
        if progress.batch_idx < 0 and progress.epoch > 0 and not size_known:
            for source in loaders.sources:
                _refuse_used_up(source.loader, _LOADER_HOOKS["train"], f"in epoch {progress.epoch}")

    def _counted(self, loaders: Loaders, size: int | None) -> Iterator[tuple[int, tuple[Any, Any], bool]]:
        """Each batch with its position and whether it is the last; without a length, by looking one batch ahead."""
        if size is not None:
            iterator = self._raw_batches(loaders)
            for batch_idx in range(size):
                batch = next(iterator, _END)
                if batch is _END:
                    rank_zero_warn(f"the training loader said that it has {size} batches, but ended after {batch_idx}.")
                    return
                yield batch_idx, batch, batch_idx + 1 == size
            return
        limit = loaders.total
        iterator = self._raw_batches(loaders)
        batch, batch_idx = next(iterator, _END) if limit > 0 else _END, 0
        while batch is not _END:
            following = next(iterator, _END) if batch_idx + 1 < limit else _END
            yield batch_idx, batch, following is _END
            batch, batch_idx = following, batch_idx + 1

    def _raw_batches(self, loaders: Loaders) -> Iterator[tuple[Any, list[int] | None]]:
        first = loaders.sources[0]
        if loaders.combined is None:
            for batch in first:
                yield batch, first.batch_indices
        else:
            for batch, _, _ in loaders.combined:
                yield batch, first.batch_indices

    # -- evaluation ---------------------------------------------------------------------------------------------------

    def evaluation_loaders(self, stage: str) -> Loaders:
        """The loaders of ``stage``; for the sanity check those of validation, with few batches."""
        of_validation = stage in ("validate", "sanity_check")
        if self._limit_of("validate" if of_validation else stage) == 0:
            return Loaders(None, [], [], "sequential", None, [])
        loaders = self.request("validate" if of_validation else stage)
        check_dataloader_idx(self.module, self._callbacks, stage, loaders.several)
        for source in loaders.sources:
            source.set_epoch(self.progress.epoch)
        if stage != "sanity_check":
            return loaders
        steps = self.flags.num_sanity_val_steps
        few = [min(n, math.inf if steps == -1 else steps) for n in loaders.num_batches]
        return replace(loaders, num_batches=few)

    def evaluation_batches(self, loaders: Loaders) -> Iterator[tuple[int, Any, int]]:
        """``(batch_idx, batch on the device, dataloader_idx)`` of all loaders."""
        self.epoch_batch_indices = [[] for _ in loaders.sources]
        transfer = self._transfer
        if loaders.mode != "sequential":
            assert loaders.combined is not None
            total = loaders.total
            for batch_idx, (batch, indices) in enumerate(self._raw_batches(loaders)):
                self._batch, self._indices, self._batch_size = batch, indices, None
                yield batch_idx, transfer(batch, 0), 0
                if batch_idx + 1 >= total:
                    break
            return
        for dataloader_idx, (source, limit) in enumerate(zip(loaders.sources, loaders.num_batches)):
            if limit == 0:
                continue
            batch_idx = -1
            for batch_idx, batch in enumerate(source):
                if self._interrupted():
                    raise SIGTERMException
                self._batch, self._indices, self._batch_size = batch, source.batch_indices, None
                self.epoch_batch_indices[dataloader_idx].append(source.batch_indices)
                yield batch_idx, transfer(batch, dataloader_idx), dataloader_idx
                if batch_idx + 1 >= limit:
                    break
            if batch_idx < 0:
                _refuse_used_up(source.loader, loaders.hook, "any more")
        self._batch = None

    # -- the batch ----------------------------------------------------------------------------------------------------

    @property
    def batch_indices(self) -> list[int] | None:
        """The places of the current batch's samples in the data set; None when they cannot be known."""
        return list(self._indices) if self._indices is not None else None

    def batch_size(self) -> int:
        """Samples in the current batch: what the index stream gave out, or else the length of its first tensor.

        Raises:
            MisconfigurationException: the batch has no tensor.
        """
        if self._batch_size is None:
            try:
                self._batch_size = len(self._indices) if self._indices is not None else extract_batch_size(self._batch)
            except TypeError:  # a sampler that gives something else than lists of indices
                self._batch_size = extract_batch_size(self._batch)
        return self._batch_size

    def _planned_transfer(self) -> Callable[[Any, int], Any]:
        """The way to the device, with the hooks that somebody wrote."""
        device, convert = self.device, self._convert_input
        before, move, after = (
            self._quiet(name, getattr(owner, name)) if owner is not None else None
            for name in ("on_before_batch_transfer", "transfer_batch_to_device", "on_after_batch_transfer")
            for owner in (self._owner(name),)
        )
        if before is move is after is convert is None:
            if device.type == "cpu" and torch.accelerator.current_accelerator() is None:
                return lambda batch, dataloader_idx: batch  # there is no other device that a batch could come from
            return lambda batch, dataloader_idx: move_data_to_device(batch, device)

        def transfer(batch: Any, dataloader_idx: int) -> Any:
            if convert is not None:
                batch = convert(batch)
            if before is not None:
                batch = _returned("on_before_batch_transfer", batch, before(batch, dataloader_idx))
            if move is not None:
                batch = _returned("transfer_batch_to_device", batch, move(batch, device, dataloader_idx))
            else:
                batch = move_data_to_device(batch, device)
            return batch if after is None else _returned("on_after_batch_transfer", batch, after(batch, dataloader_idx))

        return transfer

    def close(self) -> None:
        """Let go of the batch; loaders stay to be looked at."""
        self._batch = self._indices = None
