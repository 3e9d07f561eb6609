"""Which of the names that packages take from Lightning Fulmen has: ``python -m tests.compat.census`` lists the others.

``census.txt`` was counted over 99 packages that use Lightning: how many of them name it, and the name, where ``pl`` is
``lightning.pytorch`` and ``fabric`` is ``lightning.fabric``.
"""

from __future__ import annotations

from collections.abc import Iterator
from importlib import import_module
from pathlib import Path

from fulmen.compat.table import home_of, target_of

_ROOTS = {"pl": "lightning.pytorch", "fabric": "lightning.fabric"}


def counted() -> Iterator[tuple[int, str]]:
    """How many packages use a name, and the name, as Lightning has it."""
    for line in Path(__file__).with_name("census.txt").read_text().splitlines():
        count, name = line.split()
        root, dot, rest = name.partition(".")
        yield int(count), _ROOTS.get(root, root) + dot + rest


def is_there(path: str) -> bool:
    """Whether Fulmen has what Lightning calls ``path``: a module, or what is in one, however deep."""
    parts = path.split(".")
    end = next((end for end in range(len(parts), 0, -1) if target_of(".".join(parts[:end])) is not None), 0)
    if end == len(parts) or parts[end:] == ["__version__"]:
        return True
    home = home_of(".".join(parts[:end]), parts[end]) if end else None
    if home is None:
        return False
    found = import_module(home[0])
    for attribute in (home[1], *parts[end + 1 :]):
        if not hasattr(found, attribute):
            return False
        found = getattr(found, attribute)
    return True


if __name__ == "__main__":
    missing = [f"{count:3} {name}" for count, name in counted() if not is_there(name)]
    print("\n".join(missing))
    print(f"{len(missing)} of {sum(1 for _ in counted())} are not there")
