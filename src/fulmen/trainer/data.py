"""The data of a run: where loaders come from, how many batches they give, in which order, and the way to the device.

A user's loader is never rebuilt. Its stream of indices is watched from outside (:class:`IndexStream`), so that the
number of samples in each batch and their places in the data set are known instead of guessed.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable, Iterator
from dataclasses import fields, replace
from itertools import chain, islice
from operator import itemgetter
from typing import TYPE_CHECKING, Any

import torch

from fulmen.core.hooks import DataHooks
from fulmen.loops.progress import ABSENT
from fulmen.trainer.flags import DataFlags
from fulmen.trainer.loaders import LOADER_HOOKS, Loaders, limit_of, of_each, prepared
from fulmen.trainer.shares import Share, groups, in_common_order
from fulmen.trainer.sources import Source, refuse_used_up
from fulmen.trainer.validation import check_dataloader_idx
from fulmen.utilities.apply_func import move_data_to_device
from fulmen.utilities.data import extract_batch_size
from fulmen.utilities.exceptions import MisconfigurationException
from fulmen.utilities.rank_zero import rank_zero_warn
from fulmen.utilities.seed import collect_rng_states, derive_seed, isolate_rng, restore_rng_states

if TYPE_CHECKING:
    from fulmen.core.module import LightningModule
    from fulmen.loops.progress import Progress
    from fulmen.profilers.profiler import Profiler
    from fulmen.trainer.signals import Signals

_END: Any = object()


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
        share: which share of the data is this process's; None: all of it.
        user_shards: the user divides the data among the processes.
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
        share: Share | None = None,
        user_shards: bool = False,
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
        self.seed = seed_of_this_moment()  #: what the random numbers of all data sets of this run depend on
        self._loads: dict[str, dict[str, Any]] = {}  # of each stage, when its loaders were asked for
        self._loads_before: dict[str, dict[str, Any]] = {}  # the same in the run that this one goes on with
        self._to_put_back: dict[str, Any] = {}  # the state of loaders that are not there yet
        self.share = Share() if share is None else share
        self._user_shards = user_shards
        self._began_at = (0, 0)  # batches of this epoch, and those of all processes, when this process began with it
        self._group_sizes: tuple[int | None, ...] | None = None
        self._with_batches: dict[str, set[int]] = {"train": set(), "evaluation": set()}
        self._ghost: Any = ABSENT
        self.keeps_ghost = False  #: all processes must make the same number of forward passes
        self.go_on: Callable[[], None] | None = None  #: brings a resumed run to where it was saved
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
            if self.share.size > 1:
                self.seed = self.share.broadcast(self.seed)
            self.loaders[stage] = prepared(stage, given, self.flags, self.share, self._user_shards)
            for number, source in enumerate(self.loaders[stage].sources):
                source.key = (self.seed, stage, number, epoch)
            for source, mark in zip(self.loaders[stage].sources, self._to_put_back.pop(stage, ())):
                source.begin_with(mark, LOADER_HOOKS[stage])
        return self.loaders[stage]

    def request_anew(self, stage: str) -> None:
        """Ask for the loaders of ``stage`` once more if they were asked for, as what they are made with has changed. A
        loop that has them already gets the new ones.
        """
        held = self.loaders.pop(stage, None)
        if held is None:
            return
        for source in held.sources:
            source.close()
        fresh = self.request("train") if stage == "train" else self.evaluation_loaders(stage)
        for field in fields(Loaders):
            setattr(held, field.name, getattr(fresh, field.name))
        self.loaders[stage] = held

    def _asked_for(self, stage: str) -> Any:
        """What the user's hook gives; a run that goes on asks as the run before asked: with its epoch and its random
        numbers, which may have chosen the samples."""
        hook = LOADER_HOOKS[stage]
        owner = self._owner(hook)
        if owner is None:  # the empty body says what is missing, and where
            owner = self.datamodule if self.datamodule is not None else self.module
        method = self._quiet(hook, getattr(owner, hook))
        before = self._loads_before.pop(stage, None)
        if before is None:
            random = self.share.broadcast(collect_rng_states(include_cuda=False))
            self._loads[stage] = {"epoch": self.progress.epoch, "random": random}
            if self.share.rank == 0:
                return method()
            with isolate_rng():  # the same samples on all processes
                restore_rng_states(random)
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
        self._began_at = (
            (progress.batches_done, progress.batches_done * self.share.size) if progress.in_epoch else (0, 0)
        )
        loaders = self.request("train")
        for number, source in enumerate(loaders.sources):
            source.begin_epoch(progress.epoch, (self.seed, "train", number, progress.epoch))
        progress.start_epoch(loaders.total)

    def train_batches(self) -> Iterator[tuple[int, Any]]:
        """The batches of one epoch, on the device; moves the clock to each before it is given."""
        progress, loaders = self.progress, self.loaders["train"]
        self._sources_in_training = loaders.sources
        if self.go_on is not None:
            self.go_on()
        if progress.done:  # a limit was reached before, or somebody set `should_stop` when the epoch began
            return
        progress.num_batches = progress.batches_done + self._left(loaders)
        self._with_batches["train"] = set()
        transfer = self._transfer
        sized = not math.isinf(loaders.total) and all(source.keeps_its_word for source in loaders.sources)
        if self.share.size > 1:
            batches = self._in_groups(loaders, sized)
        else:
            batches = self._sized(loaders) if sized else self._unsized(loaders)
        for batch_idx, batch, indices, is_last in batches:
            self._batch, self._indices, self._batch_size = batch, indices, None
            progress.start_batch(batch_idx, is_last)
            if batch is None:
                rank_zero_warn("the training loader gave None instead of a batch: it is skipped.")
            if transfer is not None and batch is not ABSENT:
                batch = transfer(batch, 0)
            if self._group_sizes is not None:
                self._keep_ghost(batch, batch_idx, self._group_sizes)
                if batch is not ABSENT:
                    self._with_batches["train"].add(0)
            yield batch_idx, batch
        self._group_sizes, self._ghost = None, ABSENT
        self._batch = self._marks = self._random = None
        if progress.batch_idx < 0 and progress.epoch > 0 and math.isinf(loaders.total):
            for source in loaders.sources:
                refuse_used_up(source.loader, LOADER_HOOKS["train"], f"in epoch {progress.epoch}")

    # -- where it stands ----------------------------------------------------------------------------------------------

    def state_dict(self) -> dict[str, Any]:
        """Where each training loader stands, and the generators of those that evaluate, as plain data."""
        stages = dict(self._to_put_back)
        for stage, loaders in self.loaders.items():
            marks = self._marks if stage == "train" and self._marks is not None else [None] * len(loaders.sources)
            if stage == "train" and loaders.combined is None and self._marks is None and loaders.sources:
                marks = [self._mark_of_single(loaders.sources[0])]
            stages[stage] = [source.state_dict(mark) for source, mark in zip(loaders.sources, marks)]
            for place, state in enumerate(sorted(stages[stage], key=itemgetter("opened")), 1):
                state["opened"] = state["opened"] and place  # the numbers of this process mean nothing to the next
        loads = self._loads_before | self._loads
        # not in the order in which this process asked for them
        state = {"seed": self.seed, "loads": dict(sorted(loads.items())), **dict(sorted(stages.items()))}
        if self.rows != self.progress.batches_done:
            state["rows"] = self.rows
        if self.share.size > 1:
            state["processes"] = self.share.size
        return state if self._random is None else {**state, "random": self._random}

    def _mark_of_single(self, source: Source) -> dict[str, Any] | None:
        """Where the only training loader stands: a batch counts when it is done, not when it is given."""
        if self.share.size == 1:
            source.position_in_pass = self.rows
            return None
        mark, position = source.mark(), min(self.rows, source.position_in_pass)
        return {**mark, "position": position, "taken": mark["taken"] - source.position_in_pass + position}

    @property
    def rows(self) -> int:
        """Batches of all processes that were trained on in this epoch."""
        done, rows = self._began_at
        return rows + (self.progress.batches_done - done) * self.share.size

    def generators(self) -> list[Any]:
        """The random number generators of all loaders and their data sets."""
        return [one for loaders in self.loaders.values() for source in loaders.sources for one in source.generators()]

    def prepare(self, state: dict[str, Any] | None) -> None:
        """A run goes on: take what is needed before the loaders are asked for."""
        if state is not None:
            self.seed, self._loads_before = state["seed"], dict(state["loads"])

    def begin_with(self, state: dict[str, Any]) -> None:
        """Between two epochs: put back what the order of the next one depends on."""
        for stage, hook in LOADER_HOOKS.items():
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
        hook, loaders = LOADER_HOOKS["train"], self.loaders["train"]
        done = self.progress.batches_done * (self.share.size if state is None else 1)
        state = state or {}
        done = state.get("rows", done)
        self._began_at = (self.progress.batches_done, done)
        marks = state.get("train")
        if marks is not None and len(marks) == len(loaders.sources):
            self._random = state.get("random")
            for source, mark in zip(loaders.sources, marks):
                source.warn_of_other_shards(mark, state.get("processes", 1), hook)
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
        done = self.progress.batches_done
        size = done + int(self._left(loaders))
        batch_idx = done - 1
        if done >= size and not loaders.sources[0].is_open:
            return
        batches, first = self._rows(loaders)
        under_way = first.under_way if loaders.combined is None else None  # else the source itself has taken them
        for batch_idx, batch in enumerate(islice(batches, size - done), done):
            yield batch_idx, batch, under_way.popleft() if under_way else first.batch_indices, batch_idx + 1 == size
        if loaders.combined is None:
            first.position_in_pass = self._began_at[1] + batch_idx + 1 - self._began_at[0]
            if first.state_owner is not None and loaders.total == first.num_batches:
                next(batches, None)  # it is over only for those who ask
                first.has_ended_a_pass = True
        if batch_idx + 1 < size:
            rank_zero_warn(f"the training loader said that it has {size} batches, but ended after {batch_idx + 1}.")

    def _unsized(self, loaders: Loaders) -> Iterator[tuple[int, Any, Any, bool]]:
        """The same without a length: only a look at the batch that follows tells which is the last."""
        done = self.progress.batches_done
        batches, first = self._rows(loaders)
        if not math.isinf(loaders.total):
            batches = islice(batches, max(0, int(self._left(loaders))))
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
                first.position_in_pass = self._began_at[1] + batch_idx + 1 - self._began_at[0]
            else:
                random = collect_rng_states(include_cuda=False)
            marks = [source.mark() for source in loaders.sources]  # before the look ahead
        if ahead is not None:
            self._marks, self._random = marks, random
            yield *ahead, True
        first.has_ended_a_pass |= math.isinf(loaders.total)

    def _left(self, loaders: Loaders) -> int | float:
        """How many batches of this epoch are still to come for each process."""
        return of_each(loaders.num_rows - self.rows, self.share.size)

    def _in_groups(self, loaders: Loaders, sized: bool) -> Iterator[tuple[int, Any, Any, bool]]:
        """The same where several processes share the data; the sizes of what all have are in :attr:`group_sizes`."""
        done, left, sources = self.progress.batches_done, self._left(loaders), loaders.sources
        if left <= 0 and not sources[0].is_open:
            return
        batches, first = self._rows(loaders)
        every = groups(batches, self.share, sources, ABSENT)
        taken = every if math.isinf(left) else islice(every, int(left))
        if sized:
            batch_idx = done - 1
            for batch_idx, (batch, indices, sizes) in enumerate(taken, done):
                self._group_sizes = sizes
                yield batch_idx, batch, indices, batch_idx + 1 == done + left
            if loaders.combined is None:
                next(every, None)  # it is over only for those who ask
            if batch_idx + 1 < done + left:
                rank_zero_warn(
                    f"the training loader said that it has {left} batches for each process, but ended after "
                    f"{batch_idx + 1 - done}."
                )
            return
        if self._random is not None:
            with isolate_rng():
                restore_rng_states(self._random)
                opened = list(islice(taken, 1))
            taken = chain(opened, taken)
        ahead: tuple[int, Any, Any, Any] | None = None
        marks = random = None
        for batch_idx, (batch, indices, sizes) in enumerate(taken, done):
            if ahead is not None:
                self._marks, self._random, self._group_sizes = marks, random, ahead[3]
                yield *ahead[:3], False
            ahead = batch_idx, batch, indices, sizes
            if loaders.combined is not None:
                random = collect_rng_states(include_cuda=False)
            marks = [source.mark() for source in sources]
        if ahead is not None:
            self._marks, self._random, self._group_sizes = marks, random, ahead[3]
            yield *ahead[:3], True
        first.has_ended_a_pass |= math.isinf(loaders.total)

    def _rows(self, loaders: Loaders) -> tuple[Iterator[Any], Source]:
        """The batches of one pass, and the source that tells their indices."""
        first = loaders.sources[0]
        if loaders.combined is not None:
            batches: Iterator[Any] = (row[0] for row in loaders.combined)
        else:
            batches = first.open() if self.share.size == 1 else iter(first)
        return batches if self.profiler is None else self._measured(batches, loaders.hook), first

    def measure(self, profiler: Profiler) -> None:
        """Let ``profiler`` measure the wait for batches, and their way to the device."""
        self.profiler, transfer = profiler, self._transfer
        if transfer is not None:

            def measured(batch: Any, dataloader_idx: int) -> Any:
                with profiler.profile("[Data]transfer_batch_to_device"):
                    return transfer(batch, dataloader_idx)

            self._transfer = measured

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
        if limit_of("validate" if of_validation else stage, self.flags) == 0:
            return Loaders(None, [], [], "sequential", None, [])
        loaders = self.request("validate" if of_validation else stage)
        check_dataloader_idx(self.module, self._callbacks, stage, loaders.several)
        progress = self.progress
        for number, source in enumerate(loaders.sources):
            moment = f"{progress.epoch}, {progress.total_batches}"
            source.begin_epoch(progress.epoch, (self.seed, stage, number, moment))
            source.draws_apart = not self._sources_in_training and stage != "sanity_check"
        if stage != "sanity_check":
            return loaders
        steps = self.flags.num_sanity_val_steps
        few = [min(n, math.inf if steps == -1 else steps) for n in loaders.num_batches]
        return replace(loaders, num_batches=few)

    def training_loaders_once_more(self) -> Loaders:
        """Those of training, for a pass through :meth:`evaluation_batches` when training has ended."""
        loaders, progress = self.request("train"), self.progress
        for number, source in enumerate(loaders.sources):
            source.begin_epoch(progress.epoch, (self.seed, "train", number, progress.epoch))
        return replace(loaders, mode="sequential") if loaders.combined is None else loaders

    def evaluation_batches(self, loaders: Loaders) -> Iterator[tuple[int, Any, int]]:
        """``(batch_idx, batch on the device, dataloader_idx)`` of all loaders."""
        self.epoch_batch_indices = [[] for _ in loaders.sources]
        if self.share.size > 1:
            yield from self._evaluation_groups(loaders)
            return
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

    def _evaluation_groups(self, loaders: Loaders) -> Iterator[tuple[int, Any, int]]:
        """The same where several processes share the data: :data:`ABSENT` where only others have a batch."""
        one_by_one = loaders.mode == "sequential"
        with_batches = self._with_batches["evaluation"] = set()
        limits = loaders.num_batches if one_by_one else [loaders.total]
        for dataloader_idx, limit in enumerate(limits):
            if limit == 0:
                continue
            sources = loaders.sources[dataloader_idx : dataloader_idx + 1] if one_by_one else loaders.sources
            batch_idx = -1
            with sources[0].apart_from(self._sources_in_training):
                batches = iter(sources[0]) if one_by_one else (row[0] for row in loaders.combined or ())
                if self.profiler is not None:
                    batches = self._measured(batches, loaders.hook)
                for batch_idx, (batch, indices, sizes) in enumerate(groups(batches, self.share, sources, ABSENT)):
                    self._signals.boundary.pass_evaluation_batch(self._signals, self.progress.total_batches)
                    self._signals.end_evaluation_if_asked()
                    self._batch, self._indices, self._batch_size = batch, indices, None
                    self._group_sizes = sizes
                    if batch is not ABSENT:
                        with_batches.add(dataloader_idx)
                        if one_by_one:
                            self.epoch_batch_indices[dataloader_idx].append(indices)
                        batch = batch if self._transfer is None else self._transfer(batch, dataloader_idx)
                    self._keep_ghost(batch, batch_idx, sizes)
                    yield batch_idx, batch, dataloader_idx
                    if batch_idx + 1 >= limit:
                        break
            if batch_idx < 0 and one_by_one:
                refuse_used_up(sources[0].loader, loaders.hook, "any more")
        self._batch = self._group_sizes = None
        self._ghost = ABSENT

    # -- the batch ----------------------------------------------------------------------------------------------------

    @property
    def group_sizes(self) -> tuple[int | None, ...] | None:
        """Samples in the batches that the processes have at this step, by rank: 0 where one has none, None where it is
        unknown. None as a whole with one process alone.
        """
        return self._group_sizes

    def is_group_whole(self) -> bool:
        """Every process has a batch at this step."""
        return self._group_sizes is None or 0 not in self._group_sizes

    def loaders_with_batches(self, stage: str) -> set[int]:
        """The numbers of the loaders that gave this process a batch in this epoch: ``stage`` is ``"train"``, or
        ``"evaluation"`` for the last or current one.
        """
        return self._with_batches[stage]

    def place_in_loader(self, batch_idx: int) -> int:
        """Which batch of its loader, counted over all processes, the batch number ``batch_idx`` of this process is."""
        return batch_idx * self.share.size + self.share.rank

    def of_all_processes(self, results: list[list[Any]]) -> list[list[Any]]:
        """What all processes made of their batches, in the order of one: a list over loaders of lists over batches."""
        if self.share.size == 1:
            return results
        return [in_common_order(list(one)) for one in zip(*self.share.gather(results))]

    @property
    def ghost_batch(self) -> Any:
        """What a process without a batch runs where all must run the same number: the last one that it had, or that of
        another process. :data:`ABSENT` where that is not needed.
        """
        return self._ghost

    def _keep_ghost(self, batch: Any, batch_idx: int, sizes: tuple[int | None, ...]) -> None:
        if not self.keeps_ghost:
            return
        if batch is not ABSENT:
            self._ghost = batch
        if batch_idx == 0 and 0 in sizes:  # some have never had one
            have = [one for one in self.share.gather(None if batch is ABSENT else self._batch) if one is not None]
            if batch is ABSENT and have:
                self._ghost = have[0] if self._transfer is None else self._transfer(have[0], 0)

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


def seed_of_this_moment() -> int:
    """A seed that follows from the state of the random number generators, which stay as they are."""
    states = collect_rng_states(include_cuda=False)
    states["torch"] = states["torch"].tolist()
    return derive_seed(hashlib.blake2b(repr(states).encode()).hexdigest())


def _no_batch_returned(*hooks: Callable[..., Any] | None) -> MisconfigurationException:
    names = ("on_before_batch_transfer", "transfer_batch_to_device", "on_after_batch_transfer")
    found = " or ".join(f"`{name}`" for name, hook in zip(names, hooks) if hook is not None)
    return MisconfigurationException(f"{found} returned None instead of a batch. Was `return batch` forgotten?")
