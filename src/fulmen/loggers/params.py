"""Hyperparameters in the forms that loggers write: nested and plain for YAML, flat for tables."""

from __future__ import annotations

import dataclasses
from argparse import Namespace
from collections.abc import Mapping, Sequence, Set
from contextlib import suppress
from enum import Enum
from typing import Any


def as_dict(params: Mapping[str, Any] | Namespace | None) -> dict[str, Any]:
    """``params`` as a new dict; ``{}`` for None."""
    if params is None:
        return {}
    if isinstance(params, Namespace):
        return dict(vars(params))
    if not isinstance(params, Mapping):
        raise TypeError(f"Hyperparameters are given as a dict or an argparse.Namespace, not as {params!r}.")
    return dict(params)


def plain(value: Any) -> Any:
    """``value`` out of None, bool, int, float, str, lists and dicts alone; what is none of these becomes text.

    An enum becomes its name, a tensor or array of one element its number, a dataclass a dict.
    """
    if isinstance(value, Enum):
        return value.name
    if value is None or isinstance(value, bool):
        return value
    for kind in (int, float, str):
        if isinstance(value, kind):
            return kind(value)
    if isinstance(value, Namespace):
        value = vars(value)
    elif dataclasses.is_dataclass(value) and not isinstance(value, type):
        value = {field.name: getattr(value, field.name) for field in dataclasses.fields(value)}
    if isinstance(value, Mapping):
        return {_plain_key(key): plain(inner) for key, inner in value.items()}
    if isinstance(value, Sequence) and not isinstance(value, (bytes, bytearray, memoryview)):
        return [plain(inner) for inner in value]
    if isinstance(value, Set):
        return sorted((plain(inner) for inner in value), key=str)
    if getattr(value, "shape", None) == ():
        return plain(value.item())  # type: ignore[union-attr]
    if isinstance(value, type) or (callable(value) and hasattr(value, "__qualname__")):
        return f"{value.__module__}.{value.__qualname__}"
    return str(value)


def yaml_text(params: Mapping[str, Any]) -> str:
    """``params`` as YAML, in the order in which they were given, readable with ``yaml.safe_load``."""
    import yaml

    return yaml.safe_dump(plain(params), sort_keys=False, allow_unicode=True)


def flat(params: Mapping[str, Any], separator: str = "/") -> dict[str, bool | int | float | str | None]:
    """``params`` without nesting: ``{"a": {"b": 1}}`` becomes ``{"a/b": 1}``; lists and empty dicts become text."""
    table: dict[str, Any] = {}
    for key, value in plain(params).items():
        if isinstance(value, dict) and value:
            table.update({f"{key}{separator}{inner}": leaf for inner, leaf in flat(value, separator).items()})
        else:
            table[str(key)] = str(value) if isinstance(value, (list, dict)) else value
    return table


def flattened(params: Mapping[Any, Any], delimiter: str = "/", parent_key: str = "") -> dict[str, Any]:
    """``params`` without nesting, values as they are: mappings, namespaces and dataclasses among them are taken apart.

    Args:
        params: what may be nested.
        delimiter: stands between the names of the levels.
        parent_key: what stands before all names.
    """
    table: dict[str, Any] = {}
    for key, value in params.items():
        name = f"{parent_key}{delimiter}{key}" if parent_key else str(key)
        if isinstance(value, Namespace):
            value = vars(value)
        elif dataclasses.is_dataclass(value) and not isinstance(value, type):
            value = dataclasses.asdict(value)
        if isinstance(value, Mapping):
            table.update(flattened(value, delimiter, name))
        else:
            table[name] = value
    return table


def without_functions(params: Mapping[str, Any]) -> dict[str, Any]:
    """``params`` with a class as its name, and a function as what it returns without arguments, else as its name."""
    return {name: _called(value) if callable(value) else value for name, value in params.items()}


def _called(value: Any) -> Any:
    if not isinstance(value, type):
        with suppress(Exception):
            result = value()
            if not callable(result):
                return result
    return getattr(value, "__name__", type(value).__name__)


def simple(params: Mapping[str, Any]) -> dict[str, Any]:
    """``params`` with numbers of NumPy as those of Python, and what is no bool, int, float, text or tensor as text."""
    table: dict[str, Any] = {}
    for name, value in params.items():
        if type(value).__module__ == "numpy" and getattr(value, "shape", None) == ():
            value = value.item()
        is_simple = isinstance(value, (bool, int, float, str)) or type(value).__name__ in ("Tensor", "Parameter")
        table[name] = value if is_simple else str(value)
    return table


def prefixed(metrics: Mapping[str, Any], prefix: str, separator: str) -> Mapping[str, Any]:
    """``metrics`` with ``prefix`` and ``separator`` before each name; as they are if ``prefix`` is empty."""
    return {f"{prefix}{separator}{name}": value for name, value in metrics.items()} if prefix else metrics


def _plain_key(key: Any) -> Any:
    return key if type(key) in (str, int, float, bool) or key is None else str(plain(key))
