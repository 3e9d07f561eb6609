"""Names for classes on the command line, given by the program.

Every imported class has its own name as short name. A registry gives it another, and keeps the names of what is
registered in one place, as programs of Lightning 1.x expect.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from types import ModuleType
from typing import Any


class ClassRegistry(dict[str, type[Any]]):
    """Classes by name. As a decorator it registers the class that follows: ``@MODEL_REGISTRY``."""

    def __call__(
        self, cls: type[Any] | None = None, key: str | None = None, override: bool = False
    ) -> type[Any] | Callable[[type[Any]], type[Any]]:
        """Register ``cls``, or if that is None the class that this decorates.

        Args:
            key: the name. None: the name of the class.
            override: whether to replace a class that has the name already.

        Raises:
            TypeError: it is no class.
            ValueError: another class has the name.
        """
        if cls is None:
            return lambda decorated: self.register(decorated, key, override)
        return self.register(cls, key, override)

    def register(self, cls: type[Any], key: str | None = None, override: bool = False) -> type[Any]:
        """See :meth:`__call__`."""
        if not inspect.isclass(cls):
            raise TypeError(f"{cls!r} is not a class, which alone can be registered.")
        name = cls.__name__ if key is None else key
        if not override and self.get(name, cls) is not cls:
            raise ValueError(f"{name!r} is the name of {self[name]!r} already. Pass `override=True` to replace it.")
        self[name] = cls
        return cls

    def register_classes(
        self, module: ModuleType, base_cls: type[Any] | tuple[type[Any], ...], override: bool = False
    ) -> None:
        """Register all classes in ``module`` that derive from ``base_cls``."""
        for cls in list(vars(module).values()):
            if inspect.isclass(cls) and issubclass(cls, base_cls) and cls is not base_cls:
                self.register(cls, override=override)

    @property
    def names(self) -> list[str]:
        """The names."""
        return list(self)

    @property
    def classes(self) -> tuple[type[Any], ...]:
        """The classes."""
        return tuple(self.values())


MODEL_REGISTRY = ClassRegistry()
DATAMODULE_REGISTRY = ClassRegistry()
CALLBACK_REGISTRY = ClassRegistry()
LOGGER_REGISTRY = ClassRegistry()
OPTIMIZER_REGISTRY = ClassRegistry()
LR_SCHEDULER_REGISTRY = ClassRegistry()

#: of two classes with one name, the one that can be used: torch's does not know what it watches
_PREFERRED = {"ReduceLROnPlateau": "fulmen.cli.ReduceLROnPlateau"}

_ALL = (
    MODEL_REGISTRY,
    DATAMODULE_REGISTRY,
    CALLBACK_REGISTRY,
    LOGGER_REGISTRY,
    OPTIMIZER_REGISTRY,
    LR_SCHEDULER_REGISTRY,
)


def registered(name: str) -> str | None:
    """The path of the class that ``name`` means where a class is to be named; None if that is not said here."""
    for registry in _ALL:
        if name in registry:
            cls = registry[name]
            return f"{cls.__module__}.{cls.__qualname__}"
    return _PREFERRED.get(name)
