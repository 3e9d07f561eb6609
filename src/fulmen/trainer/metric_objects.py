"""Metrics that are objects (torchmetrics' and others'): what they have seen so far, as plain data, and back.

torchmetrics leaves what a metric has accumulated out of ``state_dict`` unless it is asked to, so a checkpoint in the
middle of an epoch would lose it. Here each metric in the module is saved whole, logged or updated by hand.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from copy import deepcopy
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from fulmen.utilities.rank_zero import rank_zero_warn

if TYPE_CHECKING:
    from fulmen.core.module import LightningModule

#: marks a tensor that was not on the CPU: files are read onto the CPU
_ON_DEVICE = "on_device"

#: where a metric keeps the attributes that it had before it saw anything, so that its copies have them
_AT_START = "_attributes_before_training"

#: attributes that hold no state of their own: torch's, results that are computed anew, and what is saved by name
_NO_STATE = {*vars(nn.Module()), "_defaults", "_reductions", "_persistent", "_computed", "_forward_cache", "_cache"} | {
    "_update_count",
    _AT_START,
}

#: a container with more items is data, not a collection of metrics
_MOST_ITEMS = 100


def is_metric(value: Any) -> bool:
    """Anything with ``update``, ``compute`` and ``reset`` is a metric (torchmetrics' are)."""
    return not isinstance(value, Mapping) and all(
        callable(getattr(value, name, None)) for name in ("update", "compute", "reset")
    )


def metrics_of(module: nn.Module) -> dict[str, Any]:
    """Every metric in ``module`` by its dotted path: sub-modules, and other objects among the attributes, also in a
    list or dict there.
    """
    found: dict[str, Any] = {}
    for path, child in module.named_modules():
        if child is not module and (is_metric(child) or _is_of_torchmetrics(child)):
            found[path] = child
        for name, value in _objects_in(child):
            # the class is asked, since some objects have whatever they are asked for
            if not isinstance(value, (nn.Module, type)) and is_metric(type(value)):
                found[f"{path}.{name}" if path else name] = value
    return found


def _is_of_torchmetrics(metric: Any) -> bool:
    return hasattr(metric, "_defaults") and hasattr(metric, "_update_count")


def _names_of_states(metric: Any) -> set[str]:
    return set(metric._defaults) if _is_of_torchmetrics(metric) else set()


def _objects_in(owner: nn.Module) -> Iterator[tuple[str, Any]]:
    for name, value in vars(owner).items():
        if name in _NO_STATE or isinstance(value, (bool, int, float, str, Tensor)) or value is None:
            continue
        if isinstance(value, (list, tuple)) and len(value) <= _MOST_ITEMS:
            yield from ((f"{name}.{place}", item) for place, item in enumerate(value))
        elif isinstance(value, Mapping) and len(value) <= _MOST_ITEMS:
            yield from ((f"{name}.{key}", item) for key, item in value.items())
        else:
            yield name, value


def begin(module: LightningModule, will_save: bool) -> None:
    """Training is set up: remember the metrics as they are.

    Args:
        will_save: whether checkpoints are written, so that a metric whose state cannot be saved is worth a warning.
    """
    without: list[str] = []
    for path, metric in metrics_of(module).items():
        if isinstance(metric, nn.Module):
            vars(metric).setdefault(_AT_START, _attributes(metric))
        elif not _has_state(metric):
            without.append(f"{path} ({type(metric).__name__})")
    if without and will_save:
        rank_zero_warn(
            "a run that goes on in the middle of an epoch cannot bring back what these metrics have seen of it, so "
            f"their value of that epoch will be of its rest alone: {', '.join(without)}. Give them `state_dict()` and "
            "`load_state_dict(state)`, or use torchmetrics."
        )


def state_of(module: LightningModule) -> dict[str, Any]:
    """What each metric in ``module`` has seen so far, by its path."""
    states: dict[str, Any] = {}
    for path, metric in metrics_of(module).items():
        if isinstance(metric, nn.Module):
            states[path] = _module_state(metric)
        elif _has_state(metric):
            state = metric.state_dict()
            if is_plain(state):
                states[path] = {"state_dict": pack(state)}
            else:
                rank_zero_warn(
                    f"the state of the metric {path} ({type(metric).__name__}) is not saved: its `state_dict()` holds "
                    "more than tensors, numbers, texts, lists and dicts. Return only these."
                )
    return states


def restore(module: LightningModule, states: Mapping[str, Any], device: torch.device) -> None:
    """Give the metrics in ``module`` back what :func:`state_of` found."""
    for path, tracker in metrics_of(module).items():
        length = states.get(path, {}).get("length", 0)
        while length and len(tracker) < length:  # before those that are in it are looked for
            tracker.increment()
    for path, metric in metrics_of(module).items():
        state = states.get(path)
        if state is None:
            continue
        if not isinstance(metric, nn.Module):
            if _has_state(metric) and "state_dict" in state:
                metric.load_state_dict(unpack(state["state_dict"], device))
        elif state.get("states", {}).keys() != _names_of_states(metric):
            rank_zero_warn(
                f"the checkpoint's state of the metric {path} is of another kind of metric than the "
                f"{type(metric).__name__} that is there now: it begins anew."
            )
        else:
            _restore_module(metric, state, device)


def _has_state(metric: Any) -> bool:
    return all(callable(getattr(metric, name, None)) for name in ("state_dict", "load_state_dict"))


def _module_state(metric: Any) -> dict[str, Any]:
    """The states of a metric that is an ``nn.Module``, and whatever else it has changed in itself since it was made:
    wrappers count, and keep extremes.
    """
    at_start = vars(metric).setdefault(_AT_START, _attributes(metric))
    state: dict[str, Any] = {
        "attributes": {
            name: pack(value)
            for name, value in _attributes(metric).items()
            if name not in at_start or not same(value, at_start[name])
        },
        "buffers": {name: pack(value) for name, value in metric._buffers.items()},
    }
    if _is_of_torchmetrics(metric):
        state["states"] = {name: pack(getattr(metric, name)) for name in sorted(_names_of_states(metric))}
        state["update_count"] = metric._update_count
    if hasattr(metric, "increment") and hasattr(metric, "__len__"):  # one that keeps a copy of itself for each epoch
        state["length"] = len(metric)
    return state


def _restore_module(metric: Any, state: Mapping[str, Any], device: torch.device) -> None:
    now, saved = _attributes(metric), unpack(state["attributes"], device)
    for name, value in {**vars(metric).get(_AT_START, {}), **saved}.items():
        if name not in now or not same(now[name], value):
            setattr(metric, name, _copied(value))
    for name, buffer in state["buffers"].items():
        if name in metric._buffers:
            metric._buffers[name] = unpack(buffer, device)
    if "states" in state:
        for name, value in state["states"].items():
            setattr(metric, name, unpack(value, device))
        metric._update_count = state["update_count"]
        metric._computed = None


def _attributes(metric: nn.Module) -> dict[str, Any]:
    """The plain attributes of a metric that are none of its states."""
    states = _names_of_states(metric)
    return {
        name: _copied(value)
        for name, value in vars(metric).items()
        if name not in _NO_STATE and name not in states and is_plain(value)
    }


# -- plain data --------------------------------------------------------------------------------------------------------


def is_plain(value: Any) -> bool:
    """Whether ``value`` is made of tensors, numbers, texts, lists, tuples and dicts alone."""
    if isinstance(value, (list, tuple)):
        return type(value) in (list, tuple) and all(map(is_plain, value))
    if isinstance(value, dict):
        return all(type(key) in (str, int) and is_plain(item) for key, item in value.items())
    return value is None or isinstance(value, (bool, int, float, str, Tensor))


def pack(value: Any) -> Any:
    """``value`` (which :func:`is_plain`) as it goes into a file: tensors without graph, marked where they were on a
    device.
    """
    if isinstance(value, Tensor):
        value = value.detach()
        return value if value.device.type == "cpu" else {_ON_DEVICE: value}
    if isinstance(value, (list, tuple)):
        return type(value)(map(pack, value))
    if isinstance(value, dict):
        return {key: pack(item) for key, item in value.items()}
    for kind in (bool, int, float, str):  # a number of numpy's is also one of Python's, but no plain one
        if isinstance(value, kind):
            return kind(value)
    return value


def unpack(value: Any, device: torch.device) -> Any:
    """What :func:`pack` made of a value, as it was: a copy, on ``device`` what was not on the CPU. What was one tensor
    stays one.
    """
    return _moved(deepcopy(value), device)


def _moved(value: Any, device: torch.device) -> Any:
    if isinstance(value, (list, tuple)):
        return type(value)(_moved(item, device) for item in value)
    if isinstance(value, dict):
        if value.keys() == {_ON_DEVICE}:
            return value[_ON_DEVICE].to(device)
        return {key: _moved(item, device) for key, item in value.items()}
    return value


def _copied(value: Any) -> Any:
    if isinstance(value, Tensor):
        return value.detach().clone()
    if isinstance(value, (list, tuple)):
        return type(value)(map(_copied, value))
    return {key: _copied(item) for key, item in value.items()} if isinstance(value, dict) else value


def same(one: Any, other: Any) -> bool:
    """Whether two plain values are equal, tensors bit for bit."""
    if type(one) is not type(other):
        return False
    if isinstance(one, Tensor):
        return (one.dtype, one.device) == (other.dtype, other.device) and torch.equal(one, other)
    if isinstance(one, (list, tuple)):
        return len(one) == len(other) and all(map(same, one, other))
    if isinstance(one, dict):
        return one.keys() == other.keys() and all(same(value, other[key]) for key, value in one.items())
    try:
        return bool(one == other)
    except (RuntimeError, ValueError, TypeError):  # arrays, which compare element by element
        return False
