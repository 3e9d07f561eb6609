"""The command line: every argument of a run from the shell, from files and from the environment."""

from __future__ import annotations

from typing import TYPE_CHECKING

from fulmen.utilities.imports import at_first_use

if TYPE_CHECKING:
    from fulmen.cli.cli import ArgsType as ArgsType
    from fulmen.cli.cli import LightningCLI as LightningCLI
    from fulmen.cli.optimizers import LRSchedulerCallable as LRSchedulerCallable
    from fulmen.cli.optimizers import LRSchedulerType as LRSchedulerType
    from fulmen.cli.optimizers import LRSchedulerTypeTuple as LRSchedulerTypeTuple
    from fulmen.cli.optimizers import LRSchedulerTypeUnion as LRSchedulerTypeUnion
    from fulmen.cli.optimizers import OptimizerCallable as OptimizerCallable
    from fulmen.cli.optimizers import ReduceLROnPlateau as ReduceLROnPlateau
    from fulmen.cli.optimizers import instantiate_class as instantiate_class
    from fulmen.cli.parsed import instantiate_module as instantiate_module
    from fulmen.cli.parser import LightningArgumentParser as LightningArgumentParser
    from fulmen.cli.registries import CALLBACK_REGISTRY as CALLBACK_REGISTRY
    from fulmen.cli.registries import DATAMODULE_REGISTRY as DATAMODULE_REGISTRY
    from fulmen.cli.registries import LOGGER_REGISTRY as LOGGER_REGISTRY
    from fulmen.cli.registries import LR_SCHEDULER_REGISTRY as LR_SCHEDULER_REGISTRY
    from fulmen.cli.registries import MODEL_REGISTRY as MODEL_REGISTRY
    from fulmen.cli.registries import OPTIMIZER_REGISTRY as OPTIMIZER_REGISTRY
    from fulmen.cli.save_config import SaveConfigCallback as SaveConfigCallback

__all__ = [
    "CALLBACK_REGISTRY",
    "DATAMODULE_REGISTRY",
    "LOGGER_REGISTRY",
    "LR_SCHEDULER_REGISTRY",
    "MODEL_REGISTRY",
    "OPTIMIZER_REGISTRY",
    "ArgsType",
    "LRSchedulerCallable",
    "LRSchedulerType",
    "LRSchedulerTypeTuple",
    "LRSchedulerTypeUnion",
    "LightningArgumentParser",
    "LightningCLI",
    "OptimizerCallable",
    "ReduceLROnPlateau",
    "SaveConfigCallback",
    "instantiate_class",
    "instantiate_module",
]
__getattr__, __dir__ = at_first_use(
    __name__,
    {
        "CALLBACK_REGISTRY": "registries",
        "DATAMODULE_REGISTRY": "registries",
        "LOGGER_REGISTRY": "registries",
        "LR_SCHEDULER_REGISTRY": "registries",
        "MODEL_REGISTRY": "registries",
        "OPTIMIZER_REGISTRY": "registries",
        "ArgsType": "cli",
        "LRSchedulerCallable": "optimizers",
        "LRSchedulerType": "optimizers",
        "LRSchedulerTypeTuple": "optimizers",
        "LRSchedulerTypeUnion": "optimizers",
        "LightningArgumentParser": "parser",
        "LightningCLI": "cli",
        "OptimizerCallable": "optimizers",
        "ReduceLROnPlateau": "optimizers",
        "SaveConfigCallback": "save_config",
        "instantiate_class": "optimizers",
        "instantiate_module": "parsed",
    },
)
