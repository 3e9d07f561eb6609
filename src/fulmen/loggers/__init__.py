"""Where metrics and hyperparameters are written. Each is imported when it is first used."""

from __future__ import annotations

from typing import TYPE_CHECKING

from fulmen.utilities.imports import at_first_use

if TYPE_CHECKING:
    from fulmen.loggers.comet import CometLogger as CometLogger
    from fulmen.loggers.csv_logs import CSVLogger as CSVLogger
    from fulmen.loggers.logger import Logger as Logger
    from fulmen.loggers.mlflow import MLFlowLogger as MLFlowLogger
    from fulmen.loggers.neptune import NeptuneLogger as NeptuneLogger
    from fulmen.loggers.tensorboard import TensorBoardLogger as TensorBoardLogger
    from fulmen.loggers.trackio import TrackioLogger as TrackioLogger
    from fulmen.loggers.wandb import WandbLogger as WandbLogger

__all__ = [
    "CSVLogger",
    "CometLogger",
    "Logger",
    "MLFlowLogger",
    "NeptuneLogger",
    "TensorBoardLogger",
    "TrackioLogger",
    "WandbLogger",
]
__getattr__, __dir__ = at_first_use(
    __name__,
    {
        "CSVLogger": "csv_logs",
        "CometLogger": "comet",
        "Logger": "logger",
        "MLFlowLogger": "mlflow",
        "NeptuneLogger": "neptune",
        "TensorBoardLogger": "tensorboard",
        "TrackioLogger": "trackio",
        "WandbLogger": "wandb",
    },
)
