"""The search space: values of a configuration that are written as what to choose from."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from dataclasses import dataclass
from difflib import get_close_matches
from typing import Any

from fulmen.utilities.exceptions import MisconfigurationException
from fulmen.utilities.text import shown

#: each kind of dimension, and how it is written
FORMS = {
    "uniform": "{uniform: [low, high]}",
    "log_uniform": "{log_uniform: [low, high]}",
    "int": "{int: [low, high]} or {int: [low, high, step]}",
    "log_int": "{log_int: [low, high]}",
    "choice": "{choice: [one, another]}",
}
#: names that other libraries have for these
_ELSEWHERE = {
    "loguniform": "log_uniform",
    "log-uniform": "log_uniform",
    "quniform": "uniform",
    "randint": "int",
    "integer": "int",
    "lograndint": "log_int",
    "log-int": "log_int",
    "categorical": "choice",
}


class SpaceError(MisconfigurationException):
    """A dimension that cannot be searched."""


@dataclass(frozen=True, slots=True)
class Dimension:
    """One value that is searched.

    Attributes:
        name: its path in the configuration: ``"model.init_args.lr"``.
        kind: a key of :data:`FORMS`.
        values: low, high and perhaps the step; or what there is to choose from.
    """

    name: str
    kind: str
    values: tuple[Any, ...]

    @property
    def labels(self) -> tuple[Any, ...]:
        """What the study has in place of each choice: itself, or its text if it is a list or a mapping."""
        return tuple(
            value if value is None or isinstance(value, (bool, int, float, str)) else json.dumps(value)
            for value in self.values
        )

    def suggest(self, trial: Any) -> Any:
        """Let an Optuna trial choose; the label, of a choice."""
        if self.kind == "choice":
            return trial.suggest_categorical(self.name, self.labels)
        low, high, *rest = self.values
        if self.kind in ("uniform", "log_uniform"):
            return trial.suggest_float(self.name, low, high, log=self.kind == "log_uniform")
        return trial.suggest_int(self.name, low, high, step=rest[0] if rest else 1, log=self.kind == "log_int")

    def value_of(self, label: Any) -> Any:
        """What is written into the configuration for what a trial has chosen."""
        if self.kind != "choice":
            return label
        for place, known in enumerate(self.labels):
            if known == label and type(known) is type(label):
                return self.values[place]
        return self.values[self.labels.index(label)]

    def all_values(self) -> list[Any] | None:
        """All labels or numbers that may be chosen; None if they cannot be counted."""
        if self.kind == "choice":
            return list(self.labels)
        if self.kind != "int":
            return None
        low, high, *rest = self.values
        return list(range(low, high + 1, rest[0] if rest else 1))

    def first_and_last(self) -> tuple[Any, Any]:
        """Two values of it, different ones if there are two."""
        return (self.values[0], self.values[-1]) if self.kind == "choice" else (self.values[0], self.values[1])

    def described(self) -> str:
        """As in the configuration: ``{log_uniform: [1e-05, 0.1]}``."""
        return f"{{{self.kind}: {json.dumps(list(self.values))}}}"


def dimension_of(value: Any, name: str, where: str = "") -> Dimension | None:
    """The dimension that ``value`` is written as; None if it is an ordinary value.

    Args:
        value: from a configuration.
        name: its path there.
        where: the file that it is in, for messages.

    Raises:
        SpaceError: it is meant as a dimension, and cannot be one.
    """
    if not isinstance(value, dict) or len(value) != 1:
        return None
    ((kind, values),) = value.items()
    place = f"{where}: {name}" if where else name
    if kind not in FORMS:
        _refuse_near_miss(kind, values, place)
        return None
    if not isinstance(values, (list, tuple)):
        raise SpaceError(f"{place}: {kind} is {shown(values)}, and must be a list. Write {FORMS[kind]}.")
    if kind == "choice":
        return Dimension(name, kind, _choices(values, name, place))
    if len(values) != 2 and (kind != "int" or len(values) != 3):
        raise SpaceError(f"{place}: {kind} has {len(values)} numbers. Write {FORMS[kind]}.")
    whole = kind in ("int", "log_int")
    numbers = tuple(_number(one, whole, kind, place) for one in values)
    low, high, *rest = numbers
    least = 1 if whole else 0
    if kind.startswith("log_") and (min(low, high) <= 0 or min(low, high) < least):
        raise SpaceError(
            f"{place}: the range [{low}, {high}] has {min(low, high)} in it, and {kind} needs numbers above 0. Write a "
            f"small one in its place, {'1' if whole else 'such as 1e-5'}, or take {kind.removeprefix('log_')}."
        )
    if low > high:
        raise SpaceError(f"{place}: the range [{low}, {high}] is reversed. Write {{{kind}: [{high}, {low}]}}.")
    if low == high:
        raise SpaceError(f"{place}: the range [{low}, {high}] is empty. Write {low} itself, or a wider range.")
    if rest and not 1 <= rest[0] <= high - low:
        raise SpaceError(f"{place}: the step {rest[0]} does not fit between {low} and {high}. Write {FORMS['int']}.")
    if rest:
        numbers = (low, low + (high - low) // rest[0] * rest[0], rest[0])  # what can be reached
    return Dimension(name, kind, numbers)


def _refuse_near_miss(kind: Any, values: Any, place: str) -> None:
    if not isinstance(kind, str) or not isinstance(values, (list, tuple)):
        return
    elsewhere = _ELSEWHERE.get(kind.lower())
    longer = [name for name in FORMS if name != "int"]  # which `init` and `hint` are near to, too
    nearest = [elsewhere] if elsewhere else get_close_matches(kind.lower(), longer, n=1, cutoff=0.8)
    if nearest:
        raise SpaceError(
            f"{place}: there is no kind of dimension {kind!r}. Did you mean {FORMS[nearest[0]]}? "
            f"There are: {', '.join(FORMS)}."
        )


def _choices(values: Any, name: str, place: str) -> tuple[Any, ...]:
    if not values:
        raise SpaceError(f"{place}: there is nothing to choose from. Write {FORMS['choice']}.")
    for one in values:
        inner = next(dimensions_in(one, name), None)
        if inner is not None:
            raise SpaceError(
                f"{place}: there is a dimension within a choice, {inner.described()}. Write the choices out, or search "
                "each of them on its own."
            )
    numbers = tuple(_number_if_any(one) for one in values)
    texts = [json.dumps(one, sort_keys=True, default=str) for one in numbers]
    twice = next((text for text in texts if texts.count(text) > 1), None)
    if twice is not None:
        raise SpaceError(f"{place}: {twice} is twice among the choices. Write it once.")
    return numbers


def _number_if_any(value: Any) -> Any:
    """``1e-3`` is a text to YAML, and a number to everybody else."""
    if isinstance(value, str) and value[:1] in "+-.0123456789":
        try:
            return float(value)
        except ValueError:
            return value
    return value


def _number(value: Any, whole: bool, kind: str, place: str) -> Any:
    number = _number_if_any(value)
    if isinstance(number, bool) or not isinstance(number, (int, float)) or not math.isfinite(number):
        raise SpaceError(f"{place}: {shown(value)} is no number. Write {FORMS[kind]}.")
    if whole and number != int(number):
        raise SpaceError(f"{place}: {kind} is of whole numbers, and {shown(value)} is none. Write {FORMS[kind]}.")
    return int(number) if whole else float(number)


def dimensions_in(tree: Any, path: str = "", where: str = "") -> Iterator[Dimension]:
    """All dimensions in a configuration, in the order in which they are written.

    Raises:
        SpaceError: one of them cannot be searched.
    """
    found = dimension_of(tree, path, where)
    if found is not None:
        yield found
        return
    for key, value in _items(tree):
        yield from dimensions_in(value, f"{path}.{key}" if path else str(key), where)


def filled(tree: Any, values: dict[str, Any], path: str = "") -> Any:
    """A configuration with ``values``, by the dimensions' names, in place of its dimensions."""
    if path in values and dimension_of(tree, path) is not None:
        return values[path]
    if isinstance(tree, dict):
        return {key: filled(value, values, f"{path}.{key}" if path else str(key)) for key, value in tree.items()}
    if isinstance(tree, list):
        return [filled(value, values, f"{path}.{place}" if path else str(place)) for place, value in enumerate(tree)]
    return tree


def _items(tree: Any) -> Iterator[tuple[Any, Any]]:
    if isinstance(tree, dict):
        yield from tree.items()
    elif isinstance(tree, list):
        yield from enumerate(tree)
