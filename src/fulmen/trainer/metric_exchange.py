"""What several processes have logged becomes one value.

The values of an epoch are exchanged at its end, all in one object; processes that had no batch take part. Nothing else
is exchanged, except values of steps for which ``sync_dist=True`` asks.
"""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from fulmen.core.hooks import HOOK
from fulmen.trainer.accumulator import OPTIONS, Accumulator, as_tensor, double, visible_dtype
from fulmen.trainer.metric_objects import metrics_of
from fulmen.utilities.exceptions import MisconfigurationException
from fulmen.utilities.rank_zero import rank_zero_warn

if TYPE_CHECKING:
    from torch import nn

    from fulmen.trainer.shares import Share

_Key = tuple[Any, str, "int | None"]  # hook, name, number of the loader


# -- values of steps ---------------------------------------------------------------------------------------------------


def of_step(share: Share, entry: Accumulator, weight: float, group: Any) -> Tensor:
    """The value of a step over all processes (or those of ``group``), each of which has one."""
    value = as_tensor(entry.last)  # type: ignore[arg-type]
    wide = double(value).reshape(())
    pairs = share.all_gather(torch.stack([wide, torch.as_tensor(weight, dtype=wide.dtype, device=wide.device)]), group)
    values, weights = pairs.unbind(-1)
    if entry.reduction == "mean":
        result = (values * weights).sum() / weights.sum()
    elif entry.reduction == "sum":
        result = values.sum()
    else:
        result = values.min() if entry.reduction == "min" else values.max()
    return result.to(value.dtype)


def of_late(share: Share, entries: Mapping[_Key, Accumulator], late: list[tuple[_Key, float, float]]) -> None:
    """The same for all values of a step in which some processes have no batch.

    Args:
        late: the values of this process, each with its weight.
    """
    by_key: dict[_Key, list[tuple[float, float]]] = {}
    for theirs in share.gather(late):
        for key, value, weight in theirs:
            by_key.setdefault(key, []).append((value, weight))
    for key, pairs in by_key.items():
        entry = entries.get(key)
        if entry is None or entry.last is None:
            continue
        dtype = entry.last.dtype if isinstance(entry.last, Tensor) else torch.get_default_dtype()
        device = entry.last.device if isinstance(entry.last, Tensor) else None
        entry.last = torch.tensor(_together(entry.reduction, pairs), dtype=visible_dtype(dtype), device=device)


def _together(reduction: str, pairs: list[tuple[float, float]]) -> float:
    """One value of several, each with its weight."""
    if reduction == "mean":
        weight = sum(weight for _, weight in pairs)
        return sum(value * weight for value, weight in pairs) / weight if weight else float("nan")
    values = [value for value, _ in pairs]
    if reduction == "sum":
        return sum(values)
    # as torch does: a value that is no number makes the result none
    return next((value for value in values if value != value), min(values) if reduction == "min" else max(values))


# -- values of an epoch ------------------------------------------------------------------------------------------------


def of_epoch(share: Share, entries: dict[_Key, Accumulator], module: nn.Module, loaders_with_batches: set[int]) -> None:
    """Agree on the values of an epoch that were logged since the last such call; to be called on all processes.

    Args:
        entries: what this process has logged; those that only others have are added.
        loaders_with_batches: the numbers of the loaders that gave this process a batch.

    Raises:
        MisconfigurationException: some of the processes that had batches have not logged what others have.
    """
    objects = metrics_of(module)
    paths = {id(metric): path for path, metric in objects.items()}
    mine = {key: _facts(entry, paths) for key, entry in entries.items() if entry.in_epoch and entry.agreed is None}
    gathered = share.gather((mine, loaders_with_batches))
    facts: dict[_Key, dict[int, dict[str, Any]]] = {}
    for rank, (theirs, _) in enumerate(gathered):
        for key, fact in theirs.items():
            facts.setdefault(key, {})[rank] = fact
    _refuse_missing(facts, [loaders for _, loaders in gathered])
    for key, by_rank in facts.items():  # in the same order on all processes, since metrics exchange what they have
        first = next(iter(by_rank.values()))
        if not first["options"]["on_epoch"]:
            continue
        entry = entries.get(key)
        if entry is None:
            metric = objects.get(first["metric"])
            entry = entries[key] = Accumulator(
                settings=None, metric=metric, rank_zero_only=first["rank_zero_only"], **first["options"]
            )
            entry.in_epoch = True
        entry.agreed = _agreed(entry, list(by_rank.values()), module)
        entry.unseen = True


