"""Classes by name, for arguments that take one or the other."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any


class Registry(dict[str, dict[str, Any]]):
    """Names, each with a class, a description and the arguments that it is made with.

    Attributes:
        kind: what the classes are, as the key of the class in an entry.
        plural: the same of several.
        taken: the error of a name that is there already.
        reserved: names that have a meaning of their own.
    """

    kind: str = "class"
    plural: str = "classes"
    taken: type[Exception] = ValueError
    reserved: tuple[str, ...] = ()

    def enter(
        self, name: str, made: Callable[..., Any] | None, description: str, override: bool, init_params: dict[str, Any]
    ) -> Any:
        """Enter ``made`` under ``name``; if that is None, return what enters the class that it decorates.

        Raises:
            TypeError: ``name`` is no string.
            Exception: of the type :attr:`taken`, if the name is there already.
        """
        if not isinstance(name, str):
            raise TypeError(f"{self.kind.capitalize()}Registry.register({name!r}): the name must be a string.")
        if (name in self or name in self.reserved) and not override:
            raise self.taken(
                f"the {self.kind} {name!r} is there already. Choose another name, or write `override=True`."
            )

        def decorate(made: Callable[..., Any]) -> Callable[..., Any]:
            self[name] = {
                self.kind: made,
                f"{self.kind}_name": name,
                "description": description,
                "init_params": init_params,
            }
            return made

        return decorate if made is None else decorate(made)

    def get(self, name: str, default: Any = None) -> Any:  # type: ignore[override]
        """A new object of that name; ``default``, if given, where there is none.

        Raises:
            KeyError: there is none, and no default.
        """
        if name in self:
            return self[name][self.kind](**self[name]["init_params"])
        if default is not None:
            return default
        raise KeyError(f"there is no {self.kind} {name!r}. Known are {', '.join(sorted(self))}.")

    def remove(self, name: str) -> None:
        """Forget a name."""
        self.pop(name)

    def __str__(self) -> str:
        return f"{self.plural}: {', '.join(self)}"
