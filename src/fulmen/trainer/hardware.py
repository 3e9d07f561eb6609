"""From the Trainer's arguments to where it runs: device, precision and plugins, each checked."""

from __future__ import annotations

from typing import Any

import torch

from fulmen.accelerators.accelerator import Accelerator
from fulmen.accelerators.cpu import CPUAccelerator
from fulmen.accelerators.registry import AcceleratorRegistry
from fulmen.plugins.environments.cluster_environment import ClusterEnvironment
from fulmen.plugins.environments.requeue import Requeue
from fulmen.plugins.environments.variables import started_here
from fulmen.plugins.io.checkpoint_plugin import CheckpointIO
from fulmen.plugins.io.torch_plugin import TorchCheckpointIO
from fulmen.plugins.layer_sync import LayerSync, TorchSyncBatchNorm
from fulmen.plugins.precision.precision import Precision
from fulmen.strategies.strategy import Strategy
from fulmen.trainer.flags import refuse_class, truth
from fulmen.utilities.exceptions import MisconfigurationException
from fulmen.utilities.imports import package_available
from fulmen.utilities.text import a_kind, shown

# -- devices ----------------------------------------------------------------------------------------------------------


def accelerator(value: Any, strategy: Any = None) -> Accelerator:
    """The kind of device that ``accelerator=`` names, or that the strategy has.

    Raises:
        ValueError: ``value`` is no name of one.
        MisconfigurationException: this machine has none, or the strategy has another.
    """
    own = strategy.accelerator if isinstance(strategy, Strategy) else None
    if own is not None and isinstance(value, str) and value == "auto":
        return own
    kind = _accelerator(value)
    if own is not None and type(own) is not type(kind):
        name = f"{type(strategy).__name__}(accelerator={type(own).__name__})"
        raise _both(name, f"`accelerator={shown(value)}`", "a kind of device")
    return kind


def _accelerator(value: Any) -> Accelerator:
    if isinstance(value, Accelerator):
        return value
    refuse_class("accelerator", value, ValueError)
    current = torch.accelerator.current_accelerator(check_available=True)
    if value == "auto":
        if current is None:
            return AcceleratorRegistry.get("tpu" if _has_tpu() else "cpu")
        value = current.type
    elif value == "gpu":
        if current is None:
            raise MisconfigurationException(_no_device("gpu"))
        value = current.type
    if not isinstance(value, str) or (value not in AcceleratorRegistry and (current is None or value != current.type)):
        names = ["auto", "gpu", *AcceleratorRegistry]
        raise ValueError(f"`accelerator={value!r}`: must be one of {names}, or an Accelerator.")
    kind = AcceleratorRegistry.get(value) if value in AcceleratorRegistry else Accelerator()
    if not kind.is_available():
        raise MisconfigurationException(_no_device(value))
    return kind


def _has_tpu() -> bool:
    return package_available("torch_xla") and AcceleratorRegistry.get("tpu").is_available()


def _no_device(value: str) -> str:
    available = [name for name in AcceleratorRegistry if AcceleratorRegistry.get(name).is_available()]
    advice = " Run `pip install torch_xla`, or write" if value in ("xla", "tpu") else " Write"
    return f"`accelerator={value!r}`: this machine has none (available: {available}).{advice} `accelerator='auto'`."


def device_indices(devices: Any, kind: Accelerator) -> list[int]:
    """Which devices of this machine are used, by their numbers; on the CPU, the numbers of the processes.

    Raises:
        TypeError: ``devices`` has none of its forms.
        MisconfigurationException: none is asked for, or one that is not there.
    """
    if devices == "auto" and type(kind) is CPUAccelerator:
        return list(range(started_here()))
    indices = kind.indices(devices)
    if not indices:
        raise MisconfigurationException(f"`devices={devices!r}` leaves nothing to run on. Write `devices=1` or 'auto'.")
    return indices


# -- precision --------------------------------------------------------------------------------------------------------

_PRECISIONS = {
    "32": "32-true",
    "32-true": "32-true",
    "64": "64-true",
    "64-true": "64-true",
    "16": "16-mixed",
    "16-mixed": "16-mixed",
    "16-true": "16-true",
    "bf16": "bf16-mixed",
    "bf16-mixed": "bf16-mixed",
    "bf16-true": "bf16-true",
    "transformer-engine": "transformer-engine",
    "transformer-engine-float16": "transformer-engine-float16",
}
#: a type says in what numbers are kept
_DTYPES = {
    torch.float32: "32-true",
    torch.float64: "64-true",
    torch.float16: "16-true",
    torch.bfloat16: "bf16-true",
}


