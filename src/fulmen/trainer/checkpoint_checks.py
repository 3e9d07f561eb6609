"""Whether the values in a checkpoint are what a run can be restored from: found out before anything is put back."""

from __future__ import annotations

import random
from collections.abc import Callable, Generator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor
from torch.optim import Optimizer

from fulmen.utilities.text import plainly

#: what a damaged or made-up state makes of the code that takes it back
WRONG_STATE = (ArithmeticError, AttributeError, LookupError, RuntimeError, TypeError, ValueError)


def check_values(checkpoint: dict[str, Any], source: Any, training: bool) -> None:
    """Look at the entries that the trainer itself takes back.

    Args:
        source: the file, for messages.
        training: whether a run is to go on from it; if not, only weights and callbacks count.

    Raises:
        ValueError: one is of another kind, or out of bounds.
    """
    entries: list[tuple[str, Callable[[Any], str | None]]] = [("state_dict", _weights), ("callbacks", _mapping)]
    if training:
        entries += [
            ("epoch", _count),
            ("global_step", _count),
            ("loops", _mapping),
            ("optimizer_states", _list_of_mappings),
            ("lr_schedulers", _list),
            ("resume", _resume),
        ]
    for name, wrong in entries:
        if name in checkpoint:
            expected = wrong(checkpoint[name])
            if expected is not None:
                raise ValueError(
                    f"{source} cannot be restored: `{name}` must be {expected}, but is {plainly(checkpoint[name])}. "
                    "Take another checkpoint, or load its weights alone: `Model.load_from_checkpoint(path)`."
                )


def check_counters(counters: Mapping[str, Any], source: Any) -> None:
    """Look at the clock of a run.

    Raises:
        ValueError: one of ``counters`` is neither a whole number from 0 on nor a yes or no.
    """
    for name, value in counters.items():
        if type(value) is not bool and _count(value) is not None:
            raise ValueError(
                f"{source} cannot be restored: its counter `{name}` must be a whole number from 0 on, but is "
                f"{plainly(value)}. Take another checkpoint, or load its weights alone: "
                "`Model.load_from_checkpoint(path)`."
            )


@contextmanager
def fitting(what: str, source: Any) -> Generator[None, None, None]:
    """Around restoring a part of the trainer's own from a checkpoint.

    Raises:
        ValueError: it did not fit; names ``what`` and the file.
    """
    try:
        yield
    except WRONG_STATE as error:
        raise ValueError(
            f"{source} cannot be restored: {what} in it does not fit ({type(error).__name__}: {error}). "
            "Take another checkpoint, or load its weights alone: `Model.load_from_checkpoint(path)`."
        ) from error


def take_back(owner: Any, state: Any, source: Any) -> None:
    """``owner.load_state_dict(state)``, with an error that names the owner and the file.

    Raises:
        ValueError: the state does not fit. An owner of the user's own raises what it raises, with a note.
    """
    name = type(owner).__name__
    if type(owner).__module__.partition(".")[0] in ("fulmen", "torch"):
        with fitting(f"the state of {name}", source):
            owner.load_state_dict(state)
        return
    try:
        owner.load_state_dict(state)
    except WRONG_STATE as error:
        error.add_note(f"{name} was taking back its state from {source}.")
        raise


def check_optimizer_state(optimizer: Optimizer, state: Any, source: Any) -> None:
    """Look at what torch takes back unseen, and would use in the next step.

    Raises:
        ValueError: the state of a parameter is no dict, or an option that is a number here is none there.
    """
    groups = state.get("param_groups")
    numbers = [
        (name, saved[name])
        for own, saved in zip(optimizer.param_groups, groups if isinstance(groups, list) else ())
        if isinstance(saved, Mapping)
        for name, value in own.items()
        if isinstance(value, (int, float)) and name in saved
    ]
    wrong = [f"`{name}` is {plainly(value)}" for name, value in numbers if not isinstance(value, (int, float, Tensor))]
    states = state.get("state", {})
    if not isinstance(states, Mapping) or any(_mapping(of_one) is not None for of_one in states.values()):
        wrong.append("`state` is no dict of dicts")
    if wrong:
        raise ValueError(
            f"{source} cannot be restored: the state of {type(optimizer).__name__} in it does not fit "
            f"({', '.join(wrong)}). Take another checkpoint, or load its weights alone: "
            "`Model.load_from_checkpoint(path)`."
        )


# -- each says what an entry must be, or None if it is that ------------------------------------------------------------


def _count(value: Any) -> str | None:
    return None if type(value) is int and 0 <= value < 2**63 else "a whole number from 0 on"


def _mapping(value: Any) -> str | None:
    return None if isinstance(value, Mapping) else "a dict"


def _list(value: Any) -> str | None:
    return None if isinstance(value, (list, tuple)) else "a list"


def _list_of_mappings(value: Any) -> str | None:
    return None if _list(value) is None and all(isinstance(one, Mapping) for one in value) else "a list of dicts"


def _weights(value: Any) -> str | None:
    return None if isinstance(value, Mapping) and all(type(key) is str for key in value) else "a dict of names"


def _resume(value: Any) -> str | None:
    if not isinstance(value, Mapping):
        return "a dict"
    if "random" in value and not _are_random_states(value["random"]):
        return "a dict whose `random` holds the states of generators"
    gradients = value.get("gradients", {})
    if not isinstance(gradients, Mapping) or not all(isinstance(one, Tensor) for one in gradients.values()):
        return "a dict whose `gradients` are tensors by name"
    if not isinstance(value.get("module_metrics", {}), Mapping):
        return "a dict whose `module_metrics` is one, too"
    if _list_of_mappings(value.get("loggers", [])) is not None:
        return "a dict whose `loggers` says of each logger how far it had written"
    wrong = _data(value["data"]) if "data" in value else None
    if wrong is None and not isinstance(value.get("window", {}), Mapping):
        wrong = "`window` is one, too"
    return None if wrong is None else f"a dict whose {wrong}"


def _data(data: Any) -> str | None:
    """What is wrong with the entry that says where the loaders stand."""
    if not isinstance(data, Mapping) or type(data.get("seed")) is not int:
        return "`data` holds the `seed` of the data sets"
    loads = data.get("loads")
    if not isinstance(loads, Mapping) or any(_count(_entry(load, "epoch")) is not None for load in loads.values()):
        return "`data` says in which epoch loaders were asked for"
    if "random" in data and not _are_random_states(data["random"]):
        return "`data` holds the states of generators"
    if any(_count(data.get(name, 1)) is not None for name in ("rows", "processes")):
        return "`data` counts batches and processes"
    for stage, marks in data.items():
        if stage in ("seed", "loads", "random", "rows", "processes"):
            continue
        if _list_of_mappings(marks) is not None:
            return "`data` says of each loader where it stands"
        if any(_count(_entry(mark, name)) is not None for mark in marks for name in _PLACES):
            return "`data` says of each loader at which batch it stands"
    return None


_PLACES = ("position", "passes", "taken", "opened")


def _entry(value: Any, name: str) -> Any:
    return value.get(name) if isinstance(value, Mapping) else None


def _are_random_states(states: Any) -> bool:
    """Whether generators take them: tried on some that nobody uses."""
    try:
        torch.Generator().set_state(states["torch"].cpu())
        version, words, gauss = states["python"]
        random.Random().setstate((version, tuple(words), gauss))
        if "numpy" in states:
            import numpy.random

            numpy.random.RandomState().set_state(tuple(states["numpy"]))
    except ModuleNotFoundError:
        return True
    except WRONG_STATE:
        return False
    return True
