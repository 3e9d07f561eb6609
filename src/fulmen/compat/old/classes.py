"""Small things that only Lightning 0.x and 1.x had."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

from torch import nn

from fulmen.compat.old.messages import tell
from fulmen.strategies.ddp import DDPStrategy

#: the type of the outputs that hooks at the end of an epoch got
EPOCH_OUTPUT = list[Any]


class DDPSpawnStrategy(DDPStrategy):
    """Processes that are started by ``spawn`` (or ``fork``): ``DDPStrategy(start_method="spawn")``."""

    def __init__(self, *args: Any, start_method: Any = "spawn", **kwargs: Any) -> None:
        tell("`DDPSpawnStrategy`", "Write `DDPStrategy(start_method='spawn')`.")
        super().__init__(*args, start_method=start_method, **kwargs)


def auto_move_data(forward: Callable[..., Any]) -> Callable[..., Any]:
    """Let ``forward`` move its arguments to the device of the module, outside of a run."""

    @functools.wraps(forward)
    def moving(self: nn.Module, *args: Any, **kwargs: Any) -> Any:
        tell("`@auto_move_data`", "Write `model(batch.to(model.device))`, or `trainer.predict(model, loader)`.")
        if getattr(self, "_trainer", None) is None:
            args, kwargs = self.transfer_batch_to_device((args, kwargs), self.device, 0)  # type: ignore[operator]
        return forward(self, *args, **kwargs)

    return moving


def data_loader(hook: Callable[..., Any]) -> Callable[..., Any]:
    """What stood before ``train_dataloader`` and its sisters in 0.x; they are called the same without it."""
    tell("`@pl.data_loader`", "Leave it out.")
    return hook
