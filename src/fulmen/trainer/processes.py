"""What a checkpoint holds of each process of a job, and what a process takes of it: also of another number of them.

It stands under ``checkpoint["resume"]["ranks"]``, by rank, if there were several: all of ``resume`` that may differ. As
many processes as there were each take back their own. Of another number, all take the common position in the data, and
rank 0 takes what all have accumulated.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from fulmen.trainer.metric_objects import metrics_of, pack, same, unpack
from fulmen.trainer.states import TrainerStatus
from fulmen.utilities.rank_zero import rank_zero_info, rank_zero_warn
from fulmen.utilities.seed import collect_rng_states, isolate_rng, seed_generators

if TYPE_CHECKING:
    from torch import nn

    from fulmen.trainer.trainer import Trainer

#: the entries of ``resume`` that may differ from process to process
_LOCAL = (
    "random",
    "data",
    "metrics",
    "module_metrics",
    "generators",
    "modes",
    "window",
    "gradients",
    "micro_batch_size",
)
_ONCE = ("sum", "min", "max")


def gather(trainer: Trainer, state: dict[str, Any]) -> list[dict[str, Any]] | None:
    """What each process has of ``state``, by rank; to be called on all. None if there is one, or this one fails alone.

    Args:
        state: all that is saved under ``resume``.
    """
    strategy = trainer.strategy
    if strategy.world_size == 1 or trainer.state.status == TrainerStatus.INTERRUPTED:
        return None
    mine = {name: state[name] for name in _LOCAL if name in state}
    if strategy.gradients_are_common or not trainer.progress.window_is_open:
        mine.pop("gradients", None)
    mine["share"] = [strategy.data_parallel_rank, strategy.data_parallel_size]
    every = strategy.gather_objects(mine)
    every[strategy.global_rank] = mine  # the same objects, which are thus written once
    return every


def of_this(trainer: Trainer, state: dict[str, Any]) -> dict[str, Any]:
    """What this process takes of ``state``, which is what a checkpoint has under ``resume``."""
    strategy, ranks = trainer.strategy, state.get("ranks")
    rank, world = strategy.global_rank, strategy.world_size
    if not state or (ranks is None and world == 1):
        return state
    common = {name: value for name, value in state.items() if name != "ranks"}
    if ranks is None:
        ranks = [{name: common[name] for name in _LOCAL if name in common}]
    shares = _one_of_each_share(ranks)
    if len(ranks) == world:
        return common | ranks[rank] | _mean_of_gradients(shares, strategy.gradients_are_common)
    mine = common | {name: value for name, value in ranks[min(rank, len(ranks) - 1)].items() if name in ("modes",)}
    if rank < len(ranks):
        mine |= {name: value for name, value in ranks[rank].items() if name in ("random", "generators")}
    elif "random" in common:
        mine["random"] = _random_numbers_of(rank, common["random"])
    is_first, factor = strategy.data_parallel_rank == 0, strategy.data_parallel_size / len(shares)
    if "data" in mine:
        mine["data"] = _data_of_all([one["data"] for one in shares if "data" in one])
    if "metrics" in mine:
        mine["metrics"] = _logged_by_all([one["metrics"] for one in shares if "metrics" in one], is_first)
    if "module_metrics" in mine:
        states = [one["module_metrics"] for one in shares if "module_metrics" in one]
        mine["module_metrics"] = _seen_by_all(trainer.lightning_module, states, is_first)
    if "window" in mine:
        mine["window"] = _window_of_all([one["window"] for one in shares if "window" in one], is_first, factor)
        gradients = [one["gradients"] for one in shares if "gradients" in one]
        if gradients:  # else all had them in common
            mine["gradients"] = _sum_of_gradients(gradients, factor) if is_first else {}
    return mine | _mean_of_gradients(shares, strategy.gradients_are_common)


def say_other_number(trainer: Trainer, state: dict[str, Any]) -> None:
    """Say that the run goes on with another number of processes than it was saved with."""
    before, now = len(_one_of_each_share(state.get("ranks") or [{}])), trainer.strategy.data_parallel_size
    if state and before != now:
        rank_zero_info(
            "the checkpoint was made by %d process%s, and %d go%s on: in the same order of the data, with %d batches "
            "for each step",
            before,
            "es" * (before > 1),
            now,
            "es" * (now == 1),
            now,
        )


def _one_of_each_share(ranks: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Several processes that work on one share of the data have the same."""
    by_share: dict[int, dict[str, Any]] = {}
    for rank, one in enumerate(ranks):
        by_share.setdefault(one.get("share", [rank])[0], one)
    return [by_share[share] for share in sorted(by_share)]


def _random_numbers_of(rank: int, first: dict[str, Any]) -> dict[str, Any]:
    """A state of its own for a process that was not there before."""
    with isolate_rng():
        seed_generators("process", rank, int(first["torch"].sum()))
        return collect_rng_states(include_cuda=False)


def _data_of_all(states: list[dict[str, Any]]) -> dict[str, Any]:
    """Where the data stands: the same for all, but for loaders that have read their share and say how far."""
    first = dict(states[0])
    for stage in ("train", "validate", "test", "predict"):
        marks = []
        for place, mark in enumerate(first.get(stage, ())):
            theirs = [state[stage][place].get("state") for state in states if len(state.get(stage, ())) > place]
            is_common = all(same(one, theirs[0]) for one in theirs)
            marks.append(mark if is_common else {name: value for name, value in mark.items() if name != "state"})
        if stage in first:
            first[stage] = marks
    return first


