"""From the state of a loop that its user writes to a checkpoint, and back."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import TYPE_CHECKING, Any

from torch import Tensor, nn
from torch.optim import Optimizer

from fulmen.fabric.wrappers import _FabricModule, _FabricOptimizer, _uncompiled
from fulmen.trainer.checkpoint import load_state
from fulmen.trainer.checkpoint_checks import take_back
from fulmen.utilities.apply_func import apply_to_collection
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
        take_filtered(name, filters, entry, found)
    return found


def take_filtered(name: str, filters: Mapping[str, Filter], entry: Any, into: dict[str, Any]) -> None:
    """Put ``entry`` into a dict under its name; of a dict, what its filter lets through.

    Raises:
        TypeError: there is a filter, and the entry is no dict.
    """
    keep = filters.get(name)
    if keep is not None:
        if not isinstance(entry, Mapping):
            raise TypeError(
                f"`fabric.save(filter=...)` has {name!r}, which is {a_kind(entry)}. Only a module, an optimizer, or a "
                "dict can be filtered."
            )
        entry = {key: value for key, value in entry.items() if keep(key, value)}
    into[name] = entry


def check_names(requested: Iterable[str], there: Iterable[str], strict: bool = True, source: str = "the file") -> None:
    """See whether all entries that are asked for are there.

    Raises:
        KeyError: ``strict``, and one is not.
    """
    known = list(there)
    missing = [name for name in requested if name not in known]
    if missing and strict:
        raise KeyError(
            f"{source} has no {', '.join(map(repr, missing))}; it has {sorted(map(str, known))}. Leave out what was "
            "not saved, or write `fabric.load(..., strict=False)`."
        )


def move_into(source: dict[str, Any], destination: dict[str, Any], keys: set[str] | None = None) -> None:
    """Move entries of one dict into another, where whoever has a state takes it back.

    Args:
        keys: which entries. None: all.
    """
    for name in [name for name in source if keys is None or name in keys]:
        saved = source.pop(name)
        if has_state(destination.get(name)):
            destination[name].load_state_dict(saved)
        else:
            destination[name] = saved


def put_back(
    checkpoint: dict[str, Any], state: dict[str, Any], strict: bool, strategy: Strategy, source: str
) -> dict[str, Any]:
    """Give the entries of ``state`` what the checkpoint has of them; returns what is left of the checkpoint.

    Raises:
        KeyError: ``strict``, and the checkpoint lacks an entry.
    """
    check_names(state, checkpoint, strict, source)
    for name in state:
        if name in checkpoint:
            saved = checkpoint.pop(name)
            if has_state(plain(state[name])):
                give_back(state[name], saved, strict, strategy, source)
            else:
                state[name] = saved
    return checkpoint


def has_promises(checkpoint: dict[str, Any]) -> bool:
    """Whether there are tensors in it that were not read yet."""
    found: list[Tensor] = []
    apply_to_collection(checkpoint, Tensor, lambda tensor: found.append(tensor) if tensor.is_meta else None)
    return bool(found)


def give_back(obj: Any, saved: Any, strict: bool, strategy: Strategy, source: str) -> None:
    """Give a module, an optimizer, or whoever has a state, that state back."""
    obj = plain(obj)
    if isinstance(obj, nn.Module):
        strategy.load_into(obj, saved, strict, source)
    elif isinstance(obj, Optimizer):
        load_state(obj, strategy.own_state(obj, saved), source)
    else:
        take_back(obj, saved, source)
