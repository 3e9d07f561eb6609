"""Loaders that a run cannot go on with exactly: found before it starts, as far as they can be."""

from __future__ import annotations

import dis
import os
import random
from collections.abc import Iterator
from itertools import chain
from types import CodeType, FunctionType, GeneratorType, ModuleType
from typing import Any

import torch

from fulmen.trainer.sources import Source
from fulmen.trainer.streams import samplers_of
from fulmen.utilities.data import has_iterable_dataset
from fulmen.utilities.generators import generators_in
from fulmen.utilities.rank_zero import rank_zero_warn
from fulmen.utilities.text import a_kind

#: functions of torch that draw from its own generator, unless they are given another
_OF_TORCH = (torch.randperm, torch.rand, torch.randn, torch.randint, torch.multinomial, torch.normal, torch.bernoulli)
_OF_PYTHON = random.shuffle.__self__  # type: ignore[attr-defined]
_NO_DRAWS = ("seed", "getstate", "setstate", "get_state", "set_state")
_GIVE_STATE = "Give it `state_dict` and `load_state_dict`, which are then asked"


def warn_of_inexact(sources: list[Source], hook: str) -> None:
    """Say of each training loader why a run that is stopped could not go on exactly where it stood; most can.

    Args:
        hook: the hook that gives them.
    """
    for source in sources:
        for reason in _reasons(source):
            rank_zero_warn(
                f"the loader from `{hook}` cannot be resumed exactly: {reason}. A run that goes on from a checkpoint "
                "of this one gets other samples or other random numbers than it would have had."
            )


def _reasons(source: Source) -> Iterator[str]:
    loader = source.loader
    workers, persistent = getattr(loader, "num_workers", 0), getattr(loader, "persistent_workers", False)
    if not source.is_in_order:
        yield f"`in_order=False` gives the batches as its {workers} workers have them. Write `in_order=True`"
    if source.state_owner is None:
        dataset, is_iterable = getattr(loader, "dataset", None), has_iterable_dataset(loader)
        if workers and (not is_iterable or persistent):
            for path in generators_in(dataset):
                yield (
                    f"{a_kind(dataset)} draws from a generator of its own, `{path}`, and each worker changes a copy of "
                    "it. Draw from `torch`, `random` or `numpy.random`, which are seeded for each batch"
                )
        if not source.is_read_once and dataset is None:
            yield from _hidden_state(loader)
        if is_iterable and (not workers or persistent):
            yield from _hidden_state(dataset)
        for made in (None if dataset is not None else loader, dataset if is_iterable else None):
            yield from _order_by_chance(made)
    for sampler in samplers_of(loader):
        if not callable(getattr(sampler, "state_dict", None)):
            yield from _hidden_state(sampler)
            yield from _order_by_chance(sampler)


def _hidden_state(iterable: Any) -> Iterator[str]:
    """What changes in ``iterable`` from one pass to the next, and is saved by nobody."""
    for name, value in getattr(iterable, "__dict__", {}).items():
        if isinstance(value, GeneratorType):
            yield f"{a_kind(iterable)} keeps a generator, `{name}`, and nobody can tell where that is. {_GIVE_STATE}"
    if callable(getattr(iterable, "set_epoch", None)):
        return  # it is told what it would have to count
    for name in _counters(iterable):
        yield f"{a_kind(iterable)} counts in `self.{name}` when it is iterated over, which nobody saves. {_GIVE_STATE}"


def _order_by_chance(iterable: Any) -> Iterator[str]:
    """What is random in ``iterable`` from the moment at which it was made, and nobody repeats in another process."""
    if "PL_GLOBAL_SEED" in os.environ:  # of `seed_everything`
        return
    for call in _draws_when_made(iterable):
        yield (
            f"{a_kind(iterable)} draws from `{call}` when it is made, which nothing has seeded, so that another "
            "process makes it otherwise. Write `seed_everything(1)` before that, or draw in `__iter__`"
        )
        return


def _draws_when_made(iterable: Any) -> Iterator[str]:
    """The calls in its ``__init__`` that draw from the generators of the process."""
    function = getattr(type(iterable), "__init__", None)
    if not isinstance(function, FunctionType) or function.__module__.startswith(("torch.", "fulmen.")):
        return
    codes = list(_codes(function.__code__))
    by_another = any(isinstance(one, tuple) and "generator" in one for code in codes for one in code.co_consts)
    value, path = None, ""
    for instruction in chain.from_iterable(map(dis.get_instructions, codes)):
        name = instruction.argval
        if instruction.opname == "LOAD_GLOBAL":
            value, path = function.__globals__.get(name), name
        elif instruction.opname in ("LOAD_ATTR", "LOAD_METHOD") and isinstance(value, ModuleType):
            value, path = getattr(value, name, None), f"{path}.{name}"
        else:
            value = None
        if _draws(value) or (not by_another and any(value is one for one in _OF_TORCH)):
            yield path


def _codes(code: CodeType) -> Iterator[CodeType]:
    """The code of a function with the comprehensions in it."""
    yield code
    for part in code.co_consts:
        if isinstance(part, CodeType) and part.co_name.startswith("<") and part.co_name != "<lambda>":
            yield from _codes(part)


def _draws(value: Any) -> bool:
    """Whether it is a function of ``random`` or ``numpy.random`` that draws from the generator of the process."""
    owner = getattr(value, "__self__", None)
    kind, name = type(owner), getattr(value, "__name__", "")
    of_numpy = kind.__module__.startswith("numpy.random") and kind.__name__ == "RandomState"
    return (of_numpy or owner is _OF_PYTHON) and name not in _NO_DRAWS


def _counters(iterable: Any) -> list[str]:
    """The numbers that its ``__iter__`` changes and does not set back: attributes that are read and written there."""
    function = getattr(type(iterable), "__iter__", None)
    if not isinstance(function, FunctionType) or function.__module__.startswith("torch."):
        return []
    read: set[str] = set()
    counted: dict[str, None] = {}
    set_back: set[str] = set()
    before = ""
    for instruction in dis.get_instructions(function):
        name = instruction.argval
        if instruction.opname == "LOAD_ATTR":
            read.add(name)
        elif instruction.opname == "STORE_ATTR":
            # the value of an assignment is loaded before the object
            if before in ("LOAD_CONST", "LOAD_SMALL_INT"):
                set_back.add(name)
            elif name in read:
                counted[name] = None
        if not instruction.opname.startswith("LOAD_FAST"):
            before = instruction.opname
    values = getattr(iterable, "__dict__", {})
    return [name for name in counted if name not in set_back and type(values.get(name)) in (int, float)]
