"""Random number generators that somebody keeps as an attribute: where they are, and their state."""

from __future__ import annotations

import random
import types
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import torch

from fulmen.utilities.rank_zero import rank_zero_warn

#: how far to look: attributes of attributes, and members of containers of so many
_DEPTH, _MEMBERS = 4, 64
_OPAQUE = (str, bytes, bytearray, int, float, complex, range, torch.Tensor, torch.nn.Parameter, type)
_OPAQUE += (types.ModuleType, types.FunctionType, types.BuiltinFunctionType, types.MethodType)


def generators_in(owner: Any, path: str = "", leave_out: Iterable[Any] = (), depth: int = _DEPTH) -> dict[str, Any]:
    """The generators (of torch, numpy and ``random``) that can be reached from ``owner`` over attributes, lists and
    dicts, each once, by the path to it.

    Args:
        path: the path to ``owner`` itself.
        leave_out: objects, and generators, to pass by.
        depth: how many steps to take at most.
    """
    found: dict[str, Any] = {}
    seen = {id(one) for one in leave_out}
    level = [(path, owner)]
    for _ in range(depth + 1):
        below: list[tuple[str, Any]] = []
        for place, value in level:
            if value is None or isinstance(value, _OPAQUE) or id(value) in seen:
                continue
            seen.add(id(value))
            if is_generator(value):
                found[place] = value
            else:
                below.extend(_parts(place, value))
        level = below
    return found


def _parts(place: str, value: Any) -> Iterator[tuple[str, Any]]:
    if isinstance(value, (list, tuple)):
        members: Any = enumerate(value)
    elif isinstance(value, Mapping):
        members = value.items()
    elif _belongs_to_a_library(value):
        return
    else:
        attributes = getattr(value, "__dict__", None)
        if type(attributes) is dict:
            yield from ((f"{place}.{name}" if place else name, part) for name, part in attributes.items())
        return
    if len(value) <= _MEMBERS:
        yield from ((f"{place}[{name!r}]", part) for name, part in members)


def _belongs_to_a_library(value: Any) -> bool:
    """Whether it is something large that holds no generator of the user's: a Trainer, an optimizer, an array."""
    module = type(value).__module__
    if module.startswith("torch."):
        return not module.startswith(("torch.utils.data", "torch.nn"))
    return module.startswith(("fulmen.", "numpy.", "torchmetrics."))


def is_generator(value: Any) -> bool:
    """Whether it is a random number generator with a state: one of torch, ``random`` or numpy."""
    if isinstance(value, random.Random):
        return not isinstance(value, random.SystemRandom)
    if isinstance(value, torch.Generator):
        return True
    return type(value).__module__.startswith("numpy.random") and (
        hasattr(value, "bit_generator") or hasattr(value, "get_state")
    )


# -- their state -------------------------------------------------------------------------------------------------------


def states_of(generators: Mapping[str, Any]) -> dict[str, Any]:
    """Their states as plain data, by path."""
    return {path: state_of(generator) for path, generator in generators.items()}


def restore_states(generators: Mapping[str, Any], states: Mapping[str, Any], owner: str) -> None:
    """Put back what :func:`states_of` gave; warns of those that are not there any more.

    Args:
        owner: whose they are, for the warning.
    """
    for path, state in states.items():
        generator = generators.get(path)
        if generator is None or _kind(generator) != state["kind"]:
            now = "there is none now" if generator is None else f"it is a {_kind(generator)} now"
            rank_zero_warn(
                f"the checkpoint holds the state of a random number generator of {owner}, a {state['kind']} at "
                f"`{path}`, and {now}: the run goes on with other random numbers."
            )
        else:
            set_state(generator, state["state"])


def _kind(generator: Any) -> str:
    if hasattr(generator, "bit_generator"):
        return type(generator.bit_generator).__name__
    return type(generator).__name__


def state_of(generator: Any) -> dict[str, Any]:
    """The state of one generator as plain data."""
    if isinstance(generator, torch.Generator):
        state: Any = generator.get_state()
    elif isinstance(generator, random.Random):
        state = generator.getstate()
    elif hasattr(generator, "bit_generator"):
        state = _plain(generator.bit_generator.state)
    else:
        state = _plain(generator.get_state(legacy=False))  # numpy's RandomState
    return {"kind": _kind(generator), "state": state}


def set_state(generator: Any, state: Any) -> None:
    """Put one generator into the ``"state"`` that :func:`state_of` gave."""
    if isinstance(generator, torch.Generator):
        generator.set_state(state.cpu())
    elif isinstance(generator, random.Random):
        version, words, gauss = state
        generator.setstate((version, tuple(words), gauss))
    elif hasattr(generator, "bit_generator"):
        generator.bit_generator.state = state
    else:
        generator.set_state(state)


def _plain(value: Any) -> Any:
    """The state of one of numpy's generators: a nest of dicts with numbers and arrays of them."""
    if isinstance(value, dict):
        return {name: _plain(part) for name, part in value.items()}
    return value.tolist() if hasattr(value, "tolist") else value
