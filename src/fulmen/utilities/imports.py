"""What is installed, found out without importing it, and imports that wait until they are needed."""

from __future__ import annotations

import re
import sys
from collections.abc import Callable
from functools import cache
from importlib import import_module
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec
from typing import Any

_IS_WINDOWS = sys.platform == "win32"
_IS_INTERACTIVE = hasattr(sys, "ps1")

_SPECIFIER = re.compile(r"(<=|>=|==|!=|<|>)\s*([\w.+!-]+)")


@cache
def package_available(name: str) -> bool:
    """Whether the package or module ``name`` can be imported; of a name with dots, the parents are imported."""
    try:
        return find_spec(name) is not None
    except (ModuleNotFoundError, ValueError):  # a parent is missing; a module without a spec
        return False


@cache
def unmet(requirement: str) -> str:
    """Why ``requirement``, such as ``"tensorboard>=2.15"`` or ``"a>=1,<2"``, is not met; an empty text if it is.

    The versions are compared by their numbers: a pre-release counts as its release.
    """
    name = re.match(r"[\w.-]+", requirement.strip())
    if name is None:
        raise ValueError(f'{requirement!r} is not a requirement. Write "name" or "name>=1.2,<3".')
    try:
        installed = version(name[0])
    except PackageNotFoundError:
        # the name of the distribution may differ from that of the package; then there is no version to compare
        if package_available(name[0].replace("-", "_")):
            return ""
        return f"{name[0]} is not installed. Run `pip install '{requirement}'`."
    for operator, wanted in _SPECIFIER.findall(requirement):
        if not _compare(_numbers(installed), operator, _numbers(wanted)):
            return (
                f"{name[0]} {installed} is installed, but {requirement} is needed. Run `pip install '{requirement}'`."
            )
    return ""


def require(requirement: str, purpose: str) -> None:
    """Do nothing if ``requirement`` is met, see :func:`unmet`.

    Raises:
        ModuleNotFoundError: it is not; the message says that ``purpose`` needs it and how to install it.
    """
    reason = unmet(requirement)
    if reason:
        raise ModuleNotFoundError(f"{purpose} needs {requirement}: {reason}")


def _numbers(text: str) -> tuple[int, ...]:
    release = re.match(r"\d+(\.\d+)*", text)
    numbers = [int(number) for number in release[0].split(".")] if release else []
    while numbers and numbers[-1] == 0:  # 1.0 is 1
        numbers.pop()
    return tuple(numbers)


def _compare(left: tuple[int, ...], operator: str, right: tuple[int, ...]) -> bool:
    match operator:
        case "<":
            return left < right
        case "<=":
            return left <= right
        case ">":
            return left > right
        case ">=":
            return left >= right
        case "==":
            return left == right
        case _:
            return left != right


def at_first_use(package: str, homes: dict[str, str]) -> tuple[Callable[[str], Any], Callable[[], list[str]]]:
    """The ``__getattr__`` and ``__dir__`` of a package that imports its public names when they are first used.

    Args:
        package: its ``__name__``.
        homes: the public names, each with the module of the package that it is in.
    """

    def get(name: str) -> Any:
        if name not in homes:
            raise AttributeError(f"module {package!r} has no attribute {name!r}")
        value = getattr(import_module(f"{package}.{homes[name]}"), name)
        setattr(sys.modules[package], name, value)
        return value

    return get, lambda: sorted(homes)
