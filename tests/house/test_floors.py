"""Imports go down the floors, never up, never in a circle, and never through a front door."""

from __future__ import annotations

import ast
from pathlib import Path

from .source import PACKAGE, house_imports, module_name, packages, place, source_files, syntax_tree

FLOORS: dict[str, int] = {
    "utilities": 0,
    "core": 1,
    "plugins": 1,
    "accelerators": 1,
    "strategies": 2,
    "loggers": 2,
    "profilers": 2,
    "callbacks": 3,
    "tuner": 3,
    "loops": 4,
    "trainer": 5,
    "arguments": 6,
    "checkpoints": 6,
    "cli": 6,
    "compat": 6,
    "demos": 6,
    "fabric": 6,
    "integrations": 6,
    "replay": 6,
    "search": 6,
    "__main__": 6,
}
FRONT_DOOR = PACKAGE / "__init__.py"
DEMOS = PACKAGE / "demos"  # written as a user writes: they come in through the front doors, and nothing may need them


def room(module: str) -> str:
    """``fulmen.core.hooks`` -> ``core``."""
    return module.split(".")[1]


def test_every_room_has_a_floor() -> None:
    rooms = {room(module_name(path)) for path in source_files() if path != FRONT_DOOR}
    assert rooms <= FLOORS.keys(), "give the new room a floor in FLOORS (and in the design)"


def test_imports_outside_of_annotations_never_go_up() -> None:
    going_up = [
        f"{place(path, found.line)} imports {found.target}"
        for path in source_files()
        if path != FRONT_DOOR
        for found in house_imports(path)
        if not found.for_types_only
        and found.target != "fulmen"
        and FLOORS[room(found.target)] > FLOORS[room(module_name(path))]
    ]
    assert not going_up, "\n".join(going_up)


def test_nothing_inside_the_house_comes_through_a_front_door() -> None:
    through_the_door = [
        f"{place(path, found.line)} takes {found.name or 'itself'} from {found.module}"
        for path in source_files()
        if DEMOS not in path.parents
        for found in house_imports(path)
        if found.target in packages()
        and (found.target, found.name) != ("fulmen", "__version__")  # a constant of the front door itself
        and not found.target.startswith(f"{module_name(path)}.")  # a package may re-export from its own sub-packages
    ]
    assert not through_the_door, "name the module instead:\n" + "\n".join(through_the_door)


def test_nothing_needs_the_demos_but_the_command() -> None:
    users = {
        path.relative_to(PACKAGE).as_posix()
        for path in source_files()
        if DEMOS not in path.parents
        for found in house_imports(path)
        if found.target.startswith("fulmen.demos")
    }
    assert users <= {"__main__.py"}


def test_imports_at_import_time_never_go_in_a_circle() -> None:
    needs = {
        module_name(path): {
            found.target
            for found in house_imports(path)
            if found.at_import_time and not found.for_types_only and found.target not in packages()
        }
        for path in source_files()
        if path.name != "__init__.py"
    }
    finished: set[str] = set()

    def follow(module: str, way: list[str]) -> list[str]:
        """The first circle that can be reached from ``module``, or an empty list."""
        if module in way:
            return [*way[way.index(module) :], module]
        if module in finished:
            return []
        for needed in sorted(needs.get(module, ())):
            if circle := follow(needed, [*way, module]):
                return circle
        finished.add(module)
        return []

    for module in sorted(needs):
        assert follow(module, []) == [], "these modules need each other"


def test_init_files_only_re_export() -> None:
    doing_more = [
        f"{place(path, node.lineno)}: {ast.unparse(node).partition(chr(10))[0]}"
        for path in source_files()
        if path.name == "__init__.py"
        for node in syntax_tree(path).body
        if not _only_re_exports(node, path)
    ]
    assert not doing_more, "\n".join(doing_more)


def _only_re_exports(node: ast.stmt, path: Path) -> bool:
    """Whether it is an import, ``__all__``, a table of names, the docstring, or what makes the door
    lazy."""
    match node:
        case ast.Import() | ast.ImportFrom():
            return True
        case ast.Expr(value=ast.Constant()):
            return True
        case ast.Assign(value=ast.Call(func=ast.Name(id="at_first_use"))):
            return True
        case ast.Assign() | ast.AnnAssign() if node.value is not None:
            return not any(isinstance(part, ast.Call) for part in ast.walk(node.value))
        case ast.If():
            return ast.unparse(node.test) == "TYPE_CHECKING"
        case ast.FunctionDef():
            return node.name in ("__getattr__", "__dir__")
        case _:
            return False


def test_every_re_export_is_listed_in_all() -> None:
    for path in source_files():
        if path.name != "__init__.py":
            continue
        reexported = {found.name for found in house_imports(path) if found.at_import_time and found.name}
        if not reexported:
            continue
        listed = {
            constant.value
            for node in syntax_tree(path).body
            if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "__all__"
            for constant in ast.walk(node.value)
            if isinstance(constant, ast.Constant)
        }
        assert reexported - {"at_first_use"} <= listed, f"{place(path, 1)} imports names that __all__ does not list"
