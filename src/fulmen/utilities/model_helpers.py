"""What a user has written."""

from __future__ import annotations

from functools import partial
from typing import Any

_PARENTS = ("LightningModule", "LightningDataModule", "Callback")


def is_overridden(method_name: str, instance: object | None = None, parent: type[object] | None = None) -> bool:
    """Whether ``instance`` has its own ``method_name`` instead of its parent's.

    Args:
        method_name: the method's name.
        instance: the object in question; None and objects without such an attribute give False. An attribute of the
            instance counts, ``None`` as an attribute does not.
        parent: the class whose method counts as not overridden. None: ``LightningModule``, ``LightningDataModule`` or
            ``Callback``, whichever the instance derives from.

    Raises:
        ValueError: the parent is not given and cannot be found, or has no such method.
    """
    if instance is None:
        return False
    if parent is None:
        parent = _parent_of(type(instance))
    inherited = getattr(parent, method_name, None)
    if inherited is None:
        raise ValueError(f"is_overridden({method_name!r}): {parent.__name__} has no such method.")
    method = getattr(instance, method_name, None)
    return method is not None and _plain(method) is not _plain(inherited)


def _parent_of(cls: type[object]) -> type[object]:
    for ancestor in cls.__mro__:  # by name, since these classes live on the floors above
        if ancestor.__name__ in _PARENTS and ancestor.__module__.startswith("fulmen."):
            return ancestor
    raise ValueError(f"is_overridden: {cls.__name__} derives from none of {', '.join(_PARENTS)}. Pass `parent`.")


def _plain(method: Any) -> Any:
    """The function beneath decorators, ``functools.partial`` and binding."""
    while True:
        if isinstance(method, partial):
            method = method.func
        elif hasattr(method, "__wrapped__"):
            method = method.__wrapped__
        elif hasattr(method, "__func__"):
            method = method.__func__
        else:
            return method
