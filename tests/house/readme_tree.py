"""The tree of source files in the README, each with its purpose: the first sentence of the file's docstring.

python -m tests.house.readme_tree    write it into README.md anew (also: make lists)
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

from .source import PACKAGE, REPOSITORY, syntax_tree

README = REPOSITORY / "README.md"
BEFORE, AFTER = "```text\nsrc/fulmen/\n", "```"
WIDEST = 140


def tree() -> str:
    """The lines between the markers."""
    rows = list(_rows(PACKAGE, "  "))
    column = max(len(name) for name, _ in rows) + 2
    return "".join(f"{name:{column}}{purpose(path, WIDEST - column)}".rstrip() + "\n" for name, path in rows)


def _rows(folder: Path, indent: str) -> Iterator[tuple[str, Path]]:
    """What stands in the left column, and the file that says what it is for: files of a folder, then its folders."""
    for file in sorted(folder.glob("*.py")):
        if file.name != "__init__.py" or folder == PACKAGE:
            yield f"{indent}{file.name}", file
    for inner in sorted(path for path in folder.iterdir() if (path / "__init__.py").exists()):
        yield f"{indent}{inner.name}/", inner / "__init__.py"
        yield from _rows(inner, f"{indent}  ")


def purpose(path: Path, width: int) -> str:
    """The first sentence of a docstring in plain text; only up to its colon or comma where it does not fit."""
    sentence = (ast.get_docstring(syntax_tree(path)) or "").partition("\n")[0].partition(". ")[0].removesuffix(".")
    sentence = re.sub(r":\w+:(?=`)|`", "", sentence)
    for mark in (": ", "; ", ", "):
        while len(sentence) > width and mark in sentence:
            sentence = sentence.rpartition(mark)[0]
    return sentence


def readme_with(new_tree: str) -> str:
    """The text of the README with ``new_tree`` in place of its own."""
    start, _, rest = README.read_text(encoding="utf-8").partition(BEFORE)
    _, _, end = rest.partition(AFTER)
    return start + BEFORE + new_tree + AFTER + end


if __name__ == "__main__":
    README.write_text(readme_with(tree()), encoding="utf-8")
    print(f"wrote the tree in {README}")
