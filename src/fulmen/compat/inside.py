"""Names of the inside of Lightning that programs import, for which the house has no use itself."""

from __future__ import annotations

import inspect
import signal
from types import ModuleType
from typing import Any

import torch
from torch import nn

from fulmen.core.hooks import HOOKS
from fulmen.trainer import flags, hardware, placement
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
        from fulmen.strategies.parallel import ParallelStrategy

        return isinstance(self.strategy, ParallelStrategy)

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


def materialize_meta_tensors(module: nn.Module, device: torch.device) -> None:
    """Give the layers that are on the ``meta`` device memory on ``device``, and their first values.

    Raises:
        TypeError: a layer has no ``reset_parameters``.
    """
    for name, layer in module.named_modules():
        own = [*layer.parameters(recurse=False), *layer.buffers(recurse=False)]
        if not any(tensor.is_meta for tensor in own):
            continue
        layer.to_empty(device=device, recurse=False)
        reset = getattr(layer, "reset_parameters", None)
        if not callable(reset):
            raise TypeError(
                f"{name or type(layer).__name__} has no `reset_parameters`, which gives it its first values."
            )
        reset()


def lazy_load(filename: Any) -> Any:
    """Read a checkpoint whose tensors are read from the file when they are used."""
    return torch.load(filename, map_location="cpu", mmap=True, weights_only=True)


def move_state_into(source: dict[str, Any], destination: dict[str, Any], keys: set[str] | None = None) -> None:
    """Move ``keys`` (None: all) of ``source`` into ``destination``: into the objects there that have a
    ``load_state_dict``, and in the place of the others.
    """
    for key in set(source) if keys is None else keys & set(source):
        state = source.pop(key)
        load = getattr(destination.get(key), "load_state_dict", None)
        if load is not None:
            load(state)
        else:
            destination[key] = state
