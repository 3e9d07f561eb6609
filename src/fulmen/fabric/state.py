"""From the state of a loop that its user writes to a checkpoint, and back."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from torch import nn
from torch.optim import Optimizer

from fulmen.fabric.wrappers import _FabricModule, _FabricOptimizer, _uncompiled
from fulmen.trainer.checkpoint import load_state
from fulmen.trainer.checkpoint_checks import take_back
from fulmen.utilities.text import a_kind, shown

if TYPE_CHECKING:
    from fulmen.strategies.strategy import Strategy

Filter = Callable[[str, Any], bool]


def plain(obj: Any) -> Any:
    """The module or optimizer that Fabric was given, of what it made of it; anything else as it is."""
    obj = _uncompiled(obj)
    if isinstance(obj, _FabricModule):
        return obj.module
    return obj.optimizer if isinstance(obj, _FabricOptimizer) else obj


def has_state(obj: Any) -> bool:
    """Whether it gives a state, and takes it back."""
    return callable(getattr(obj, "state_dict", None)) and callable(getattr(obj, "load_state_dict", None))


def checked_filters(filters: Any, state: Mapping[str, Any]) -> Mapping[str, Filter]:
    """``filter=`` of :meth:`Fabric.save`, checked.

    Raises:
        TypeError: it is no dict, or one of its values is no function.
        ValueError: it names an entry that the state has not.
    """
    if filters is None:
        return {}
    if not isinstance(filters, Mapping):
        raise TypeError(
            f"`fabric.save(filter={shown(filters)})`: write a dict of functions by the names of entries, as "
            "`{'model': lambda name, value: 'adapter' in name}`."
        )
    for name, keep in filters.items():
        if name not in state:
            raise ValueError(
                f"`fabric.save(filter=...)` has {name!r}, and the state has {sorted(map(str, state))}. Write one of "
                "these."
            )
        if not callable(keep):
            raise TypeError(
                f"`fabric.save(filter={{{name!r}: {shown(keep)}}})`: write a function of a name and a value."
            )
    return filters


def dumped(state: Mapping[str, Any], filters: Mapping[str, Filter], strategy: Strategy) -> dict[str, Any]:
    """The state as plain data; to be called on all processes."""
    found: dict[str, Any] = {}
    for name, entry in state.items():
        entry = plain(entry)
        if has_state(entry):
            entry = strategy.gathered(entry.state_dict())
        keep = filters.get(name)
        if keep is not None:
            if not isinstance(entry, Mapping):
                raise TypeError(
                    f"`fabric.save(filter=...)` has {name!r}, which is {a_kind(entry)}. Only a module, an optimizer, "
                    "or a dict can be filtered."
                )
            entry = {key: value for key, value in entry.items() if keep(key, value)}
        found[name] = entry
    return found


def put_back(
    checkpoint: dict[str, Any], state: dict[str, Any], strict: bool, strategy: Strategy, source: str
) -> dict[str, Any]:
    """Give the entries of ``state`` what the checkpoint has of them; returns what is left of the checkpoint.

    Raises:
        KeyError: ``strict``, and the checkpoint lacks an entry.
    """
    missing = [name for name in state if name not in checkpoint]
    if missing and strict:
        raise KeyError(
            f"{source} has no {', '.join(map(repr, missing))}; it has {sorted(map(str, checkpoint))}. Leave out what "
            "was not saved, or write `fabric.load(..., strict=False)`."
        )
    for name in state:
        if name in checkpoint:
            saved = checkpoint.pop(name)
            if has_state(plain(state[name])):
                give_back(state[name], saved, strict, strategy, source)
            else:
                state[name] = saved
    return checkpoint


def give_back(obj: Any, saved: Any, strict: bool, strategy: Strategy, source: str) -> None:
    """Give a module, an optimizer, or whoever has a state, that state back."""
    obj = plain(obj)
    if isinstance(obj, nn.Module):
        strategy.load_into(obj, saved, strict, source)
    elif isinstance(obj, Optimizer):
        load_state(obj, strategy.own_state(obj, saved), source)
    else:
        take_back(obj, saved, source)
