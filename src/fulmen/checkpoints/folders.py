"""Paths in two checkpoints that differ only by the folders of their runs."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

#: folders that a run makes within its own
_MADE_BY_RUNS = 3
#: a file of TensorBoard has the time, the machine and the process in its name
_EVENTS = re.compile(r"(^|/)events\.out\.tfevents\.[^/]+$")


@dataclass(slots=True)
class Folders:
    """The folders of two runs.

    Attributes:
        pairs: a folder of the first, and the one of the second that stands for it.
        passed: how many paths were found to differ by them alone.
    """

    pairs: list[tuple[str, str]] = field(default_factory=list)
    passed: int = 0

    @classmethod
    def of_runs(cls, checkpoints: tuple[dict[str, Any], dict[str, Any]], paths: tuple[str, str]) -> Folders:
        """What two checkpoints say of the folders of their runs.

        Args:
            paths: where their files are.
        """
        one, other = (list(_folders(checkpoint)) for checkpoint in checkpoints)
        files = [_as_written(os.path.abspath(os.path.dirname(path))) for path in paths]
        pairs = [_without_common_end(*pair) for pair in [*zip(one, other), (files[0], files[1])]]
        return cls([pair for pair in dict.fromkeys(pairs) if pair[0] != pair[1]])

    def differ_alone(self, one: str, other: str) -> bool:
        """Whether two different paths are equal within the folders of their runs; if so, it is counted."""
        found = self._are_the_same(one, other)
        self.passed += found
        return found

    def same_keys(self, one: dict[Any, Any], other: dict[Any, Any]) -> dict[Any, Any]:
        """The keys of ``one`` that are other paths in ``other``, with those."""
        left = [key for key in other if isinstance(key, str) and key not in one]
        same: dict[Any, Any] = {}
        for key in one:
            if isinstance(key, str) and key not in other:
                found = next((there for there in left if self._are_the_same(key, there)), None)
                if found is not None:
                    left.remove(found)
                    same[key] = found
        self.passed += len(same)
        return same

    def _are_the_same(self, one: str, other: str) -> bool:
        if _EVENTS.search(one) and _EVENTS.search(other):
            one, other = _EVENTS.sub(r"\1events", one), _EVENTS.sub(r"\1events", other)
            if one == other:
                return True
        one, other = _as_written(one), _as_written(other)
        for first, second in self.pairs:
            if one == first and other == second and ("/" in one or "/" in other):
                return True
            if one.startswith(f"{first}/") and other.startswith(f"{second}/"):
                return one[len(first) :] == other[len(second) :]
        return False


def _folders(checkpoint: dict[str, Any]) -> Iterator[str]:
    """Where callbacks and loggers write."""
    callbacks = checkpoint.get("callbacks")
    for state in callbacks.values() if isinstance(callbacks, dict) else ():
        if isinstance(state, dict) and isinstance(state.get("dirpath"), str):
            yield _as_written(state["dirpath"])
    resume = checkpoint.get("resume")
    loggers = resume.get("loggers") if isinstance(resume, dict) else None
    for logger in loggers if isinstance(loggers, (list, tuple)) else ():
        state = logger.get("state") if isinstance(logger, dict) else None
        if isinstance(state, dict) and isinstance(state.get("directory"), str):
            yield _as_written(state["directory"])


def _as_written(path: str) -> str:
    return path.replace(os.sep, "/").rstrip("/")


def _without_common_end(one: str, other: str) -> tuple[str, str]:
    """Two folders without the last parts that they share: ``a/logs/checkpoints``, ``b/logs/checkpoints`` -> a, b."""
    first, second = one.split("/"), other.split("/")
    for _ in range(_MADE_BY_RUNS):
        shortest = min(len(first), len(second))
        if first[-1] != second[-1] or shortest < 2 or (shortest == 2 and "" in (first[0], second[0])):
            break
        first, second = first[:-1], second[:-1]
    return "/".join(first), "/".join(second)
