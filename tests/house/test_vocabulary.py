"""Names say what a thing is: words that fit anything are banned."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

from .source import PACKAGE, REPOSITORY, place, source_files, syntax_tree

BANNED = frozenset(
    """
    base bases connector connectors handler handlers helper helpers impl manager managers misc mixin mixins util utils
    """.split()
)
#: names that Lightning made public and users write, one per line; modules as paths
ALLOWED = frozenset((Path(__file__).parent / "lightning_names.txt").read_text().split())


def words(name: str) -> list[str]:
    """``_LRFinderHandler2`` -> ``lr finder handler``."""
    return [word.lower() for word in re.findall(r"[A-Z]+(?![a-z])|[A-Z]?[a-z]+", name)]


def names_defined_in(path: Path) -> Iterator[tuple[str, int]]:
    """The file's path, and the names of classes, functions, parameters, variables and attributes; with their lines."""
    yield path.relative_to(PACKAGE).as_posix(), 1
    for node in ast.walk(syntax_tree(path)):
        match node:
            case ast.ClassDef() | ast.FunctionDef() | ast.AsyncFunctionDef():
                yield node.name, node.lineno
            case ast.arg():
                yield node.arg, node.lineno
            case ast.Name(ctx=ast.Store()):
                yield node.id, node.lineno
            case ast.Attribute(ctx=ast.Store()):
                yield node.attr, node.lineno


def test_no_name_contains_a_banned_word() -> None:
    offences = [
        f"{place(path, line)}: {name}"
        for path in source_files()
        for name, line in names_defined_in(path)
        if name not in ALLOWED and BANNED & set(words(name))
    ]
    assert not offences, "say what it is or does instead:\n" + "\n".join(offences)


def test_every_allowed_name_is_still_in_use() -> None:
    in_use = {name for path in source_files() for name, _ in names_defined_in(path)}
    assert not ALLOWED - in_use


def test_no_folder_has_a_banned_name() -> None:
    folders = [path for path in PACKAGE.rglob("*") if path.is_dir() and BANNED & set(words(path.name))]
    assert not folders


FOREIGN = {
    "an issue number": re.compile(r"(?<![\w&/#.])#\d{2,}\b|\b(?:PL|GH|issue|PR) ?#\d+"),
    "a link to an issue": re.compile(r"github\.com/\S+/(?:issues|pull)/\d+"),
    "a path of one machine": re.compile(r"(?<![\w.])/(?:work|root|home|Users)/\w"),
    "a way of working": re.compile(r"\b(?:worktree|integrator|sub-?agent|chatgpt|claude|copilot)s?\b", re.IGNORECASE),
}
SPOKEN = (
    "src",
    "tests",
    "examples",
    "docs",
    "benchmarks",
    "README.md",
    "Makefile",
    "pyproject.toml",
    "constraints.txt",
    ".ci",
)


def texts() -> Iterator[Path]:
    for name in SPOKEN:
        start = REPOSITORY / name
        for path in [start] if start.is_file() else sorted(start.rglob("*")):
            if path.suffix in (".py", ".md", ".toml", ".txt", ".yaml", ".yml", "") and path.is_file():
                yield path


def test_the_project_speaks_of_itself_alone() -> None:
    offences = [
        f"{place(path, number)} has {what}: {line.strip()}"
        for path in texts()
        if path != Path(__file__)
        for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), start=1)
        for what, pattern in FOREIGN.items()
        if pattern.search(line)
    ]
    assert not offences, "\n".join(offences)
