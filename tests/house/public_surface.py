"""What Fulmen promises to its users, as text: every public name with its signature.

    python -m tests.house.public_surface       write tests/house/public_surface.txt anew (also: make lists)

Public is what a package's ``__all__`` lists. A class is described once, where it is met first, with what it adds to the
public class that it is derived from.
"""

from __future__ import annotations

import functools
import importlib
import inspect
import pkgutil
import re
from collections.abc import Iterator
from enum import Enum
from pathlib import Path
from types import ModuleType
from typing import Any

import fulmen

SURFACE = Path(__file__).parent / "public_surface.txt"


def public_modules() -> Iterator[ModuleType]:
    """Every package of Fulmen that lists public names, the front door first."""
    yield fulmen
    for info in pkgutil.walk_packages(fulmen.__path__, "fulmen."):
        if info.ispkg and "._" not in info.name and not info.name.startswith("fulmen.compat"):
            module = importlib.import_module(info.name)
            if getattr(module, "__all__", ()):
                yield module


def surface() -> str:
    """The whole public surface, one line per name, sorted within each module."""
    lines: list[str] = []
    described: dict[int, str] = {}
    for module in public_modules():
        lines += ["", module.__name__]
        for name in sorted(module.__all__):
            value = getattr(module, name)
            here = f"{module.__name__}.{name}"
            if inspect.isclass(value) or inspect.isfunction(value):
                elsewhere = described.setdefault(id(value), here)
                lines += [f"  {name}: see {elsewhere}"] if elsewhere != here else describe(name, value)
            else:
                lines.append(f"  {name}: {type(value).__name__}")
    return "\n".join(lines).lstrip() + "\n"


def describe(name: str, value: Any) -> list[str]:
    """A class with its public members, or a function."""
    if inspect.isfunction(value):
        return [f"  {name}{signature_of(value)}"]
    if issubclass(value, Enum):
        return [f"  {name}: {', '.join(member.name for member in value)}"]
    inherited = next((parent for parent in value.__mro__[1:] if parent in public_classes()), None)
    kind = f", a {inherited.__name__}" if inherited else ""
    members = [f"    {text}" for member in added_members(value, inherited) for text in describe_member(value, member)]
    return [f"  {name}{signature_of(value)}{kind}", *members]


@functools.cache
def public_classes() -> frozenset[type]:
    values = [getattr(module, name) for module in public_modules() for name in module.__all__]
    return frozenset(value for value in values if inspect.isclass(value))


def added_members(cls: type, inherited: type | None) -> list[str]:
    """The public names that Fulmen gives to ``cls`` and not to ``inherited``; what torch or Python give is theirs."""
    known = inherited.__mro__ if inherited else ()
    ours = [parent for parent in cls.__mro__ if parent.__module__.startswith("fulmen") and parent not in known]
    return sorted({name for parent in ours for name in vars(parent) if not name.startswith("_")})


def describe_member(cls: type, name: str) -> Iterator[str]:
    member = inspect.getattr_static(cls, name)
    match member:
        case property():
            yield f"{name} (property{', settable' if member.fset else ''})"
        case functools.cached_property():
            yield f"{name} (property)"
        case classmethod() | staticmethod():
            yield f"{name}{signature_of(getattr(cls, name))} ({type(member).__name__})"
        case _ if inspect.isfunction(member):
            yield f"{name}{signature_of(member)}"
        case _ if hasattr(type(member), "__get__") and callable(getattr(cls, name)):  # a descriptor that gives a method
            yield f"{name}{signature_of(getattr(cls, name))}"
        case _:
            yield f"{name} (attribute)"


def signature_of(value: Any) -> str:
    """The parameters and defaults; without annotations, which are for reading and not a promise."""
    try:
        signature = inspect.signature(value)
    except ValueError:  # an exception, say, that leaves its constructor to Python
        return "(...)"
    parameters = [parameter.replace(annotation=parameter.empty) for parameter in signature.parameters.values()]
    text = str(signature.replace(parameters=parameters, return_annotation=signature.empty))
    text = re.sub(r"<(\w+\.\w+): [^>]*>", r"\1", text)  # the member of an enum
    return re.sub(r"<(?:function|class|built-in function) '?([\w.]+)'?(?: at 0x[0-9a-f]+)?>", r"\1", text)


if __name__ == "__main__":
    SURFACE.write_text(surface(), encoding="utf-8")
    print(f"wrote {SURFACE}")
