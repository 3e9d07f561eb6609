"""Callbacks that installed packages add to every Trainer, by entry points.

A package names a function that takes nothing and returns a callback, or a list of them, in its ``pyproject.toml``::

    [project.entry-points."fulmen.callbacks_factory"]
    monitor = "package.module:make_callbacks"
"""

from __future__ import annotations

import sys
from functools import cache
from importlib.metadata import EntryPoint, entry_points
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

from fulmen.utilities.exceptions import MisconfigurationException

if TYPE_CHECKING:
    from fulmen.callbacks.callback import Callback

GROUP = "fulmen.callbacks_factory"
#: the groups of packages that were written for Lightning: of use where `import lightning` gives Fulmen
GROUPS_OF_LIGHTNING = ("lightning.pytorch.callbacks_factory", "pytorch_lightning.callbacks_factory")


def external_callbacks(
    group: str = GROUP, groups_of_lightning: tuple[str, ...] = GROUPS_OF_LIGHTNING
) -> list[tuple[str, list[Callback]]]:
    """What the factories of installed packages give, each with a description of where it comes from.

    Of a package with entries in several groups, those in the first one count.

    Args:
        groups_of_lightning: asked, too, if the import aliases are installed (:func:`fulmen.compat.install`).

    Raises:
        MisconfigurationException: a factory cannot be imported, or fails.
    """
    groups = (group, *groups_of_lightning)
    found = _entries(groups, tuple(sys.path))
    if not found:
        return []
    if not _aliases_are_installed():
        groups = (group,)
    given: list[tuple[str, list[Callback]]] = []
    taken: dict[str, str] = {}
    for name in groups:
        for entry in found:
            package = entry.dist.name if entry.dist is not None else entry.module
            if entry.group == name and taken.setdefault(package, name) == name:
                place = f"the entry point {entry.name!r} of the package {package!r}"
                given.append((place, _made_by(entry, place, package)))
    return given


@cache
def _entries(groups: tuple[str, ...], path: tuple[str, ...]) -> tuple[EntryPoint, ...]:
    """What there is in these groups; ``path`` says where it is looked for."""
    installed = entry_points()  # once, as each of these reads the metadata of all packages
    return tuple(entry for group in groups for entry in installed.select(group=group))


def _aliases_are_installed() -> bool:
    spec = find_spec("lightning")
    return spec is not None and spec.origin == "fulmen.compat"


def _made_by(entry: EntryPoint, place: str, package: str) -> list[Any]:
    try:
        made = entry.load()()
    except Exception as error:
        raise MisconfigurationException(
            f"{place} ({entry.group} = {entry.value!r}), which adds callbacks to every Trainer, failed: "
            f"{type(error).__name__}: {error}. Mend or update the package, or take it away: `pip uninstall {package}`."
        ) from error
    return list(made) if isinstance(made, (list, tuple)) else [made]
