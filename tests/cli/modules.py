"""Modules and datamodules as users write them, for command lines to make."""

from __future__ import annotations

from enum import Enum
from pathlib import Path
from typing import Any

import torch
from torch import nn

from fulmen.callbacks import Callback
from fulmen.cli import LRSchedulerCallable, OptimizerCallable
from fulmen.demos.boring_classes import BoringDataModule, BoringModel


class Kind(Enum):
    SMALL = "s"
    LARGE = "l"


class WideModel(BoringModel):
    """A model of some width.

    Args:
        width: how wide it is.
        activation: what comes after the layer.
    """

    def __init__(self, width: int = 3, activation: nn.Module | None = None, kind: Kind = Kind.SMALL):
        super().__init__()
        self.save_hyperparameters()
        self.width, self.kind = width, kind
        self.activation = activation
        self.weight = nn.Parameter(torch.zeros(width))


class NestedModel(BoringModel):
    def __init__(self, inner: BoringModel, depth: int = 1):
        super().__init__()
        self.save_hyperparameters()
        self.inner = inner


class NamedModel(BoringModel):
    def __init__(self, name: str = ""):
        super().__init__()
        self.name = name


class SizedData(BoringDataModule):
    """Data of some batch size.

    Args:
        batch_size: samples in a batch.
    """

    def __init__(self, batch_size: int = 8, root: Path = Path("data")):
        super().__init__()
        self.save_hyperparameters()
        self.batch_size, self.root = batch_size, root
        self.num_classes = 7


class ChosenModel(BoringModel):
    """Gets its optimizers as dicts."""

    def __init__(self, first: dict[str, Any], second: dict[str, Any], schedule: dict[str, Any] | None = None):
        super().__init__()
        self.first, self.second, self.schedule = first, second, schedule


class InjectedModel(BoringModel):
    """Gets functions that make its optimizer and scheduler."""

    def __init__(
        self,
        optimizer: OptimizerCallable = torch.optim.SGD,
        scheduler: LRSchedulerCallable = torch.optim.lr_scheduler.ConstantLR,
    ):
        super().__init__()
        self.save_hyperparameters()
        self.optimizer, self.scheduler = optimizer, scheduler

    def configure_optimizers(self) -> Any:
        optimizer = self.optimizer(self.parameters())
        return {"optimizer": optimizer, "lr_scheduler": self.scheduler(optimizer)}


class Recorder(Callback):
    """Remembers its argument."""

    def __init__(self, every: int = 1):
        self.every = every
