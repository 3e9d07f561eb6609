"""Write ``docs/errors.md``: every misuse in the tests' table, and what Fulmen says to it.

Run ``python docs/generate_errors.py`` from anywhere; a test compares the file with what this makes.
"""

from __future__ import annotations

import contextlib
import io
import os
import sys
import tempfile
from itertools import groupby
from pathlib import Path

DOCS = Path(__file__).resolve().parent
sys.path.insert(0, str(DOCS.parent / "tests" / "trainer"))

from misuses import MISUSES, Misuse, Scene, outcome  # noqa: E402  # it lies in the folder of the tests

_HEAD = """# What Fulmen says when something is wrong

Each row is a mistake, the type of the exception or warning that comes of it, and the message. A message names what was
asked and its value, why it cannot be, and what to write instead. `<folder>` stands for a path.

This page is made by `docs/generate_errors.py` from the table that the tests run.
"""


def row(misuse: Misuse) -> str:
    """One line of the page's tables."""
    with tempfile.TemporaryDirectory() as name, contextlib.redirect_stdout(io.StringIO()):
        before = os.getcwd()
        os.chdir(name)  # what is written into the working directory belongs to nobody
        folder = Path(name) / "folder"
        folder.mkdir()
        try:
            came = outcome(misuse, Scene(folder))
        finally:
            os.chdir(before)
    kind = came.kind.__name__ if came.kind is not None else ""
    return f"| {_cell(misuse.name)} | {kind} | {_cell(came.text)} |\n"


def _cell(text: str) -> str:
    """Text for a table of Markdown: what is between backticks stays as it is."""
    parts = text.replace("|", "\\|").replace("\n", "<br>").split("`")
    for place in range(0, len(parts), 2):
        for mark in ("*", "_", "[", "<folder"):
            parts[place] = parts[place].replace(mark, "\\" + mark)
    return "`".join(parts)


def page() -> str:
    """The whole page."""
    rows = sorted(
        MISUSES.values(), key=lambda misuse: [*dict.fromkeys(m.subject for m in MISUSES.values())].index(misuse.subject)
    )
    parts = [_HEAD]
    for subject, misuses in groupby(rows, key=lambda misuse: misuse.subject):
        parts.append(f"\n## {subject}\n\n| Mistake | Type | Message |\n|---|---|---|\n")
        parts += [row(misuse) for misuse in misuses]
    return "".join(parts)


if __name__ == "__main__":
    (DOCS / "errors.md").write_text(page(), encoding="utf-8")
