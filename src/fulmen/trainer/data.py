"""The data of a run: where loaders come from, how many batches they give, in which order, and the way to the device.

A user's loader is never rebuilt. Its stream of indices is watched from outside (:class:`IndexStream`), so that the
number of samples in each batch and their places in the data set are known instead of guessed.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from itertools import chain, islice
from operator import itemgetter
from typing import TYPE_CHECKING, Any

import torch
from torch.utils.data import Dataset, IterableDataset, RandomSampler

from fulmen.core.hooks import DataHooks
from fulmen.loops.progress import ABSENT
from fulmen.trainer.flags import LIMIT_NAMES, DataFlags
from fulmen.trainer.sources import Batches, Source, is_batches, refuse_no_loader, refuse_used_up, shown_loaders
from fulmen.trainer.validation import check_dataloader_idx
from fulmen.utilities.apply_func import move_data_to_device
from fulmen.utilities.combined_loader import CombinedLoader
from fulmen.utilities.data import extract_batch_size
from fulmen.utilities.exceptions import MisconfigurationException
from fulmen.utilities.rank_zero import rank_zero_warn
from fulmen.utilities.seed import collect_rng_states, derive_seed, isolate_rng, restore_rng_states
from fulmen.utilities.text import a_kind, shown
from fulmen.utilities.warnings import PossibleUserWarning

if TYPE_CHECKING:
    from fulmen.core.module import LightningModule
    from fulmen.loops.progress import Progress
    from fulmen.profilers.profiler import Profiler
    from fulmen.trainer.signals import Signals

_LOADER_HOOKS = {
    "train": "train_dataloader",
    "validate": "val_dataloader",
    "test": "test_dataloader",
    "predict": "predict_dataloader",
}

_END: Any = object()


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
        signals: says whether the process was asked to end.
        quiet: wraps a hook in which nothing can be logged.
        callbacks: those whose hooks get batches.
        rank: the global rank of this process, which random numbers of the data depend on.
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
        signals: Signals,
        quiet: Callable[[str, Callable[..., Any]], Callable[..., Any]],
        callbacks: list[Any],
        rank: int = 0,
    ) -> None:
        self.module, self.datamodule, self.given, self.flags = module, datamodule, given, flags
        self.progress, self.device = progress, device
        self.loaders: dict[str, Loaders] = {}
        self.epoch_batch_indices: list[list[Any]] = []
        self._signals = signals
        self._convert_input = convert_input
        self.profiler: Profiler | None = None  #: what measures the wait for batches, if anything does
        self._quiet = quiet
        self._callbacks = callbacks
        self._transfer = self._planned_transfer()
        self._sources_in_training: list[Source] = []
        self.seed = _seed_of_this_moment()  #: what the random numbers of all data sets of this run depend on
        self._loads: dict[str, dict[str, Any]] = {}  # of each stage, when its loaders were asked for
        self._loads_before: dict[str, dict[str, Any]] = {}  # the same in the run that this one goes on with
        self._to_put_back: dict[str, Any] = {}  # the state of loaders that are not there yet
        self._rank = rank
        self.go_on: Callable[[], None] | None = None  #: brings a resumed run to where it was saved
        self.group_sizes: tuple[int | None, ...] | None = None
        self.ghost_batch: Any = ABSENT
        self.at_rest: dict[str, Any] | None = None  #: the state, of a run that is resumed at its very end
        self.moment: dict[str, Any] | None = None  #: what a checkpoint of this very moment has under ``"resume"``
        self._marks: list[dict[str, Any]] | None = None  #: where sources stood before the look at the next batch
        self._random: dict[str, Any] | None = None  # and the random numbers, where that look may open a pass
        self._batch: Any = None
        self._batch_size: int | None = None
        self._indices: list[int] | None = None

    # -- where loaders come from --------------------------------------------------------------------------------------

    def _owner(self, hook: str) -> DataHooks | None:
        """Who wrote the data hook ``hook``; the datamodule is asked first."""
        for owner in (self.datamodule, self.module):
            method = getattr(owner, hook, None)
            if owner is None or method is None:
                continue
            if getattr(method, "__func__", method) is not getattr(DataHooks, hook, None):
                return owner
        return None

    def request(self, stage: str) -> Loaders:
        """Ask for the loaders of ``stage``: once per run, or once in so many epochs."""
        every, epoch = self.flags.reload_dataloaders_every_n_epochs, self.progress.epoch
        if stage not in self.loaders or (every > 0 and epoch - self._loads[stage]["epoch"] >= every):
            given = self.given.get(stage)
            if given is None:
                given = self._asked_for(stage)
            else:
                self._loads[stage] = self._loads_before.pop(stage, {"epoch": epoch})
            self.loaders[stage] = self._prepared(stage, given)
            for source, mark in zip(self.loaders[stage].sources, self._to_put_back.pop(stage, ())):
                source.begin_with(mark, _LOADER_HOOKS[stage])
        return self.loaders[stage]

    def _asked_for(self, stage: str) -> Any:
        """What the user's hook gives; a run that goes on asks as the run before asked: with its epoch and its random
        numbers, which may have chosen the samples."""
        hook = _LOADER_HOOKS[stage]
        owner = self._owner(hook)
        if owner is None:  # the empty body says what is missing, and where
            owner = self.datamodule if self.datamodule is not None else self.module
        method = self._quiet(hook, getattr(owner, hook))
        before = self._loads_before.pop(stage, None)
        if before is None:
            self._loads[stage] = {"epoch": self.progress.epoch, "random": collect_rng_states(include_cuda=False)}
            return method()
        self._loads[stage] = before
        epoch = self.progress.epoch
        self.progress.epoch = before["epoch"]
        try:
            with isolate_rng():
                restore_rng_states(before["random"])
                return method()
        finally:
            self.progress.epoch = epoch

    def _prepared(self, stage: str, given: Any) -> Loaders:
        source = f"`{_LOADER_HOOKS[stage]}`"
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
        in_order = self.flags.overfit_batches > 0 and stage in ("train", "validate")
        sources = [Source(leaf, in_order) for leaf in combined.flattened]
        for number, leaf in enumerate(sources):
            leaf.key = (self.seed, self._rank, stage, number, self.progress.epoch)
        for leaf in sources:
            self._advise(stage, leaf, in_order)
        limits = [self._limit(stage, leaf.num_batches) for leaf in sources]
        copy: CombinedLoader | None = None
        if len(sources) > 1 or (sources and combined.iterables is not combined.flattened[0]):
            copy = CombinedLoader(combined.iterables, combined.mode)
            copy.flattened = sources
            for leaf, limit in zip(sources, limits):
                leaf.limit = limit
        num_batches = [min(leaf.num_batches, limit) for leaf, limit in zip(sources, limits)]
        return Loaders(given, sources, num_batches, combined.mode, copy, limits, _LOADER_HOOKS[stage])

    def _advise(self, stage: str, source: Source, in_order: bool) -> None:
        if isinstance(source.loader, Dataset) and not isinstance(source.loader, IterableDataset):
            rank_zero_warn(
                f"`{_LOADER_HOOKS[stage]}` gave {a_kind(source.loader)}, which is a dataset: each sample would be a "
                "batch. Write `DataLoader(dataset, batch_size=...)`.",
                category=PossibleUserWarning,
            )
        sampler = getattr(source.loader, "sampler", None)
        if in_order and isinstance(sampler, RandomSampler):
            rank_zero_warn(
                f"`overfit_batches={self.flags.overfit_batches}` takes the same batches every time, so the shuffling "
                f"of the {stage} loader is switched off."
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
        progress = self.progress
        if self.go_on is not None and not progress.in_epoch:
            self.go_on()
        self._marks = self._random = None
        loaders = self.request("train")
        for number, source in enumerate(loaders.sources):
            source.begin_epoch(progress.epoch, (self.seed, self._rank, "train", number, progress.epoch))
        progress.start_epoch(loaders.total)

    def train_batches(self) -> Iterator[tuple[int, Any]]:
        """The batches of one epoch, on the device; moves the clock to each before it is given."""
        progress, loaders = self.progress, self.loaders["train"]
        self._sources_in_training = loaders.sources
        if self.go_on is not None:
            self.go_on()
        if progress.done:  # a limit was reached before, or somebody set `should_stop` when the epoch began
            return
        transfer = self._transfer
        sized = not math.isinf(loaders.total) and all(source.keeps_its_word for source in loaders.sources)
        for batch_idx, batch, indices, is_last in self._sized(loaders) if sized else self._unsized(loaders):
            self._batch, self._indices, self._batch_size = batch, indices, None
            progress.start_batch(batch_idx, is_last)
            if batch is None:
                rank_zero_warn("the training loader gave None instead of a batch: it is skipped.")
            yield batch_idx, batch if transfer is None else transfer(batch, 0)
        self._batch = self._marks = self._random = None
        if progress.batch_idx < 0 and progress.epoch > 0 and math.isinf(loaders.total):
            for source in loaders.sources:
                refuse_used_up(source.loader, _LOADER_HOOKS["train"], f"in epoch {progress.epoch}")

    # -- where it stands ----------------------------------------------------------------------------------------------

    def state_dict(self) -> dict[str, Any]:
        """Where each training loader stands, and the generators of those that evaluate, as plain data."""
        stages = dict(self._to_put_back)
        for stage, loaders in self.loaders.items():
            marks = self._marks if stage == "train" and self._marks is not None else [None] * len(loaders.sources)
            if stage == "train" and loaders.combined is None and self._marks is None and loaders.sources:
                loaders.sources[0].position_in_pass = self.progress.batches_done
            stages[stage] = [source.state_dict(mark) for source, mark in zip(loaders.sources, marks)]
            for place, state in enumerate(sorted(stages[stage], key=itemgetter("opened")), 1):
                state["opened"] = state["opened"] and place  # the numbers of this process mean nothing to the next
        loads = self._loads_before | self._loads
        # not in the order in which this process asked for them
        state = {"seed": self.seed, "loads": dict(sorted(loads.items())), **dict(sorted(stages.items()))}
        return state if self._random is None else {**state, "random": self._random}

    def generators(self) -> list[Any]:
        """The random number generators of all loaders and their data sets."""
        return [one for loaders in self.loaders.values() for source in loaders.sources for one in source.generators()]

    def prepare(self, state: dict[str, Any] | None) -> None:
        """A run goes on: take what is needed before the loaders are asked for."""
        if state is not None:
            self.seed, self._loads_before = state["seed"], dict(state["loads"])

    def begin_with(self, state: dict[str, Any]) -> None:
        """Between two epochs: put back what the order of the next one depends on."""
        for stage, hook in _LOADER_HOOKS.items():
            if stage not in state:
                continue
            if stage not in self.loaders:
                self._to_put_back[stage] = state[stage]
                continue
            for source, mark in sorted(zip(self.loaders[stage].sources, state[stage]), key=_opening):
                source.begin_with(mark, hook)

    def seek(self, state: dict[str, Any] | None) -> None:
        """Open the training loaders in the middle of the epoch, where ``state`` says that they stood.

        Args:
            state: what :meth:`state_dict` gave; None if the file is another program's: then only the number of batches
                is known.
        """
        self.begin_with({stage: marks for stage, marks in (state or {}).items() if stage != "train"})
        hook, loaders, done = _LOADER_HOOKS["train"], self.loaders["train"], self.progress.batches_done
        marks = (state or {}).get("train")
        if marks is not None and len(marks) == len(loaders.sources):
            self._random = state.get("random") if state is not None else None
            # as they were opened, since they may draw from one generator
            for source, mark in sorted(zip(loaders.sources, marks), key=_opening):
                source.seek(mark, hook)
            return
        if marks is not None:
            rank_zero_warn(
                f"the checkpoint was made with {len(marks)} training loaders, and `{hook}` gives "
                f"{len(loaders.sources)} now: the epoch goes on at batch {done} of each. Give the same loaders, "
                "or begin a new run from the weights."
            )
        for source in loaders.sources:
            length = source.num_batches
            source.seek_batch(done if math.isinf(length) or not length else done % int(length), hook)

    def _sized(self, loaders: Loaders) -> Iterator[tuple[int, Any, Any, bool]]:
        """Each batch with its position, its indices, and whether it is the last."""
        size, done = int(loaders.total), self.progress.batches_done
        batch_idx = done - 1
        if done >= size and not loaders.sources[0].is_open:
            return
        batches, first = self._rows(loaders)
        under_way = first.under_way if loaders.combined is None else None  # else the source itself has taken them
        for batch_idx, batch in enumerate(islice(batches, size - done), done):
            yield batch_idx, batch, under_way.popleft() if under_way else first.batch_indices, batch_idx + 1 == size
        if loaders.combined is None:
            first.position_in_pass = batch_idx + 1
            if first.state_owner is not None and size == first.num_batches:
                next(batches, None)  # it is over only for those who ask
                first.has_ended_a_pass = True
        if batch_idx + 1 < size:
            rank_zero_warn(f"the training loader said that it has {size} batches, but ended after {batch_idx + 1}.")

    def _unsized(self, loaders: Loaders) -> Iterator[tuple[int, Any, Any, bool]]:
        """The same without a length: only a look at the batch that follows tells which is the last."""
        done = self.progress.batches_done
        batches, first = self._rows(loaders)
        if not math.isinf(loaders.total):
            batches = islice(batches, max(0, int(loaders.total) - done))
        under_way = first.under_way if loaders.combined is None else None  # else the source itself has taken them
        if self._random is not None:  # the run goes on from before such a look
            with isolate_rng():
                restore_rng_states(self._random)
                first_rows = list(islice(batches, 1))
            batches = chain(first_rows, batches)
        ahead: tuple[int, Any, Any] | None = None
        marks = random = None
        for batch_idx, batch in enumerate(batches, done):
            if ahead is not None:
                self._marks, self._random = marks, random
                yield *ahead, False
            ahead = batch_idx, batch, under_way.popleft() if under_way else first.batch_indices
            if loaders.combined is None:
                first.position_in_pass = batch_idx + 1
            else:
                random = collect_rng_states(include_cuda=False)
            marks = [source.mark() for source in loaders.sources]  # before the look ahead
        if ahead is not None:
            self._marks, self._random = marks, random
            yield *ahead, True
        first.has_ended_a_pass |= math.isinf(loaders.total)

    def _rows(self, loaders: Loaders) -> tuple[Iterator[Any], Source]:
        """The batches of one pass, and the source that tells their indices."""
        first = loaders.sources[0]
        batches = first.open() if loaders.combined is None else (row[0] for row in loaders.combined)
        return batches if self.profiler is None else self._measured(batches, loaders.hook), first

    def _measured(self, batches: Iterator[Any], hook: str) -> Iterator[Any]:
        """The same batches, with the time that it takes to get each."""
        assert self.profiler is not None
        action = f"[Data]{hook}.next"
        while True:
            with self.profiler.profile(action):
                batch = next(batches, _END)
            if batch is _END:
                return
            yield batch

    # -- evaluation ---------------------------------------------------------------------------------------------------

    def evaluation_loaders(self, stage: str) -> Loaders:
        """The loaders of ``stage``; for the sanity check those of validation, with few batches."""
        of_validation = stage in ("validate", "sanity_check")
        if self._limit_of("validate" if of_validation else stage) == 0:
            return Loaders(None, [], [], "sequential", None, [])
        loaders = self.request("validate" if of_validation else stage)
        check_dataloader_idx(self.module, self._callbacks, stage, loaders.several)
        progress = self.progress
        for number, source in enumerate(loaders.sources):
            moment = f"{progress.epoch}, {progress.total_batches}"
            source.begin_epoch(progress.epoch, (self.seed, self._rank, stage, number, moment))
            source.draws_apart = not self._sources_in_training and stage != "sanity_check"
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
            batches, first = self._rows(loaders)
            for batch_idx, batch in enumerate(batches):
                self._signals.end_evaluation_if_asked()
                self._batch, self._indices, self._batch_size = batch, first.batch_indices, None
                yield batch_idx, batch if transfer is None else transfer(batch, 0), 0
                if batch_idx + 1 >= total:
                    break
            return
        for dataloader_idx, (source, limit) in enumerate(zip(loaders.sources, loaders.num_batches)):
            if limit == 0:
                continue
            batch_idx = -1
            with source.apart_from(self._sources_in_training):
                for batch_idx, batch in enumerate(
                    source if self.profiler is None else self._measured(iter(source), loaders.hook)
                ):
                    self._signals.end_evaluation_if_asked()
                    self._batch, self._indices, self._batch_size = batch, source.batch_indices, None
                    self.epoch_batch_indices[dataloader_idx].append(source.batch_indices)
                    yield batch_idx, batch if transfer is None else transfer(batch, dataloader_idx), dataloader_idx
                    if batch_idx + 1 >= limit:
                        break
            if batch_idx < 0:
                refuse_used_up(source.loader, loaders.hook, "any more")
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

    def _planned_transfer(self) -> Callable[[Any, int], Any] | None:
        """The way to the device, with the hooks that somebody wrote; None if a batch is already there."""
        device, convert = self.device, self._convert_input
        before, move, after = (
            self._quiet(name, getattr(owner, name)) if owner is not None else None
            for name in ("on_before_batch_transfer", "transfer_batch_to_device", "on_after_batch_transfer")
            for owner in (self._owner(name),)
        )
        if before is move is after is convert is None:
            if device.type == "cpu" and torch.accelerator.current_accelerator() is None:
                return None  # there is no other device that a batch could come from
            return lambda batch, dataloader_idx: move_data_to_device(batch, device)

        def transfer(batch: Any, dataloader_idx: int) -> Any:
            if convert is not None:
                batch = convert(batch)
            given = batch
            if before is not None:
                batch = before(batch, dataloader_idx)
            if move is not None:
                batch = move(batch, device, dataloader_idx)
            else:
                batch = move_data_to_device(batch, device)
            if after is not None:
                batch = after(batch, dataloader_idx)
            if batch is None and given is not None:
                raise _no_batch_returned(before, move, after)
            return batch

        return transfer

    def close(self) -> None:
        """Let go of the batch; loaders stay to be looked at."""
        self._batch = self._indices = None
        for loaders in self.loaders.values():
            for source in loaders.sources:
                source.close()


def _opening(pair: tuple[Source, dict[str, Any]]) -> int:
    """When the source was opened that a mark is of, compared with others."""
    return pair[1]["opened"]


def _seed_of_this_moment() -> int:
    """A seed that follows from the state of the random number generators, which stay as they are."""
    states = collect_rng_states(include_cuda=False)
    states["torch"] = states["torch"].tolist()
    return derive_seed(hashlib.blake2b(repr(states).encode()).hexdigest())


def _no_batch_returned(*hooks: Callable[..., Any] | None) -> MisconfigurationException:
    names = ("on_before_batch_transfer", "transfer_batch_to_device", "on_after_batch_transfer")
    found = " or ".join(f"`{name}`" for name, hook in zip(names, hooks) if hook is not None)
    return MisconfigurationException(f"{found} returned None instead of a batch. Was `return batch` forgotten?")
