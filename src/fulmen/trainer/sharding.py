"""Who divides the data among the processes: its user, its data set, or the Trainer. It is found out once per loader.

What a user can say is documented in ``docs/distributed_data.md``; what can be seen is looked for here.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator
from types import CodeType, FunctionType
from typing import Any

from torch.utils.data import BatchSampler, DataLoader, Dataset, IterDataPipe, Subset

from fulmen.trainer.shares import Share
from fulmen.trainer.sources import Source, is_of_torchdata
from fulmen.trainer.streams import samplers_of
from fulmen.utilities.data import has_iterable_dataset
from fulmen.utilities.exceptions import MisconfigurationException
from fulmen.utilities.rank_zero import rank_zero_info, rank_zero_warn
from fulmen.utilities.text import a_kind
from fulmen.utilities.warnings import PossibleUserWarning

#: attributes that say which share an object takes, and of how many
_RANK = ("rank", "global_rank", "shard_id", "shard_index", "shard", "process_index", "replica_rank")
_SIZE = ("world_size", "num_replicas", "num_shards", "num_processes")

#: names in the code of a data set that asks which process it is in: both of a pair
_ASKS = (("get_rank", "get_world_size"), ("RANK", "WORLD_SIZE"), ("global_rank", "world_size"))
_DEPTH, _MEMBERS = 4, 32


def agree(sources: list[Source], share: Share, hook: str, user_shards: bool, in_order: bool) -> None:
    """Find out, with all processes, who divides the data of each loader among them, and say so if it is not the
    Trainer by its stream of indices.

    Args:
        hook: the hook that gives the loaders.
        user_shards: the user has said so.
        in_order: batches must come in the order of one process, though that may need more reading.

    Raises:
        MisconfigurationException: the processes have different numbers of loaders.
    """
    facts = share.gather([_facts(source, share) for source in sources])
    if len({len(theirs) for theirs in facts}) > 1:
        raise MisconfigurationException(
            f"`{hook}` gives {' and '.join(str(len(theirs)) for theirs in facts)} loaders on the processes (by rank). "
            "Give the same number on all; a loader may be empty."
        )
    for source, theirs in zip(sources, zip(*facts)):
        _decide(source, list(theirs), share, hook, user_shards, in_order)


def _decide(
    source: Source, facts: list[dict[str, Any]], share: Share, hook: str, user_shards: bool, in_order: bool
) -> None:
    who = a_kind(source.loader)
    reason = ""
    if user_shards:
        reason = "`use_distributed_sampler=False`"
    elif all(fact["says"] for fact in facts):
        reason = facts[share.rank]["says"]
    elif any(fact["lets"] for fact in facts):
        reason = ""
    elif len({fact["length"] for fact in facts}) > 1:
        reason = f"it has {', '.join(str(fact['length']) for fact in facts)} batches on them"
    elif len({fact["content"] for fact in facts}) > 1:
        reason = "it has other samples on each"
    if reason:
        source.is_sharded = True
        lengths = [fact["length"] for fact in facts]
        if all(fact["is_sure"] for fact in facts):
            source.lengths, source.regular = tuple(lengths), [fact["regular"] for fact in facts]
        rank_zero_info("%s from `%s` is taken as one share for each process: %s", who, hook, reason)
        return
    _warn_of_other_number(source, share, hook)
    if not has_iterable_dataset(source.loader):
        return
    workers = source.loader.num_workers
    if _divides_among_workers(source.loader, share.size * max(workers, 1)) and not in_order:
        source.is_sharded = source.splits_as_workers = True
        rank_zero_info(
            "%s from `%s` divides itself over %d processes x %d worker%s, by `get_worker_info()`",
            a_kind(source.loader.dataset),
            hook,
            share.size,
            max(workers, 1),
            "s" * (workers > 1),
        )
        return
    rank_zero_info(
        "%s from `%s` knows nothing of processes: each of the %d reads all of it, and takes one batch of %d. To have "
        "each read its own part, divide it in `__iter__` by `torch.utils.data.get_worker_info()`, which then counts "
        "over all processes",
        a_kind(source.loader.dataset),
        hook,
        share.size,
        share.size,
    )


def warn_of_copies(source: Source, hook: str) -> None:
    """Warn if several workers would each give all samples of an iterable data set."""
    loader, workers = source.loader, source.loader.num_workers
    if isinstance(loader.dataset, IterDataPipe) or loader.worker_init_fn is not None:
        return
    if type(loader.dataset).__module__.partition(".")[0] in _LIBRARIES or _says(loader.dataset):
        return
    if not _asks(loader.dataset, ("get_worker_info",)):
        rank_zero_warn(
            f"each of the {workers} workers of the loader from `{hook}` reads all of {a_kind(loader.dataset)}, so each "
            f"sample comes {workers} times. Divide it in `__iter__` by `torch.utils.data.get_worker_info()`, or write "
            "`num_workers=1`.",
            category=PossibleUserWarning,
        )


#: libraries whose data sets divide themselves among workers
_LIBRARIES = ("datasets", "webdataset", "torchdata", "litdata", "streaming")


def _facts(source: Source, share: Share) -> dict[str, Any]:
    """What the other processes are told of a loader here."""
    loader = source.loader
    dataset = getattr(loader, "dataset", None)
    owners = [loader, *samplers_of(loader), dataset]
    said = [getattr(owner, "shards_itself", None) for owner in owners]
    says = ""
    if any(one is True for one in said):
        says = "`shards_itself` is True"
    elif not any(one is False for one in said):
        says = next((text for owner in owners if (text := _is_share(owner, share))), "") or _says(dataset)
    return {
        "says": says,
        "lets": any(one is False for one in said),
        "length": source.num_batches,
        "is_sure": source.keeps_its_word,
        "content": _fingerprint(dataset),
        "regular": _regular(source),
    }


def _is_share(owner: Any, share: Share) -> str:
    """Whether an object has the rank and the number of the processes among its attributes; in words."""
    if owner is None or isinstance(owner, (list, tuple, dict)):
        return ""
    rank, size = (
        next((name for name in names if _number(owner, name) == wanted), None)
        for names, wanted in ((_RANK, share.rank), (_SIZE, share.size))
    )
    return f"{a_kind(owner)} has `{rank}={share.rank}` and `{size}={share.size}`" if rank and size else ""


def _number(owner: Any, name: str) -> int | None:
    value = getattr(owner, "__dict__", {}).get(name)
    return value if type(value) is int else None


def _says(dataset: Any) -> str:
    """Whether a data set asks which process it is in; in words."""
    if dataset is None:
        return ""
    if getattr(dataset, "_distributed", None) is not None:  # of Hugging Face, by `split_dataset_by_node`
        return f"{a_kind(dataset)} was split by node"
    if isinstance(dataset, IterDataPipe):
        return f"{a_kind(dataset)} has a sharding filter" if _has_sharding_filter(dataset) else ""
    for names in _ASKS:
        if _asks(dataset, names):
            return f"{a_kind(dataset)} asks for `{names[0]}` and `{names[1]}`"
    return ""


def _has_sharding_filter(pipe: Any) -> bool:
    from torch.utils.data.graph import traverse_dps

    def any_of(graph: Any) -> bool:
        return any(hasattr(one, "apply_sharding") or any_of(below) for one, below in graph.values())

    return any_of(traverse_dps(pipe))


def _warn_of_other_number(source: Source, share: Share, hook: str) -> None:
    for sampler in samplers_of(source.loader):
        number = getattr(sampler, "num_replicas", 1)
        if isinstance(number, int) and number not in (1, share.size):
            rank_zero_warn(
                f"{a_kind(sampler)} of the loader from `{hook}` takes one of {number} shares, and there are "
                f"{share.size} processes: each of them trains on a part of that share, and the rest of the data is "
                f"left out. Write `num_replicas={share.size}`, or leave the sampler out."
            )


def _fingerprint(dataset: Any) -> str:
    """What tells two data sets apart without reading them; empty where nothing does."""
    mark = getattr(dataset, "_fingerprint", None)  # of Hugging Face
    if isinstance(mark, str):
        return mark
    if isinstance(dataset, Subset):
        places = repr(list(map(int, dataset.indices))).encode()
        return hashlib.blake2b(places, digest_size=8).hexdigest() + _fingerprint(dataset.dataset)
    return ""


def _regular(source: Source) -> tuple[int, int] | None:
    """How many samples each batch has, and the last one, if the sampler says so."""
    sampler = getattr(source.loader, "batch_sampler", None)
    if type(sampler) is not BatchSampler or has_iterable_dataset(source.loader):
        return None
    try:
        rest = 0 if sampler.drop_last else len(sampler.sampler) % sampler.batch_size  # type: ignore[arg-type]
    except (TypeError, NotImplementedError):
        return None
    return sampler.batch_size, rest or sampler.batch_size


# -- a look into the code of a data set --------------------------------------------------------------------------------


def _divides_among_workers(loader: Any, number: int) -> bool:
    """Whether the data set takes its part by ``get_worker_info()``, and can do so for that many."""
    dataset = loader.dataset
    if isinstance(dataset, IterDataPipe) or (is_of_torchdata(loader) and not loader.num_workers):
        return False
    for name in ("num_shards", "n_shards"):
        shards = getattr(dataset, name, None)
        if isinstance(shards, int) and shards % number:
            return False  # of Hugging Face, say: some would have none
    return _asks(dataset, ("get_worker_info",)) or _asks(loader.worker_init_fn, ("get_worker_info",))


def _asks(owner: Any, names: tuple[str, ...]) -> bool:
    """Whether all these names stand in the code of an object, or of what it is made of."""
    found: set[str] = set()
    for function in _functions(owner, _DEPTH, set()):
        found |= _names(function, set(), 3)
    return all(name in found for name in names)


def _functions(owner: Any, depth: int, seen: set[int]) -> Iterator[FunctionType]:
    """The functions that an object is made of: its methods, and those of data sets and callables that it holds."""
    if owner is None or id(owner) in seen:
        return
    seen.add(id(owner))
    owner = getattr(owner, "__func__", owner)
    if isinstance(owner, FunctionType):
        yield owner
        return
    if isinstance(owner, (list, tuple)):
        members: list[Any] = list(owner) if len(owner) <= _MEMBERS else []
    elif isinstance(owner, (Dataset, DataLoader)) or callable(owner) or hasattr(owner, "__iter__"):
        kinds: tuple[type, ...] = type(owner).__mro__  # type: ignore[assignment]
        for kind in kinds:
            if kind.__module__.partition(".")[0] not in ("torch", "builtins", "typing", "abc", "collections"):
                yield from (value for value in vars(kind).values() if isinstance(value, FunctionType))
        members = list(getattr(owner, "__dict__", {}).values())
    else:
        return
    if depth:
        for member in members:
            if isinstance(member, (list, tuple, Dataset)) or callable(member):
                yield from _functions(member, depth - 1, seen)


def _names(function: Callable[..., Any], seen: set[int], depth: int) -> set[str]:
    """The names, and the texts, in a function and in those of its own package that it calls."""
    code = getattr(function, "__code__", None)
    if not isinstance(code, CodeType) or id(code) in seen:
        return set()
    seen.add(id(code))
    found = set(_names_in(code))
    if depth:
        scope = getattr(function, "__globals__", {})
        package = str(scope.get("__name__", "")).partition(".")[0]
        cells = [cell.cell_contents for cell in getattr(function, "__closure__", None) or () if _is_full(cell)]
        for called in (*(scope.get(name) for name in tuple(found)), *cells):
            if isinstance(called, FunctionType):
                found.add(called.__name__)  # it may have been imported under another name
                if str(called.__module__).partition(".")[0] in (package, "webdataset"):
                    found |= _names(called, seen, depth - 1)
    return found


def _names_in(code: CodeType) -> Iterator[str]:
    yield from code.co_names
    for constant in code.co_consts:
        if isinstance(constant, CodeType):
            yield from _names_in(constant)
        elif isinstance(constant, str) and len(constant) < 32:
            yield constant


def _is_full(cell: Any) -> bool:
    try:
        _ = cell.cell_contents
    except ValueError:
        return False
    return True
