"""Where what was written for another version is translated into today's, for the length of one run.

Nobody translates unless :mod:`fulmen.compat` is in use, and nothing is called per batch that was not translated.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from fulmen.trainer.trainer import Trainer

_ABSENT: Any = object()

#: called before a run is checked, with the trainer, the verb and what is to be changed for this run
translators: list[Callable[[Trainer, str, Translation], None]] = []


class Translation:
    """What translators have changed for one run.

    Attributes:
        taken: names of hooks and of arguments that they take care of, so that they are no mistake.
        first: by hook, whom to call before all others who listen to it, and what.
        last: the same for those after all others.
    """

    def __init__(self) -> None:
        self.taken: set[str] = set()
        self.first: dict[str, list[tuple[Any, Callable[..., Any]]]] = {}
        self.last: dict[str, list[tuple[Any, Callable[..., Any]]]] = {}
        self._replaced: list[tuple[Any, str]] = []
        self._undo: list[Callable[[], None]] = []

    def replace(self, owner: Any, name: str, value: Any) -> None:
        """Set an attribute of ``owner`` itself, until the run has ended."""
        before = vars(owner).get(name, _ABSENT)
        self._replaced.append((owner, name))
        vars(owner)[name] = value

        def undo() -> None:
            if before is _ABSENT:
                vars(owner).pop(name, None)
            else:
                vars(owner)[name] = before

        self._undo.append(undo)

    def replaced_of(self, owner: Any) -> frozenset[str]:
        """The names of the attributes of ``owner`` that were replaced."""
        return frozenset(name for other, name in self._replaced if other is owner)

    def around(self, hook: str, calls: list[tuple[Any, Callable[..., Any]]]) -> list[tuple[Any, Callable[..., Any]]]:
        """``calls`` of a hook, with those that come first and last."""
        return [*self.first.get(hook, ()), *calls, *self.last.get(hook, ())]

    def end(self) -> None:
        """Undo what was replaced."""
        while self._undo:
            self._undo.pop()()


def translate(trainer: Trainer, verb: str) -> None:
    """Let all translators do their work."""
    if translators:
        trainer._translation = Translation()
        for translator in translators:
            translator(trainer, verb, trainer._translation)


def end_translation(trainer: Trainer) -> None:
    """Give everybody back what was theirs."""
    translation, trainer._translation = trainer._translation, None
    if translation is not None:
        translation.end()
