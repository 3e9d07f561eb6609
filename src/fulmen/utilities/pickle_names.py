"""What the names in a pickle are to somebody who reads it: harmless, unknown, or a way to run code."""

from __future__ import annotations

import re
import sys
from collections.abc import Iterable, Sequence

from fulmen.utilities.pickle_scan import Call, Name, is_count

#: makes a value and does nothing else, with whatever arguments
_HARMLESS = frozenset(
    {
        "argparse.Namespace",
        "builtins.complex",
        "builtins.range",
        "decimal.Decimal",
        "types.SimpleNamespace",
        "uuid.UUID",
        *(f"datetime.{name}" for name in ("date", "datetime", "time", "timedelta", "timezone")),
        *(
            f"{module}.{flavour}"
            for module in ("pathlib", "pathlib._local")
            for flavour in ("Path", "PosixPath", "PurePath", "PurePosixPath", "PureWindowsPath", "WindowsPath")
        ),
        "numpy.dtype",
        "numpy.ndarray",
        *(f"numpy.{core}.multiarray.{name}" for core in ("core", "_core") for name in ("_reconstruct", "scalar")),
        "numpy._core.numeric._frombuffer",
    }
)
_HARMLESS_PATTERN = re.compile(r"numpy\.dtypes\.\w+DType")

#: what Python has that runs nothing by itself, though not everything should be let in with it
_INERT = frozenset(
    {
        "copyreg._reconstructor",
        "functools.partial",
        "logging.getLogger",
        *(f"builtins.{name}" for name in "bool bytearray bytes dict float frozenset int list object set".split()),
        *(f"builtins.{name}" for name in "slice str tuple".split()),
    }
)
_INERT_MODULES = frozenset(
    "abc calendar cmath collections collections.abc dataclasses datetime decimal enum fractions ipaddress math numbers "
    "random re statistics string typing zoneinfo".split()
)
#: functions with which libraries make their objects again
_MAKES_AGAIN = re.compile(r"_+(pyx_)?(rebuild|reconstruct|unpickle|make)\w*|__\w+_ctor")
#: shown of what would be called
_MOST_CHARACTERS = 80


def are_harmless(names: Iterable[str]) -> bool:
    """Whether to allow all of ``names`` lets in nothing but values."""
    return all(name in _HARMLESS or _HARMLESS_PATTERN.fullmatch(name) for name in names)


def ways_to_run_code(names: Iterable[str], calls: Iterable[Call]) -> list[str]:
    """What of a file would run code if it were read without care, as Python would write it.

    Args:
        names: classes and functions that the file names, without those that it may.
        calls: all that it would call.
    """
    names = set(names)
    found: dict[str, str] = {}
    for call in calls:
        name = str(call.function)
        if name in names and name not in found and (_runs_code(name) or _runs_when_called(name, call.arguments)):
            found[name] = f"{_printable(name)}({_arguments(call.arguments)})"
    for name in sorted(names - found.keys()):
        if _runs_code(name):
            found[name] = _printable(name)
    return list(found.values())


def _runs_code(name: str) -> bool:
    """Whether a name of Python's own library is more than a kind of value; it may be called in a roundabout way."""
    module, _, attribute = name.rpartition(".")
    if name.partition(".")[0] not in sys.stdlib_module_names or name in ("builtins.getattr", "builtins.type"):
        return False
    if name in _HARMLESS or name in _INERT:
        return False
    if module == "builtins":  # exceptions
        return not attribute[:1].isupper()
    plain = attribute[:1].isalpha() and attribute not in sys.stdlib_module_names
    return not (module in _INERT_MODULES and (plain or name == "re._compile"))


def _runs_when_called(name: str, arguments: object) -> bool:
    given: Sequence[object] = arguments if isinstance(arguments, tuple) else ()
    if name == "builtins.type":  # of one argument it only asks
        return len(given) != 1
    if name == "builtins.getattr":  # as members of enums are written
        owner, attribute = given if len(given) == 2 else (None, None)
        return not (isinstance(owner, Name) and _is_a_class_of_others(owner) and _is_public(attribute))
    if name in _INERT or name in _HARMLESS or name.partition(".")[0] in sys.stdlib_module_names:
        return False
    attribute = name.rpartition(".")[2]
    return not attribute.lstrip("_")[:1].isupper() and not _MAKES_AGAIN.fullmatch(attribute)


def _is_a_class_of_others(name: str) -> bool:
    return name.partition(".")[0] not in sys.stdlib_module_names and name.rpartition(".")[2][:1].isupper()


def _is_public(name: object) -> bool:
    return type(name) is str and name[:1].isalpha()


def _arguments(arguments: object) -> str:
    """The beginning of the arguments of a call."""
    given: Sequence[object] = arguments if isinstance(arguments, tuple) else ()
    return _printable(", ".join(_argument(value) for value in given[:5]))


def _argument(value: object) -> str:
    if isinstance(value, Name):
        return value
    if isinstance(value, (str, bytes)):
        return repr(value[: 2 * _MOST_CHARACTERS])
    return repr(value) if type(value) in (float, bool, type(None)) or is_count(value) else "..."


def _printable(text: str) -> str:
    cut = text if len(text) <= _MOST_CHARACTERS else f"{text[:_MOST_CHARACTERS]}..."
    return "".join(character if character.isprintable() else "?" for character in cut)
