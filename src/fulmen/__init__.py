"""Fulmen: a PyTorch training framework. ``from fulmen import LightningModule, Trainer`` is the front door."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from fulmen.callbacks.callback import Callback as Callback
    from fulmen.core.datamodule import LightningDataModule as LightningDataModule
    from fulmen.core.module import LightningModule as LightningModule
    from fulmen.fabric.fabric import Fabric as Fabric
    from fulmen.trainer.trainer import Trainer as Trainer
    from fulmen.utilities.seed import seed_everything as seed_everything

__version__ = "0.1.0"
__all__ = ["Callback", "Fabric", "LightningDataModule", "LightningModule", "Trainer", "__version__", "seed_everything"]

_HOMES = {
    "Callback": "fulmen.callbacks.callback",
    "Fabric": "fulmen.fabric.fabric",
    "LightningDataModule": "fulmen.core.datamodule",
    "LightningModule": "fulmen.core.module",
    "Trainer": "fulmen.trainer.trainer",
    "seed_everything": "fulmen.utilities.seed",
}


_ROOMS = (
    "accelerators",
    "callbacks",
    "cli",
    "compat",
    "core",
    "demos",
    "fabric",
    "loggers",
    "loops",
    "plugins",
    "profilers",
    "strategies",
    "trainer",
    "tuner",
    "utilities",
)


def __getattr__(name: str) -> Any:
    """Import a public name, or a room such as ``fulmen.callbacks``, when it is first used, not before."""
    from importlib import import_module

    if name in _ROOMS:
        return import_module(f"fulmen.{name}")
    if name not in _HOMES:
        raise AttributeError(f"module 'fulmen' has no attribute {name!r}")
    value = getattr(import_module(_HOMES[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted(__all__)
