"""Accelerators by name, as ``Trainer(accelerator="cuda")`` takes them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from fulmen.accelerators.accelerator import Accelerator
from fulmen.accelerators.cpu import CPUAccelerator
from fulmen.accelerators.cuda import CUDAAccelerator
from fulmen.accelerators.mps import MPSAccelerator
from fulmen.utilities.exceptions import MisconfigurationException


class _AcceleratorRegistry(dict[str, dict[str, Any]]):
    """Names, each with the class of an accelerator, a description and the arguments that it is made with."""

    def register(
        self,
        name: str,
        accelerator: Callable[..., Accelerator] | None = None,
        description: str = "",
        override: bool = False,
        **init_params: Any,
    ) -> Any:
        """Give an accelerator a name; without ``accelerator`` this is a decorator of its class.

        Args:
            name: what ``Trainer(accelerator=...)`` will call it.
            accelerator: its class. None: the decorated one.
            description: one line for people.
            override: take the place of one that has the name.
            init_params: what it is made with.

        Raises:
            TypeError: ``name`` is no string.
            MisconfigurationException: the name is taken.
        """
        if not isinstance(name, str):
            raise TypeError(f"AcceleratorRegistry.register({name!r}): the name must be a string.")
        if (name in self or name in ("auto", "gpu")) and not override:
            raise MisconfigurationException(
                f"the accelerator {name!r} is there already. Choose another name, or write `override=True`."
            )

        def enter(accelerator: Callable[..., Accelerator]) -> Callable[..., Accelerator]:
            self[name] = {
                "accelerator": accelerator,
                "accelerator_name": name,
                "description": description,
                "init_params": init_params,
            }
            return accelerator

        return enter if accelerator is None else enter(accelerator)

    def get(self, name: str, default: Any = None) -> Any:  # type: ignore[override]
        """A new accelerator of that name; ``default``, if given, where there is none.

        Raises:
            KeyError: there is none, and no default.
        """
        if name in self:
            return self[name]["accelerator"](**self[name]["init_params"])
        if default is not None:
            return default
        raise KeyError(f"there is no accelerator {name!r}. Known are {', '.join(sorted(self))}.")

    def remove(self, name: str) -> None:
        """Forget a name."""
        self.pop(name)

    def available_accelerators(self) -> list[str]:
        """All names."""
        return list(self)

    def __str__(self) -> str:
        return f"accelerators: {', '.join(self)}"


def _xla() -> Accelerator:
    from fulmen.accelerators.xla import XLAAccelerator

    return XLAAccelerator()


def _tpu() -> Accelerator:
    from fulmen.accelerators.xla import TPUAccelerator

    return TPUAccelerator()


AcceleratorRegistry = _AcceleratorRegistry()
for _kind in (CPUAccelerator, CUDAAccelerator, MPSAccelerator):
    _kind.register_accelerators(AcceleratorRegistry)
AcceleratorRegistry.register("tpu", _tpu, description="TPUAccelerator")
AcceleratorRegistry.register("xla", _xla, description="XLAAccelerator")