def _facts(entry: Accumulator, paths: Mapping[int, str]) -> dict[str, Any]:
    """What the others are told of one entry."""
    syncs = getattr(entry.metric, "sync_on_compute", False)
    total = entry.total
    if entry.metric is not None and entry.on_epoch and not syncs:
        total, weight = entry.epoch_value(), 1.0
    else:
        weight = entry.weight
    dtype = entry.last.dtype if isinstance(entry.last, Tensor) else None
    return {
        "options": {name: getattr(entry, name) for name in OPTIONS},
        "rank_zero_only": entry.rank_zero_only,
        "metric": paths.get(id(entry.metric)),
        "is_metric": entry.metric is not None,
        "syncs": bool(syncs),
        "total": None if total is None else float(total),
        "weight": float(weight),
        "dtype": None if dtype is None else visible_dtype(dtype),
    }


def _agreed(entry: Accumulator, facts: list[dict[str, Any]], module: nn.Module) -> Tensor:
    first = facts[0]
    if first["syncs"] and entry.metric is not None:
        with warnings.catch_warnings():
            if not getattr(entry.metric, "_update_count", 1):  # it had no batch here, which is no mistake
                warnings.simplefilter("ignore")
            return entry.epoch_value()
    numbers = [fact["total"] for fact in facts]
    if first["is_metric"]:
        if len(set(numbers)) > 1:
            rank_zero_warn(
                f"the metric logged as {entry.name!r} has different values on the processes and no way to make them "
                "one (torchmetrics' have, unless `sync_on_compute=False`): their mean is taken. Reduce it in its "
                "`compute`, or use torchmetrics."
            )
        value = sum(numbers) / len(numbers)
    elif entry.reduction == "mean":
        weight = sum(fact["weight"] for fact in facts)
        value = sum(numbers) / weight if weight else float("nan")
    else:
        value = _together(entry.reduction, [(number, 1.0) for number in numbers])
    device = next((one.device for one in (entry.total, entry.last) if isinstance(one, Tensor)), None)
    if device is None:
        device = next((parameter.device for parameter in module.parameters()), None)
    return torch.tensor(value, dtype=first["dtype"] or torch.get_default_dtype(), device=device)


def _refuse_missing(facts: dict[_Key, dict[int, dict[str, Any]]], loaders: list[set[int]]) -> None:
    for (hook, name, dataloader_idx), by_rank in facts.items():
        if next(iter(by_rank.values()))["rank_zero_only"]:
            continue
        if hook is not None and HOOK[hook].log == "epoch":
            obliged = list(range(len(loaders)))
        else:
            obliged = [rank for rank, own in enumerate(loaders) if own and dataloader_idx in (None, *own)]
        missing = [rank for rank in obliged if rank not in by_rank]
        if missing:
            raise MisconfigurationException(
                f"`self.log({name!r}, ...)` was called in `{hook}` on {_ranks(list(by_rank))}, and in the whole epoch "
                f"not on {_ranks(missing)}: there is no value over all processes. Call it on all of them, or write "
                f"`self.log({name!r}, ..., rank_zero_only=True)` to log what rank 0 has."
            )
        kinds = {fact["options"]["reduction"] for fact in by_rank.values()}
        if len(kinds) > 1:
            raise MisconfigurationException(
                f"`self.log({name!r}, reduce_fx=...)` in `{hook}` is not the same on all processes: "
                f"{' and '.join(sorted(kinds))}. Use one for all."
            )


def _ranks(ranks: list[int]) -> str:
    return f"rank{'s' * (len(ranks) > 1)} {', '.join(map(str, sorted(ranks)))}"