def precision(value: Any, plugins: list[Any], device_type: str) -> Precision:
    """The precision plugin: the one that was passed, or the one that ``precision=`` names."""
    passed = [plugin for plugin in plugins if isinstance(plugin, Precision)]
    if passed:
        if value is not None:
            raise ValueError(
                f"`precision={value!r}` and the plugin {type(passed[0]).__name__} both choose a precision. Give one of "
                "them."
            )
        return passed[0]
    if isinstance(value, torch.dtype):
        name = _DTYPES.get(value)
    else:
        name = _PRECISIONS.get(str(value if value is not None else "32-true"))
    if name is None:
        raise ValueError(
            f"`precision={shown(value)}`: must be one of {list(dict.fromkeys(_PRECISIONS.values()))}. For layers of "
            "bitsandbytes write `plugins=BitsandbytesPrecision('nf4')`."
        )
    return _named(name, device_type)


def _named(name: Any, device_type: str) -> Precision:
    """The plugin of that name. Each is imported when it is chosen."""
    if device_type == "xla":
        from fulmen.plugins.precision.xla import XLAPrecision

        return XLAPrecision(name)
    if name in ("16-mixed", "bf16-mixed"):
        from fulmen.plugins.precision.amp import MixedPrecision

        return MixedPrecision(name, device_type)
    if name in ("16-true", "bf16-true"):
        from fulmen.plugins.precision.half import HalfPrecision

        return HalfPrecision(name)
    if name == "64-true":
        from fulmen.plugins.precision.double import DoublePrecision

        return DoublePrecision()
    if name.startswith("transformer-engine"):
        from fulmen.plugins.precision.transformer_engine import TransformerEnginePrecision

        half = torch.float16 if name.endswith("float16") else torch.bfloat16
        return TransformerEnginePrecision(weights_dtype=half)
    return Precision()


# -- plugins ----------------------------------------------------------------------------------------------------------

_KINDS = (Precision, CheckpointIO, ClusterEnvironment, LayerSync, Requeue, Strategy)


def plugin_list(value: Any) -> list[Any]:
    """``plugins=`` as a list, checked: at most one of each kind."""
    plugins = [] if value is None else list(value) if isinstance(value, (list, tuple)) else [value]
    names = ", a ".join(kind.__name__ for kind in _KINDS[:-1])
    for plugin in plugins:
        refuse_class("plugins", plugin)
        if not isinstance(plugin, _KINDS):
            raise MisconfigurationException(
                f"`plugins={shown(plugin)}`: must be a {names} or a {_KINDS[-1].__name__}, or a list of them, not "
                f"{a_kind(plugin)}."
            )
    for kind in _KINDS:
        same = [type(plugin).__name__ for plugin in plugins if isinstance(plugin, kind)]
        if len(same) > 1:
            raise MisconfigurationException(f"`plugins` has {len(same)} of the kind {kind.__name__}: {same}. Pass one.")
    return plugins


def chosen_strategy(value: Any, plugins: list[Any]) -> Any:
    """What ``strategy=`` and the plugins say together, where they do not contradict each other.

    Raises:
        MisconfigurationException: two of them choose the same thing; the message names both.
    """
    passed = next((plugin for plugin in plugins if isinstance(plugin, Strategy)), None)
    if passed is not None:
        if value != "auto":
            raise _both(f"`strategy={shown(value)}`", passed, "a strategy")
        value = passed
    if not isinstance(value, Strategy):
        return value
    for plugin in plugins:
        if isinstance(plugin, Precision) and type(value.precision_plugin) is not Precision:
            raise _both(value.precision_plugin, plugin, "a precision", value)
        if isinstance(plugin, CheckpointIO) and type(value.checkpoint_io) is not TorchCheckpointIO:
            raise _both(value.checkpoint_io, plugin, "how checkpoints are written", value)
        environment = getattr(value, "cluster_environment", None)
        if isinstance(plugin, ClusterEnvironment) and environment not in (None, plugin):
            raise _both(environment, plugin, "who the processes are", value)
    return value


def _both(one: Any, other: Any, what: str, strategy: Strategy | None = None) -> MisconfigurationException:
    names = [part if isinstance(part, str) else type(part).__name__ for part in (one, other)]
    if strategy is not None:
        names = [f"the {names[0]} of {type(strategy).__name__}", f"the plugin {names[1]}"]
    elif not isinstance(other, str):
        names[1] = f"the plugin {names[1]}"
    return MisconfigurationException(f"{names[0]} and {names[1]} both choose {what}. Give one of them.")


def layer_sync(sync_batchnorm: Any, plugins: list[Any]) -> LayerSync | None:
    """How layers share their statistics between processes; None: each has its own."""
    passed = next((plugin for plugin in plugins if isinstance(plugin, LayerSync)), None)
    if not truth("sync_batchnorm", sync_batchnorm, False):
        return passed
    if passed is not None:
        raise _both("`sync_batchnorm=True`", passed, "how batch norms are shared")
    return TorchSyncBatchNorm()
