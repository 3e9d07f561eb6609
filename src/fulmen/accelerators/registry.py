"""Accelerators by name, as ``Trainer(accelerator="cuda")`` takes them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from fulmen.accelerators.accelerator import Accelerator
from fulmen.accelerators.cpu import CPUAccelerator
from fulmen.accelerators.cuda import CUDAAccelerator
from fulmen.accelerators.mps import MPSAccelerator
from fulmen.utilities.exceptions import MisconfigurationException
from fulmen.utilities.registry import Registry


class _AcceleratorRegistry(Registry):
    kind, plural = "accelerator", "accelerators"
    taken = MisconfigurationException
    reserved = ("auto", "gpu")

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
        return self.enter(name, accelerator, description, override, init_params)

    def available_accelerators(self) -> list[str]:
        """All names."""
        return list(self)


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
