"""Optimizers and schedulers that are chosen on the command line: their types, and how they are made."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from importlib import import_module
from typing import Any, TypeAlias

import torch
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler


class ReduceLROnPlateau(torch.optim.lr_scheduler.ReduceLROnPlateau):
    """torch's scheduler of this name, which also knows the value that it watches.

    Args:
        optimizer: whose learning rates to reduce.
        monitor: the name of the logged value.
        args: as for torch's class.
        kwargs: as for torch's class.
    """

    def __init__(self, optimizer: Optimizer, monitor: str, *args: Any, **kwargs: Any) -> None:
        super().__init__(optimizer, *args, **kwargs)
        self.monitor = monitor


# with this module's ReduceLROnPlateau: without a name to watch, torch's cannot be stepped
LRSchedulerTypeTuple = (LRScheduler, ReduceLROnPlateau)
LRSchedulerTypeUnion: TypeAlias = LRScheduler | ReduceLROnPlateau
LRSchedulerType: TypeAlias = type[LRScheduler] | type[ReduceLROnPlateau]

#: makes an optimizer of parameters: the annotation of an argument that is chosen on the command line
OptimizerCallable: TypeAlias = Callable[[Iterable], Optimizer]
#: makes a scheduler of an optimizer
LRSchedulerCallable: TypeAlias = Callable[[Optimizer], LRScheduler | ReduceLROnPlateau]


def instantiate_class(args: Any | tuple[Any, ...], init: Mapping[str, Any]) -> Any:
    """Make an object from its description in a configuration.

    Args:
        args: what the constructor gets first, by position; one value, or a tuple of several.
        init: ``{"class_path": "torch.optim.Adam", "init_args": {"lr": 0.1}}``. The class is imported.
    """
    module, _, name = init["class_path"].rpartition(".")
    cls = getattr(import_module(module), name)
    return cls(*(args if isinstance(args, tuple) else (args,)), **(init.get("init_args") or {}))
