"""Names of Lightning that well-known packages import, and that only they have a use for."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from types import FrameType
from typing import Any, NoReturn

import torch


def get_init_args(frame: FrameType) -> dict[str, Any]:
    """The arguments of the ``__init__`` that runs in ``frame``, those in ``**kwargs`` among them, without ``self`` and
    ``*args``; ``{}`` if ``frame`` belongs to no method of a class that calls ``super()``."""
    if "__class__" not in frame.f_locals:
        return {}
    names, _, more, values = inspect.getargvalues(frame)
    keywords = [*names[1:], *_keyword_only(frame)]
    return {**{name: values[name] for name in keywords}, **(values[more] if more else {})}


def _keyword_only(frame: FrameType) -> tuple[str, ...]:
    code = frame.f_code
    return code.co_varnames[code.co_argcount : code.co_argcount + code.co_kwonlyargcount]


class NoOptimizer(torch.optim.Optimizer):
    """An optimizer without parameters, whose steps do nothing: to make a scheduler for a look at it."""

    def __init__(self) -> None:
        super().__init__([torch.zeros(1)], {})

    def add_param_group(self, param_group: dict[str, Any]) -> None:
        return None

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        return None

    def state_dict(self) -> dict[str, Any]:
        return {}

    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        return closure() if closure is not None else None

    def zero_grad(self, set_to_none: bool | None = True) -> None:
        return None

    def __repr__(self) -> str:
        return "No Optimizer"


class EpochValue:
    """The class of ``trainer._results.result_metrics``, which are none: values are reduced over processes at once."""

    def __init__(self, *_: Any, **__: Any) -> None:
        raise NotImplementedError("log the value by `self.log`, and read it from `trainer.callback_metrics`")


def refuse_older_sharding(*_: Any, **__: Any) -> NoReturn:
    """What Lightning's strategy for ``FullyShardedDataParallel`` has inside, and Fulmen's has not.

    Raises:
        NotImplementedError: always.
    """
    raise NotImplementedError(
        "Fulmen's FSDPStrategy shards by torch's `fully_shard`, and has no `FullyShardedDataParallel` whose state "
        "could be gathered or whose activations could be wrapped. Write `FSDPStrategy(activation_checkpointing=...)`; "
        "`trainer.save_checkpoint(path)` gathers the state."
    )
