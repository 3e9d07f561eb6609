"""Names for the types that hooks take and return."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import (
    Any,
    Literal,
    NotRequired,
    Protocol,
    Required,
    TypeAlias,
    TypedDict,
    TypeVar,
    runtime_checkable,
)

import torch
from torch import Tensor
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler, ReduceLROnPlateau

_PATH: TypeAlias = str | Path
_DEVICE: TypeAlias = torch.device | str | int
_PARAMETERS: TypeAlias = Iterator[torch.nn.Parameter]
_MAP_LOCATION_TYPE: TypeAlias = (
    _DEVICE | Callable[[torch.UntypedStorage, str], torch.UntypedStorage | None] | dict[_DEVICE, _DEVICE] | None
)
_NUMBER: TypeAlias = int | float
#: What ``self.log`` takes: a number, a tensor with one element, or a metric (anything with update, compute and reset).
_METRIC: TypeAlias = Any

#: What a step returns: the loss, a mapping with the key ``"loss"``, or None to skip the step.
STEP_OUTPUT: TypeAlias = Tensor | Mapping[str, Any] | None
#: What ``trainer.validate`` and ``trainer.test`` return: one mapping of metrics for each loader.
EVALUATE_OUTPUT: TypeAlias = list[Mapping[str, float]]
#: What ``trainer.predict`` returns: a list of what ``predict_step`` returned, or one such list for each loader.
PREDICT_OUTPUT: TypeAlias = list[Any] | list[list[Any]]
_EVALUATE_OUTPUT = EVALUATE_OUTPUT
_PREDICT_OUTPUT = PREDICT_OUTPUT

#: One iterable of batches, or a list, tuple or dict of them, nested as you like.
TRAIN_DATALOADERS: TypeAlias = Any
EVAL_DATALOADERS: TypeAlias = Any

LRSchedulerTypeTuple = (LRScheduler, ReduceLROnPlateau)
LRSchedulerTypeUnion: TypeAlias = LRScheduler | ReduceLROnPlateau
LRSchedulerType: TypeAlias = type[LRScheduler] | type[ReduceLROnPlateau]
LRSchedulerPLType = LRSchedulerTypeUnion

StateDict = TypeVar("StateDict", bound=Mapping[str, Any])


@dataclass(slots=True)
class LRSchedulerConfig:
    """A learning-rate scheduler and when it is stepped.

    Attributes:
        scheduler: the scheduler itself; anything with ``step``, ``state_dict`` and ``load_state_dict``.
        name: under which name a monitor of learning rates shows it; None: the class of the optimizer.
        interval: what ``frequency`` counts: ``"epoch"`` or ``"step"`` (optimizer steps).
        frequency: step it every so many epochs or steps.
        reduce_on_plateau: whether ``step`` wants the value of ``monitor``.
        monitor: the name of a logged value; needed if ``reduce_on_plateau``.
        strict: whether it is an error, or a warning only, if ``monitor`` has no value when it is needed.
    """

    scheduler: LRSchedulerTypeUnion
    name: str | None = None
    interval: Literal["epoch", "step"] | str = "epoch"
    frequency: int = 1
    reduce_on_plateau: bool = False
    monitor: str | None = None
    strict: bool = True


class LRSchedulerConfigType(TypedDict, total=False):
    """:class:`LRSchedulerConfig` as a dict, as ``configure_optimizers`` may return it."""

    scheduler: Required[LRSchedulerTypeUnion]
    name: str | None
    interval: str
    frequency: int
    reduce_on_plateau: bool
    monitor: str | None
    strict: bool


class OptimizerConfig(TypedDict):
    """An optimizer alone, as a dict."""

    optimizer: Optimizer


class OptimizerLRSchedulerConfig(TypedDict):
    """An optimizer and its scheduler, as a dict."""

    optimizer: Optimizer
    lr_scheduler: LRSchedulerTypeUnion | LRSchedulerConfigType
    monitor: NotRequired[str]


#: What ``configure_optimizers`` returns; None: no optimizer.
OptimizerLRScheduler: TypeAlias = (
    Optimizer
    | Sequence[Optimizer]
    | tuple[Sequence[Optimizer], Sequence[LRSchedulerTypeUnion | LRSchedulerConfigType | LRSchedulerConfig]]
    | OptimizerConfig
    | OptimizerLRSchedulerConfig
    | Sequence[OptimizerConfig]
    | Sequence[OptimizerLRSchedulerConfig]
    | None
)


@runtime_checkable
class Stateful(Protocol):
    """Has a state that can be taken and given back."""

    def state_dict(self) -> dict[str, Any]: ...

    def load_state_dict(self, state_dict: dict[str, Any]) -> Any: ...


_Stateful = Stateful


@runtime_checkable
class CollectibleGroup(Protocol):
    """A group of processes."""

    def size(self) -> int: ...

    def rank(self) -> int: ...


@runtime_checkable
class Steppable(Protocol):
    """Whatever can be stepped like an optimizer."""

    def step(self, closure: Callable[[], float] | None = ...) -> float | None: ...


@runtime_checkable
class Optimizable(Steppable, Protocol):
    """Whatever looks like an optimizer."""

    param_groups: list[dict[Any, Any]]
    defaults: dict[Any, Any]
    state: dict[Any, Any]

    def state_dict(self) -> dict[str, dict[Any, Any]]: ...

    def load_state_dict(self, state_dict: dict[str, dict[Any, Any]]) -> None: ...


@runtime_checkable
class DistributedDataParallel(Protocol):
    """Whatever looks like ``torch.nn.parallel.DistributedDataParallel``."""

    module: torch.nn.Module

    def no_sync(self) -> AbstractContextManager[None]: ...
