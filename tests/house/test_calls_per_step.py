"""What a step costs beyond the loop written by hand, counted in Python calls: the same on every machine."""

from __future__ import annotations

import gc
import sys
from collections.abc import Callable
from types import FrameType
from typing import Any

import pytest
from torch import Tensor

from fulmen import Callback

from .toys import Toy, loader, plain_loop, quiet_trainer

MOST_CALLS_OF_A_SILENT_STEP = 40
MOST_CALLS_OF_A_LOG = 15
FEW, MANY = 10, 30  # steps; the difference has no share of beginning and end


def python_calls_of(run: Callable[[], object]) -> int:
    """How many Python functions ``run`` calls."""
    calls = 0

    def count(frame: FrameType, event: str, argument: object) -> None:
        nonlocal calls
        calls += event == "call"

    before = sys.getprofile()
    gc.collect()
    gc.disable()  # what is cleared away in the middle of a run may call Python, too
    sys.setprofile(count)
    try:
        run()
    finally:
        sys.setprofile(before)
        gc.enable()
    return calls


def calls_per_step(run: Callable[[int], object]) -> float:
    """The calls of one step of ``run(number of steps)``."""
    for _ in range(2):  # the first round imports and fills caches
        calls = python_calls_of(lambda: run(MANY)) - python_calls_of(lambda: run(FEW))
    return calls / (MANY - FEW)


def fit(module: type[Toy] = Toy, **arguments: Any) -> Callable[[int], None]:
    return lambda steps: quiet_trainer(**arguments).fit(module(), loader(steps))


class Logging(Toy):
    names: tuple[str, ...] = ()

    def training_step(self, batch: Tensor, batch_idx: int) -> Tensor:
        loss = super().training_step(batch, batch_idx)
        for name in self.names:
            self.log(name, loss)
        return loss


class LoggingOne(Logging):
    names = ("a",)


class LoggingFive(Logging):
    names = ("a", "b", "c", "d", "e")


class LoggingOnePerEpoch(Logging):
    def training_step(self, batch: Tensor, batch_idx: int) -> Tensor:
        loss = Toy.training_step(self, batch, batch_idx)
        self.log("a", loss, on_step=True, on_epoch=True)
        return loss


@pytest.fixture(scope="module")
def silent_step() -> float:
    return calls_per_step(fit())


def test_silent_step_costs_few_calls_more_than_the_plain_loop(silent_step: float) -> None:
    plain = calls_per_step(lambda steps: plain_loop(Toy(), loader(steps)))
    assert silent_step - plain <= MOST_CALLS_OF_A_SILENT_STEP, f"plain loop {plain}, ours {silent_step}"


def test_callbacks_that_write_no_hook_cost_nothing(silent_step: float) -> None:
    class Silent(Callback):
        pass

    assert calls_per_step(fit(callbacks=[Silent() for _ in range(10)])) == pytest.approx(silent_step, abs=0.1)


@pytest.mark.parametrize(("module", "logs"), [(LoggingOne, 1), (LoggingFive, 5), (LoggingOnePerEpoch, 1)])
def test_log_costs_few_calls(module: type[Toy], logs: int, silent_step: float) -> None:
    per_log = (calls_per_step(fit(module)) - silent_step) / logs
    assert per_log <= MOST_CALLS_OF_A_LOG
