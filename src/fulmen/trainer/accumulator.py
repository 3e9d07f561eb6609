"""What was logged under one name since the epoch began: carried as (sum, weight), on the device."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from fulmen.trainer.metric_objects import pack


class Accumulator:
    """All values logged under one name from one hook, since the epoch began."""

    __slots__ = (
        "agreed",
        "dataloader_idx",
        "fresh",
        "in_epoch",
        "last",
        "logger",
        "metric",
        "name",
        "on_epoch",
        "on_step",
        "prog_bar",
        "rank_zero_only",
        "reduction",
        "settings",
        "syncs",
        "total",
        "unseen",
        "weight",
    )

    def __init__(
        self,
        name: str,
        settings: tuple[Any, ...] | None,
        prog_bar: bool,
        logger: bool,
        on_step: bool,
        on_epoch: bool,
        reduction: str,
        dataloader_idx: int | None,
        metric: Any,
        syncs: bool = False,
        rank_zero_only: bool = False,
    ) -> None:
        self.name, self.settings = name, settings  # no settings: of the run that goes on here; the next call tells
        self.prog_bar, self.logger, self.on_step, self.on_epoch = prog_bar, logger, on_step, on_epoch
        self.reduction, self.dataloader_idx, self.metric = reduction, dataloader_idx, metric
        self.syncs = syncs  #: each step's value is that of all processes
        self.rank_zero_only = rank_zero_only  #: nobody else logs it
        self.agreed: Tensor | None = None  #: the value over the epoch, of all processes
        self.last: Tensor | float | None = None  #: the newest value
        self.fresh = False  #: logged since it was last written to the loggers
        self.in_epoch = False  #: logged since the epoch began
        self.unseen = False  #: logged since callbacks and users last read it
        self.total: Tensor | float | None = None  #: weighted sum, sum, minimum or maximum; None before the first value
        self.weight: float = 0.0  #: sum of the weights of a mean

    def add(self, value: Any, weight: float) -> None:
        """Take in one value: a number, or a tensor with one element."""
        self.fresh = self.in_epoch = self.unseen = True
        if self.metric is not None:
            if self.on_step:
                last = getattr(value, "_forward_cache", None)  # torchmetrics: the value of the last batch alone
                self.last = last.detach().clone() if isinstance(last, Tensor) else last
            return
        if isinstance(value, Tensor):
            value = value.detach()
            if value.ndim:
                value = value.squeeze()
            # a later change in place, of a parameter or a counter, must not change what was logged
            if self.on_step or self.total is None:
                self.last = value.clone()
            else:
                self.last = value  # only its type is asked for
        else:
            self.last = value
        if self.on_epoch:
            self._accumulate(value, weight)

    def _accumulate(self, value: Tensor | float, weight: float) -> None:
        total, reduction = self.total, self.reduction
        if reduction == "mean":
            self.weight += weight
            if total is None:
                self.total = (double(value) if isinstance(value, Tensor) else float(value)) * weight
            elif isinstance(total, Tensor) and isinstance(value, Tensor):
                total.add_(value, alpha=weight)
            else:
                self.total = total + value * weight
        elif total is None:
            self.total = double(value).clone() if isinstance(value, Tensor) else float(value)
        elif reduction == "sum":
            self.total = total.add_(value) if isinstance(total, Tensor) else total + value
        else:
            extreme = torch.minimum if reduction == "min" else torch.maximum
            self.total = extreme(torch.as_tensor(total), torch.as_tensor(value))

    @property
    def has_epoch_value(self) -> bool:
        return self.agreed is not None or self.total is not None or (self.metric is not None and self.in_epoch)

    def epoch_value(self) -> Tensor:
        """The value over the epoch so far, in the type that was logged."""
        if self.agreed is not None:
            return self.agreed
        if self.metric is not None:
            value = self.metric.compute()
            if not isinstance(value, (Tensor, int, float)):
                raise ValueError(
                    f"the metric {type(self.metric).__name__} logged as {self.name!r} computed a "
                    f"{type(value).__name__}; only one number can be logged. Log its parts by `self.log_dict(...)` "
                    "instead."
                )
            return as_tensor(value)
        total = self.total
        assert total is not None
        if self.reduction == "mean":
            total = total / self.weight if self.weight else total * float("nan")
        if isinstance(total, Tensor) and isinstance(self.last, Tensor):
            return total.to(visible_dtype(self.last.dtype))
        return as_tensor(total)

    def reset(self) -> None:
        """Begin a new epoch."""
        self.total, self.weight, self.in_epoch, self.agreed = None, 0.0, False, None
        if self.metric is not None:
            self.metric.reset()

    def state_dict(self) -> dict[str, Any]:
        """All but the settings' objects, as plain data."""
        return {name: pack(getattr(self, name)) for name in OPTIONS + NUMBERS}

    def numbers(self) -> list[Any]:
        """What was logged so far, so that it stays what it is now."""
        values = [getattr(self, name) for name in NUMBERS]
        return [value.clone() if isinstance(value, Tensor) else value for value in values]

    def take_back(self, numbers: list[Any]) -> None:
        """Go back to what :meth:`numbers` gave."""
        for name, value in zip(NUMBERS, numbers):
            setattr(self, name, value)

    def take_over(self, other: Accumulator) -> bool:
        """Go on with the numbers of ``other``; False if they are of another kind."""
        if (other.reduction, other.on_epoch) != (self.reduction, self.on_epoch) or other.metric is not self.metric:
            return False
        for name in NUMBERS:
            setattr(self, name, getattr(other, name))
        return True


#: what says how a value is logged, and what was logged
OPTIONS = ("name", "prog_bar", "logger", "on_step", "on_epoch", "reduction", "dataloader_idx")
NUMBERS = ("last", "fresh", "in_epoch", "unseen", "total", "weight")


def double(value: Tensor) -> Tensor:
    """The value in the greatest precision that its device has."""
    return value.float() if value.device.type == "mps" else value.double()  # MPS has no double precision


def visible_dtype(logged: torch.dtype) -> torch.dtype:
    """The type in which a value is read: single or double precision; all others (half, whole numbers) become the
    default.
    """
    return logged if logged in (torch.float32, torch.float64) else torch.get_default_dtype()


def as_tensor(value: Tensor | float) -> Tensor:
    """A value as users read it."""
    if isinstance(value, Tensor):
        return value.detach().to(visible_dtype(value.dtype))
    return torch.tensor(value, dtype=torch.get_default_dtype())


def to_number(value: Tensor | float) -> float:
    """The Python number of a value; waits for the device."""
    return float(value)
