"""Names of the inside of Lightning that programs import, for which the house has no use itself."""

from __future__ import annotations

import inspect
import signal
from types import ModuleType
from typing import Any

import torch

from fulmen.core.hooks import HOOKS
from fulmen.trainer import flags, hardware, placement
from fulmen.trainer.internal_reads import is_distributed
from fulmen.utilities.internals import absent
from fulmen.utilities.registry import Registry


class AcceleratorChoice:
    """What a Trainer with these arguments would run on: Lightning's ``_AcceleratorConnector``.

    Args:
        devices: as in :class:`~fulmen.trainer.trainer.Trainer`, and so the others.

    Attributes:
        strategy: the strategy.
        accelerator: the accelerator.
        precision_plugin: the precision.
    """

    def __init__(
        self,
        devices: list[int] | int | str = "auto",
        num_nodes: int = 1,
        accelerator: Any = "auto",
        strategy: Any = "auto",
        plugins: Any = None,
        precision: Any = None,
        sync_batchnorm: bool = False,
        benchmark: bool | None = None,
        use_distributed_sampler: bool = True,
        deterministic: Any = None,
    ) -> None:
        flags.set_determinism(deterministic, benchmark)
        chosen_plugins = hardware.plugin_list(plugins)
        chosen = hardware.chosen_strategy(strategy, chosen_plugins)
        self.accelerator = hardware.accelerator(accelerator, chosen)
        self._indices = hardware.device_indices(devices, self.accelerator)
        kind = self.accelerator.device(self._indices[0]).type
        numbers = hardware.precision(precision, chosen_plugins, kind)
        self.strategy = placement.strategy(
            chosen, self.accelerator, self._indices, flags.nodes(num_nodes), numbers, chosen_plugins
        )
        self.precision_plugin = self.strategy.precision_plugin
        self.use_distributed_sampler = use_distributed_sampler
        self._accelerator_flag, self._strategy_flag = kind, self.strategy
        #: on the CPU the number of processes, else the numbers of the devices
        self._devices_flag: int | list[int] = len(self._indices) if kind == "cpu" else self._indices

    @property
    def is_distributed(self) -> bool:
        """Whether the strategy is one for several processes, however many there are."""
        return is_distributed(self)

    @property
    def _parallel_devices(self) -> list[torch.device]:
        return [self.accelerator.device(index) for index in self._indices]

    def __getattr__(self, name: str) -> Any:
        raise absent(f"_AcceleratorConnector.{name}", None)


class SignalNames:
    """Lightning's ``_SignalConnector``, as far as programs ask it for names."""

    @staticmethod
    def _valid_signals() -> set[signal.Signals]:
        return {number for number in signal.Signals if number in signal.valid_signals()}


def _how_to_log(log: str) -> dict[str, Any] | None:
    if log == "no":
        return None
    steps = log != "epoch"
    return {
        "allowed_on_step": (False, True) if steps else (False,),
        "allowed_on_epoch": (False, True) if steps else (True,),
        "default_on_step": log == "train",
        "default_on_epoch": log != "train",
    }


class HooksThatLog:
    """Lightning's ``_FxValidator``: where ``self.log`` may be called, and how."""

    #: by hook; None where nothing can be logged
    functions: dict[str, dict[str, Any] | None] = {hook.name: _how_to_log(hook.log) for hook in HOOKS}


def register_classes(registry: Registry, method: str, module: ModuleType, parent: type[Any]) -> None:
    """Let each class of ``module`` that is derived from ``parent`` enter itself, by its own ``method``."""
    for _, found in inspect.getmembers(module, inspect.isclass):
        if issubclass(found, parent) and method in vars(found):
            getattr(found, method)(registry)
