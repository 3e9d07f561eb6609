"""Budgets: what must stay small enough to be read in one sitting."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

from .source import PACKAGE, place, source_files, syntax_tree

MOST_LINES_OF_A_FILE = 750
MOST_LINES_OF_A_FUNCTION = 80
BUDGETS = {"loops/fit.py": 250, "trainer/trainer.py": 800}


def lines_of(path: Path) -> int:
    return len(path.read_text(encoding="utf-8").splitlines())


def body_lines(function: ast.FunctionDef | ast.AsyncFunctionDef) -> int:
    """The lines of the function without its decorators, signature and docstring."""
    body = function.body
    if isinstance(body[0], ast.Expr) and isinstance(body[0].value, ast.Constant):
        body = body[1:]
    return (function.end_lineno or 0) - body[0].lineno + 1 if body else 0


def test_every_file_is_within_the_budget() -> None:
    too_long = {
        place(path, 1): lines_of(path)
        for path in source_files()
        if lines_of(path) > BUDGETS.get(path.relative_to(PACKAGE).as_posix(), MOST_LINES_OF_A_FILE)
    }
    assert not too_long


@pytest.mark.parametrize("name", BUDGETS)
def test_the_file_with_a_budget_of_its_own_is_there(name: str) -> None:
    assert (PACKAGE / name).is_file()


def test_every_function_is_within_the_budget() -> None:
    too_long = {
        f"{place(path, node.lineno)} {node.name}": body_lines(node)
        for path in source_files()
        for node in ast.walk(syntax_tree(path))
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and body_lines(node) > MOST_LINES_OF_A_FUNCTION
    }
    assert not too_long
