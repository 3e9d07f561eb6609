"""How fast a program runs: floating-point operations of a model, rates over a sliding window, peak figures of chips."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

if TYPE_CHECKING:
    from fulmen.fabric.fabric import Fabric


def measure_flops(
    model: torch.nn.Module,
    forward_fn: Callable[[], Tensor],
    loss_fn: Callable[[Tensor], Tensor] | None = None,
) -> int:
    """The floating-point operations of one forward, and with ``loss_fn`` also of the backward, of ``model``.

    The gradients of the parameters stay as they are. Under ``torch.device("meta")`` nothing is computed or allocated.

    Args:
        model: the model whose parameters the backward goes to.
        forward_fn: calls the model and returns its output, for example ``lambda: model(x)``.
        loss_fn: makes a scalar of the output, for example ``lambda y: y.sum()``. None: the forward alone is counted.
    """
    from torch.utils.flop_counter import FlopCounterMode  # imports much

    with FlopCounterMode(display=False) as counter:
        output = forward_fn()
        if loss_fn is not None:
            parameters = [parameter for parameter in model.parameters() if parameter.requires_grad]
            torch.autograd.grad(loss_fn(output), parameters, allow_unused=True)
    return counter.get_total_flops()


@dataclass(slots=True)
class _Sample:
    time: float
    batches: int
    samples: int
    lengths: int | None
    flops: int | None


class Throughput:
    """Rates of batches, samples, items and floating-point operations over the last ``window_size`` updates.

    Args:
        available_flops: how many operations per second the device could do; see :func:`get_available_flops`. None: the
            utilisation (``mfu``) is not computed.
        world_size: the number of devices. With more than one, there are also rates for all of them together, on the
            assumption that they all do as this one does.
        window_size: over how many updates the rates are taken, at least 2; there are none before it is full.
        separator: stands between ``device`` and the name of a rate.

    Example::

        throughput = Throughput()
        start = time.monotonic()
        for i, batch in enumerate(batches, start=1):
            train(batch)
            throughput.update(time=time.monotonic() - start, batches=i, samples=i * len(batch))
            print(throughput.compute())
    """

    def __init__(
        self,
        available_flops: float | None = None,
        world_size: int = 1,
        window_size: int = 100,
        separator: str = "/",
    ) -> None:
        if world_size < 1:
            raise ValueError(f"Throughput(world_size={world_size}): there is at least 1 device.")
        if window_size < 2:
            raise ValueError(f"Throughput(window_size={window_size}): a rate needs at least 2 updates.")
        self.available_flops = available_flops
        self.world_size = world_size
        self.separator = separator
        self._window: deque[_Sample] = deque(maxlen=window_size)

    def update(
        self, *, time: float, batches: int, samples: int, lengths: int | None = None, flops: int | None = None
    ) -> None:
        """Take note of the totals so far.

        Args:
            time: seconds since the start; must grow.
            batches: batches since the start; must grow.
            samples: samples since the start.
            lengths: items (such as tokens) since the start.
            flops: the floating-point operations since the last update, on this device.

        Raises:
            ValueError: ``time`` or ``batches`` have not grown, or ``samples`` or ``lengths`` have shrunk.
        """
        if self._window:
            last = self._window[-1]
            for name, before, now, strictly in (
                ("time", last.time, time, True),
                ("batches", last.batches, batches, True),
                ("samples", last.samples, samples, False),
                ("lengths", last.lengths, lengths, False),
            ):
                if before is not None and now is not None and (now < before or (strictly and now == before)):
                    raise ValueError(
                        f"Throughput.update({name}={now}): a total since the start, but it was {before} before."
                    )
        self._window.append(_Sample(time, batches, samples, lengths, flops))

    def compute(self) -> dict[str, float]:
        """The last totals (``time``, ``batches``, ``samples``, ``lengths``) and, once the window is full, the rates.

        ``device/batches_per_sec``, ``device/samples_per_sec``, ``device/items_per_sec``, ``device/flops_per_sec`` and
        ``device/mfu`` (the share of the available operations that was used) are those of this device; without
        ``device/`` those of all, if there is more than one. What was not given in the updates is not there.
        """
        if not self._window:
            return {}
        first, last = self._window[0], self._window[-1]
        totals = {"time": last.time, "batches": last.batches, "samples": last.samples, "lengths": last.lengths}
        metrics: dict[str, float] = {name: total for name, total in totals.items() if total is not None}
        if len(self._window) < (self._window.maxlen or 0):
            return metrics

        elapsed = last.time - first.time
        rates = {
            "batches_per_sec": (last.batches - first.batches) / elapsed,
            "samples_per_sec": (last.samples - first.samples) / elapsed,
        }
        if first.lengths is not None and last.lengths is not None:
            rates["items_per_sec"] = (last.lengths - first.lengths) / elapsed
        counted = [sample.flops for sample in list(self._window)[1:] if sample.flops is not None]
        if len(counted) == len(self._window) - 1:
            rates["flops_per_sec"] = sum(counted) / elapsed
        metrics.update({f"device{self.separator}{name}": rate for name, rate in rates.items()})
        if self.world_size > 1:
            metrics.update({name: rate * self.world_size for name, rate in rates.items()})
        if "flops_per_sec" in rates and self.available_flops:
            metrics[f"device{self.separator}mfu"] = rates["flops_per_sec"] / self.available_flops
        return metrics

    def reset(self) -> None:
        """Forget all updates."""
        self._window.clear()


class ThroughputMonitor(Throughput):
    """The same for a loop with :class:`Fabric`, whose loggers get the figures.

    Args:
        fabric: the Fabric of the loop. Its device and precision tell ``available_flops``, its processes ``world_size``.
        **kwargs: arguments of :class:`Throughput`, in place of those.

    Attributes:
        step: of the last call of :meth:`compute_and_log`; -1 before the first.
    """

    def __init__(self, fabric: Fabric, **kwargs: Any) -> None:
        if "available_flops" not in kwargs:
            dtype = compute_dtype(fabric.strategy.precision_plugin.precision)
            kwargs["available_flops"] = None if dtype is None else get_available_flops(fabric.device, dtype)
        super().__init__(**{"world_size": fabric.world_size, **kwargs})
        self._fabric = fabric
        self.step = -1

    def compute_and_log(self, step: int | None = None, **kwargs: Any) -> dict[str, float]:
        """:meth:`compute`, and give the figures to the loggers.

        Args:
            step: their place on the x axis. None: one more than that of the last call.
            **kwargs: arguments of :meth:`compute`.
        """
        self.step = self.step + 1 if step is None else step
        metrics = self.compute(**kwargs)
        self._fabric.log_dict(metrics=metrics, step=self.step)
        return metrics


#: Peak operations per second of one device as its maker states them, dense (without sparsity), by words of the device's
#: name. The first entry whose words are all in the name counts, so the more specific come first. ``"tf32"`` is float32
#: on tensor cores, which ``torch.set_float32_matmul_precision`` allows.
_PEAK_FLOPS: dict[str, dict[str, float]] = {
    "b200": {"float64": 37e12, "float32": 75e12, "tf32": 1.1e15, "16bit": 2.25e15, "int8": 4.5e15},
    "h200": {"float64": 67e12, "float32": 67e12, "tf32": 494e12, "16bit": 989e12, "int8": 1979e12},
    "gh200": {"float64": 67e12, "float32": 67e12, "tf32": 494e12, "16bit": 989e12, "int8": 1979e12},
    "h100 nvl": {"float64": 60e12, "float32": 60e12, "tf32": 417e12, "16bit": 835e12, "int8": 1671e12},
    "h100 pcie": {"float64": 51e12, "float32": 51e12, "tf32": 378e12, "16bit": 756e12, "int8": 1513e12},
    "h100": {"float64": 67e12, "float32": 67e12, "tf32": 494e12, "16bit": 989e12, "int8": 1979e12},
    "a100": {"float64": 19.5e12, "float32": 19.5e12, "tf32": 156e12, "16bit": 312e12, "int8": 624e12},
    "a10g": {"float32": 35e12, "tf32": 35e12, "16bit": 70e12, "int8": 140e12},
    "a10": {"float32": 31.2e12, "tf32": 62.5e12, "16bit": 125e12, "int8": 250e12},
    "a40": {"float32": 37.4e12, "tf32": 74.8e12, "16bit": 149.7e12, "int8": 299.3e12},
    "a6000": {"float32": 38.7e12, "tf32": 77.4e12, "16bit": 154.8e12, "int8": 309.7e12},
    "l40s": {"float32": 91.6e12, "tf32": 183e12, "16bit": 362e12, "int8": 733e12},
    "l40": {"float32": 90.5e12, "tf32": 90.5e12, "16bit": 181e12, "int8": 362e12},
    "l4": {"float32": 30.3e12, "tf32": 60e12, "16bit": 121e12, "int8": 242e12},
    "t4": {"float32": 8.1e12, "float16": 65e12, "int8": 130e12},
    "v100 sxm": {"float64": 7.8e12, "float32": 15.7e12, "float16": 125e12},
    "v100 pcie": {"float64": 7e12, "float32": 14e12, "float16": 112e12},
    "rtx 4090": {"float32": 82.6e12, "tf32": 82.6e12, "16bit": 165.2e12, "int8": 660.6e12},
    "rtx 3090": {"float32": 35.6e12, "tf32": 35.6e12, "16bit": 71e12, "int8": 284e12},
    "mi300x": {"float64": 81.7e12, "float32": 163.4e12, "16bit": 1307.4e12, "int8": 2614.9e12},
}


def get_available_flops(device: torch.device, dtype: torch.dtype | str) -> int | None:
    """How many operations per second the maker of ``device`` states for matrices of ``dtype``.

    Args:
        device: which device.
        dtype: the type in which is computed; float32 counts as TF32 where torch is allowed to use it.

    Returns:
        The peak figure, without sparsity; None if it is not known: nothing is guessed.
    """
    if device.type != "cuda" or not torch.cuda.is_available():
        return None
    return peak_flops(torch.cuda.get_device_name(device), dtype, tf32=torch.get_float32_matmul_precision() != "highest")


def peak_flops(device_name: str, dtype: torch.dtype | str, tf32: bool = False) -> int | None:
    """:func:`get_available_flops` by the name of the device; ``tf32``: whether float32 may run on tensor cores."""
    words = device_name.lower().replace("-", " ").replace("sxm2", "sxm").split()
    if "laptop" in words:  # the same name, another chip
        return None
    figures = next(
        (figures for chip, figures in _PEAK_FLOPS.items() if all(word in words for word in chip.split())), {}
    )
    kind = str(dtype).removeprefix("torch.")
    candidates = [kind]
    if kind in ("float16", "bfloat16"):
        candidates.append("16bit")
    if kind == "float32" and tf32:
        candidates.insert(0, "tf32")
    return next((int(figures[candidate]) for candidate in candidates if candidate in figures), None)


def compute_dtype(precision: str) -> torch.dtype | None:
    """The type in which matrices are multiplied under a ``precision`` of the Trainer or of Fabric; None: not known."""
    kinds = {"16": torch.float16, "bf16": torch.bfloat16, "32": torch.float32, "64": torch.float64}
    return kinds.get(precision.partition("-")[0])
