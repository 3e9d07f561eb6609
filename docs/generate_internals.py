"""Write ``docs/internals.md``: what packages reach for of the inside of Lightning, and what it is here.

Run ``python docs/generate_internals.py`` from anywhere; a test compares the file with what this makes.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from fulmen.callbacks.checkpointing.private_names import NOT_CALLED as OF_CHECKPOINTS
from fulmen.strategies.strategy import NOT_CALLED as OF_STRATEGIES
from fulmen.trainer.views import OF_CLASSES, OVERRIDDEN, TABLE
from fulmen.utilities.internals import Row

PAGE = Path(__file__).with_name("internals.md")

_HEAD = """# The inside of Lightning, as other packages use it

Some packages reach for what Lightning keeps for itself. What current ones reach for is there, as views: nothing is kept
twice, a read goes to the one place that has the fact, a write goes there too, and a run in which nobody asks pays
nothing. What is not there is an `AttributeError` that says what to write instead. New programs should write what stands
under *here it is*.

This page is made by `docs/generate_internals.py` from the tables in `fulmen.trainer.views`.
"""


def page() -> str:
    """The whole page."""
    offered, others = [row for row in TABLE if row.read is not None], [row for row in TABLE if row.read is None]
    parts = [
        _HEAD,
        "\n## Views of the trainer\n\nAll of them begin with `trainer.`; *set* says that it can also be set.\n\n",
        _rows(offered, writable=True),
        "\n## What is not there\n\n",
        _rows(others),
        "\n## Names of other classes\n\n",
        _rows(OF_CLASSES),
        "\n## Methods of the inside that may be overridden\n\nThey are called where Lightning calls them.\n\n",
        _rows(OVERRIDDEN),
        "\n## Methods that are not called\n\nA class that writes one of these is told so when it is defined.\n\n",
        "| method | write instead |\n|---|---|\n",
        *(f"| `ModelCheckpoint.{name}` | {instead} |\n" for name, instead in sorted(OF_CHECKPOINTS.items())),
        *(f"| `Strategy.{name}` | {instead} |\n" for name, instead in sorted(OF_STRATEGIES.items())),
    ]
    return "".join(parts)


def _rows(rows: Iterable[Row], writable: bool = False) -> str:
    """A table; rows that differ in the last part of the path alone stand in one line."""
    lines: dict[tuple[str, ...], list[str]] = {}
    for row in rows:
        above, _, name = row.path.rpartition(".")
        key = (above, row.modern, ", ".join(row.users), "set" if row.write is not None else "")
        lines.setdefault(key, []).append(name)
    text = "| name | here it is | used by |" + (" |\n|---|---|---|---|\n" if writable else "\n|---|---|---|\n")
    for (above, modern, users, is_set), names in lines.items():
        shown = ", ".join(f"`{name}`" for name in names)
        place = f"`{above}.` {shown}" if above and len(names) > 1 else f"`{above}.{names[0]}`" if above else shown
        here = modern if "`" in modern or " " in modern else f"`{modern}`"
        text += f"| {place} | {here} | {users} |" + (f" {is_set} |\n" if writable else "\n")
    return text


if __name__ == "__main__":
    PAGE.write_text(page())
