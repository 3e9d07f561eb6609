"""The package's source as the house tests read it: files, module names, syntax trees, imports."""

from __future__ import annotations

import ast
import importlib.util
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path

REPOSITORY = Path(__file__).parents[2]
PACKAGE = REPOSITORY / "src" / "fulmen"


@cache
def source_files() -> tuple[Path, ...]:
    """Every Python file of the package."""
    return tuple(sorted(PACKAGE.rglob("*.py")))


@cache
def syntax_tree(path: Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"), filename=str(path))


def module_name(path: Path) -> str:
    """``src/fulmen/core/hooks.py`` -> ``fulmen.core.hooks``; a package is named without ``__init__``."""
    parts = path.relative_to(PACKAGE.parent).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


@cache
def module_names() -> frozenset[str]:
    return frozenset(module_name(path) for path in source_files())


@cache
def packages() -> frozenset[str]:
    """The modules that are a folder with an ``__init__.py``: the front doors."""
    return frozenset(module_name(path) for path in source_files() if path.name == "__init__.py")


@dataclass(frozen=True, slots=True)
class Import:
    """One import of something of Fulmen.

    Attributes:
        module: the module named in the statement.
        name: what is taken from it; None for ``import module``.
        line: where.
        for_types_only: whether it stands under ``if TYPE_CHECKING``.
        at_import_time: whether it runs when the importing module is imported, not later within a function.
    """

    module: str
    name: str | None
    line: int
    for_types_only: bool
    at_import_time: bool

    @property
    def target(self) -> str:
        """The module that this import needs: ``from package import module`` names a module, too."""
        submodule = f"{self.module}.{self.name}"
        return submodule if submodule in module_names() else self.module


def house_imports(path: Path) -> list[Import]:
    """Every import of Fulmen's own modules in a file."""
    return [found for found in _imports(syntax_tree(path), module_name(path), path) if _is_ours(found.module)]


def _is_ours(module: str) -> bool:
    return module == "fulmen" or module.startswith("fulmen.")


def _imports(tree: ast.AST, importer: str, path: Path) -> Iterator[Import]:
    package = importer if path.name == "__init__.py" else importer.rpartition(".")[0]

    def visit(node: ast.AST, for_types_only: bool, at_import_time: bool) -> Iterator[Import]:
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield Import(alias.name, None, node.lineno, for_types_only, at_import_time)
        elif isinstance(node, ast.ImportFrom):
            relative = "." * node.level + (node.module or "")
            module = importlib.util.resolve_name(relative, package) if node.level else relative
            for alias in node.names:
                yield Import(module, alias.name, node.lineno, for_types_only, at_import_time)
        elif isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test):
            for child in node.body:
                yield from visit(child, True, at_import_time)
            for child in node.orelse:
                yield from visit(child, for_types_only, at_import_time)
        else:
            within_function = isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda)
            for child in ast.iter_child_nodes(node):
                yield from visit(child, for_types_only, at_import_time and not within_function)

    yield from visit(tree, False, True)


def place(path: Path, line: int) -> str:
    """``src/fulmen/core/hooks.py:12``, as editors and terminals understand it."""
    return f"{path.relative_to(REPOSITORY)}:{line}"
