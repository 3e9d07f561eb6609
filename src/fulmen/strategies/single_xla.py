"""One process, one device of torch_xla, which is imported when it is used."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import torch

from fulmen.plugins.io.xla_plugin import XLACheckpointIO
from fulmen.plugins.precision.precision import Precision
from fulmen.plugins.precision.xla import XLAPrecision
from fulmen.strategies.single_device import SingleDeviceStrategy
from fulmen.strategies.strategy import Strategy
from fulmen.utilities.exceptions import MisconfigurationException
from fulmen.utilities.imports import require

if TYPE_CHECKING:
    from fulmen.accelerators.accelerator import Accelerator
    from fulmen.core.module import LightningModule
    from fulmen.plugins.io.checkpoint_plugin import CheckpointIO


class SingleDeviceXLAStrategy(SingleDeviceStrategy):
    """Everything happens in this process, on one XLA device. What a step asks of the device is sent to it as one
    program, when the step is done.

    Args:
        device: the device, or its number.
        debug: keep the names of operations in the programs, so that those that are slow can be found.

    Raises:
        ModuleNotFoundError: ``torch_xla`` is not installed.
        TypeError: the precision is not that of XLA.
    """

    allows_inference_mode = False  # its tensors cannot be used in it and outside

    def __init__(
        self,
        device: torch.device | str | int = 0,
        accelerator: Accelerator | None = None,
        checkpoint_io: CheckpointIO | None = None,
        precision_plugin: Precision | None = None,
        debug: bool = False,
    ) -> None:
        require("torch_xla", "SingleDeviceXLAStrategy")
        if precision_plugin is not None and not isinstance(precision_plugin, XLAPrecision):
            raise TypeError(
                f"SingleDeviceXLAStrategy(precision_plugin={type(precision_plugin).__name__}): XLA has a precision of "
                "its own. Write `XLAPrecision('32-true')`."
            )
        super().__init__(
            torch.device("xla", device) if isinstance(device, int) else device,
            accelerator,
            checkpoint_io or XLACheckpointIO(),
            precision_plugin,
        )
        self.debug = debug

    def choose_precision(self, numbers: Precision) -> None:
        self.precision_plugin = chosen_precision(self, numbers)

    def setup_environment(self) -> None:
        if self.debug:
            import os

            os.environ["PT_XLA_DEBUG"] = "1"
        super().setup_environment()

    def setup_module(self, module: LightningModule) -> None:
        super().setup_module(module)
        _sync()

    def wrap_step(self, name: str, step: Callable[..., Any]) -> Callable[..., Any]:
        """A step of evaluation is sent to the device at its end; a training step with the optimizer's."""
        return step if name == "training_step" else sent_at_its_end(step)


def sent_at_its_end(step: Callable[..., Any]) -> Callable[..., Any]:
    """``step``, and what it asks of the device is sent there."""

    def sent(*args: Any) -> Any:
        output = step(*args)
        _sync()
        return output

    return sent


def chosen_precision(strategy: Strategy, numbers: Precision) -> Precision:
    """How numbers are kept on the devices of ``strategy``, where the Trainer was told ``numbers``.

    Raises:
        MisconfigurationException: the Trainer has other devices, or another precision than the strategy.
    """
    own = strategy.precision_plugin
    if not isinstance(numbers, XLAPrecision):
        raise MisconfigurationException(
            f"{type(strategy).__name__} is for the devices of torch_xla, and the Trainer has others. Write "
            "`Trainer(accelerator='xla', strategy=...)`."
        )
    if isinstance(own, XLAPrecision) and own.precision != numbers.precision != "32-true":
        raise MisconfigurationException(
            f"{type(strategy).__name__} already has the precision {own.precision!r}, and the Trainer was given "
            f"{numbers.precision!r}. Give one of them."
        )
    return own if isinstance(own, XLAPrecision) else numbers


def _sync() -> None:
    import torch_xla  # type: ignore[import-not-found]

    torch_xla.sync()