# -- what was logged ---------------------------------------------------------------------------------------------------


def _logged_by_all(states: list[dict[str, Any]], is_first: bool) -> dict[str, Any]:
    """Rank 0 goes on with the sums of all, and the others with nothing under the same names."""
    entries: dict[Any, dict[str, Any]] = {}
    for state in states:
        for entry in state["train"]:
            key = entry["hook"], entry["name"]
            entries[key] = _added(entries[key], entry) if key in entries else dict(entry)
    if not is_first:
        for entry in entries.values():
            entry.update(total=None, weight=0.0)
    return {**states[0], "train": list(entries.values())}


def _added(one: dict[str, Any], other: dict[str, Any]) -> dict[str, Any]:
    first, second = one["total"], other["total"]
    if first is None or second is None or one["reduction"] != other["reduction"]:
        return {**one, "total": second if first is None else first, "weight": one["weight"] + other["weight"]}
    cpu = torch.device("cpu")
    totals = torch.stack([torch.as_tensor(unpack(total, cpu)).double() for total in (first, second)])
    operation = {"min": totals.min, "max": totals.max}.get(one["reduction"], totals.sum)
    result = operation()
    if isinstance(first, (int, float)):
        return {**one, "total": float(result), "weight": one["weight"] + other["weight"]}
    where = first if isinstance(first, Tensor) else next(iter(first.values()))
    total = result.to(where.dtype)
    packed = total if isinstance(first, Tensor) else {next(iter(first)): total}
    return {**one, "total": packed, "weight": one["weight"] + other["weight"]}


def _seen_by_all(module: nn.Module, states: list[dict[str, Any]], is_first: bool) -> dict[str, Any]:
    """What metric objects have seen: for rank 0 that of all, for the others nothing."""
    seen: dict[str, Any] = {}
    for path, metric in metrics_of(module).items():
        theirs = [state[path] for state in states if path in state]
        reductions = getattr(metric, "_reductions", None)
        if not theirs or (not is_first and reductions is None):
            continue
        if reductions is None or "states" not in theirs[0]:
            seen[path] = theirs[0]
            if not all(same(one, theirs[0]) for one in theirs):
                rank_zero_warn(
                    f"the metric {path} ({type(metric).__name__}) has no way to add up what {len(states)} processes "
                    "have seen: its value of this epoch will be of what the first has alone. Use torchmetrics."
                )
            continue
        together = {}
        for name, default in metric._defaults.items():
            values = [one["states"][name] for one in theirs]
            together[name] = _state_of_all(path, name, values, reductions[name], pack(default), is_first)
        count = sum(one["update_count"] for one in theirs)
        seen[path] = {**theirs[0], "states": together, "update_count": count if is_first else 0}
    return seen


def _state_of_all(path: str, name: str, values: list[Any], reduction: Any, default: Any, is_first: bool) -> Any:
    kind = getattr(reduction, "__name__", "").removeprefix("dim_zero_")
    if kind == "mean":  # of the processes, so that all must have it
        return _reduced(values, "mean")
    if not is_first:
        return default
    if kind in _ONCE:
        return _reduced(values, kind)
    if kind == "cat" or all(isinstance(value, list) for value in values):
        return [item for value in values for item in (value if isinstance(value, list) else [value])]
    if not all(same(value, values[0]) for value in values):
        rank_zero_warn(
            f"the state `{name}` of the metric {path} cannot be added up over {len(values)} processes: its value of "
            "this epoch will be of what the first has seen alone."
        )
    return values[0]


def _reduced(values: list[Any], kind: str) -> Any:
    cpu = torch.device("cpu")
    stacked = torch.stack([unpack(value, cpu) for value in values])
    result = {"sum": stacked.sum, "mean": stacked.mean, "min": stacked.amin, "max": stacked.amax}[kind](0)
    return (
        result.to(stacked.dtype) if isinstance(values[0], Tensor) else {next(iter(values[0])): result.to(stacked.dtype)}
    )


# -- a window that is open ---------------------------------------------------------------------------------------------


def _window_of_all(states: list[dict[str, Any]], is_first: bool, factor: float) -> dict[str, Any]:
    weights = [state["weight"] for state in states if state.get("weight") is not None]
    missing = sum(state.get("missing", 0.0) for state in states) * factor
    contributed = max(state["contributed"] for state in states)
    window = {**states[0], "contributed": contributed, "missing": missing if is_first else 0.0}
    if not weights:
        return window
    total = sum(torch.as_tensor(weight, dtype=torch.float64) for weight in weights) * factor
    return {**window, "weight": total if is_first else total * 0}


def _sum_of_gradients(gradients: list[dict[str, Tensor]], factor: float) -> dict[str, Tensor]:
    """The gradients of all on one process, so that their mean over the processes of now is what it was."""
    names = dict.fromkeys(name for one in gradients for name in one)
    return {name: sum(one[name] for one in gradients if name in one) * factor for name in names}  # type: ignore[misc]


def _mean_of_gradients(shares: list[dict[str, Any]], are_common: bool) -> dict[str, Any]:
    """The entry for processes that have gradients in common, of what each had for itself."""
    gradients = [one["gradients"] for one in shares if "gradients" in one]
    return {"gradients": _sum_of_gradients(gradients, 1 / len(shares))} if are_common and gradients else {}
