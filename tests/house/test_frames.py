"""Between ``fit()`` and the user's code lie few frames: tracebacks are short, a debugger is soon where it matters."""

from __future__ import annotations

import sys
from typing import Any

import torch
from torch import Tensor

from fulmen import Callback

from .toys import Toy, loader, quiet_trainer


def frames_since_fit() -> list[tuple[str, str]]:
    """Module and function of every frame strictly between the verb ``fit`` and the caller's caller, outermost first."""
    frames = []
    frame = sys._getframe(2)
    while frame is not None:
        module, function = frame.f_globals["__name__"], frame.f_code.co_name
        if (module, function) == ("fulmen.trainer.trainer", "fit"):
            return frames[::-1]
        frames.append((module, function))
        frame = frame.f_back
    raise AssertionError("fit() is not on the stack")


def of(library: str, frames: list[tuple[str, str]]) -> list[str]:
    return [f"{module}.{function}" for module, function in frames if module.partition(".")[0] == library]


def test_training_step_is_three_frames_below_fit() -> None:
    seen: list[list[tuple[str, str]]] = []

    class Looking(Toy):
        def training_step(self, batch: Tensor, batch_idx: int) -> Tensor:
            seen.append(frames_since_fit())
            return super().training_step(batch, batch_idx)

    quiet_trainer().fit(Looking(), loader(1))
    assert len(seen[0]) == 3, seen[0]


def test_callback_is_three_frames_below_fit() -> None:
    seen: list[list[tuple[str, str]]] = []

    class Looking(Callback):
        def look(self, *_: Any) -> None:
            seen.append(frames_since_fit())

        on_train_batch_start = on_train_batch_end = on_train_epoch_start = on_train_epoch_end = look

    quiet_trainer(callbacks=[Looking(), Callback()]).fit(Toy(), loader(1))
    assert [len(frames) for frames in seen] == [3] * 4, seen


def test_optimizer_step_is_two_frames_of_ours_and_one_of_torch_below_fit() -> None:
    seen: list[list[tuple[str, str]]] = []

    def look(*_: Any) -> None:  # called by torch right before the optimizer's own code
        seen.append(frames_since_fit())

    class Stepping(Toy):
        def configure_optimizers(self) -> torch.optim.Optimizer:
            optimizer = super().configure_optimizers()
            optimizer.register_step_pre_hook(look)
            return optimizer

    quiet_trainer().fit(Stepping(), loader(1))
    assert len(of("fulmen", seen[0])) <= 2, seen[0]
    assert len(of("torch", seen[0])) <= 1, seen[0]
