"""The table of scenarios, and the modules that several of them use."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch

from ..recorder import Run

Scenario = Callable[[Run], None]

#: name -> scenario; those that are run with the light module, too, appear a second time as ``<name>.light``
SCENARIOS: dict[str, tuple[Scenario, bool]] = {}


def scenario(function: Scenario) -> Scenario:
    """Run it with every hook written, and a second time with only the needed methods written."""
    SCENARIOS[function.__name__] = (function, False)
    SCENARIOS[f"{function.__name__}.light"] = (function, True)
    return function


def full(function: Scenario) -> Scenario:
    """Run it with every hook written only."""
    SCENARIOS[function.__name__] = (function, False)
    return function


def light(function: Scenario) -> Scenario:
    """Run it with only the needed methods written only."""
    SCENARIOS[function.__name__] = (function, True)
    return function


def with_batches(run: Run, train: int, val: int = 1) -> Any:
    """A recording module with so many batches."""
    return type("Module", (run.Module,), {"train_batches": train, "val_batches": val})()


def scheduled(run: Run, **config: Any) -> Any:
    """A recording module class with a StepLR that halves at each step; ``config`` goes into the scheduler's dict."""

    class Module(run.Module):
        def make_optimizers(self) -> Any:
            optimizer = super().make_optimizers()
            return [optimizer], [{"scheduler": run.StepLR(optimizer, step_size=1, gamma=0.5), **config}]

    return Module


def manual(run: Run, optimizers: int = 1, schedulers: bool = False) -> Any:
    """A module class that steps its optimizers by hand, one after another, on the same loss."""

    class Module(run.Module):
        def __init__(self) -> None:
            super().__init__()
            self.automatic_optimization = False

        def make_optimizers(self) -> Any:
            kinds = [torch.optim.SGD, torch.optim.Adagrad][:optimizers]
            made = [run.watch(kind(self.parameters(), lr=0.1)) for kind in kinds]
            if schedulers:
                return made, [run.StepLR(optimizer, step_size=1, gamma=0.5) for optimizer in made]
            return made if optimizers > 1 else made[0]

        def training_step(self, batch: Any, batch_idx: int) -> None:
            chosen = self.optimizers()
            for optimizer in chosen if isinstance(chosen, list) else [chosen]:
                loss = super().training_step(batch, batch_idx)
                optimizer.zero_grad()
                self.manual_backward(loss)
                optimizer.step()
            if schedulers:
                chosen = self.lr_schedulers()
                for schedule in chosen if isinstance(chosen, list) else [chosen]:
                    schedule.step()

    return Module
