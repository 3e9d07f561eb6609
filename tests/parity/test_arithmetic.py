"""The weights that our runs end with are those of a loop written by hand, also where the recordings are edited."""

from __future__ import annotations

import pytest
import torch

from .recorder import framework_of, numbers, record, rows
from .scenarios import SCENARIOS

#: scenario -> the batches of each optimizer step, and after how many steps the learning rate is halved (0: never)
BY_HAND: dict[str, tuple[list[list[int]], int]] = {
    "fit_two_epochs_of_three_batches.light": ([[0], [1], [2]] * 2, 0),
    "accumulate_two_of_three.light": ([[0, 1], [2]], 1),
    "accumulate_two_of_four.light": ([[0, 1], [2, 3]] * 2, 0),
    "accumulate_more_than_an_epoch.light": ([[0, 1, 2]] * 2, 0),
    "accumulate_until_max_steps.light": ([[0, 1], [2], [0, 1]], 0),
    "accumulate_iterable_without_length": ([[0, 1], [2]], 0),
    "training_step_returns_none_while_accumulating": ([[1], [2]], 0),
    "scheduler_every_second_step.light": ([[0], [1], [2]] * 2, 2),
    "scheduler_every_second_step_while_accumulating": ([[0, 1], [2, 3], [4]] * 2, 2),
    "max_steps_in_mid_epoch.light": ([[0], [1], [2], [0]], 0),
    "stop_in_mid_epoch.light": ([[0], [1]], 0),
    "manual_one_optimizer.light": ([[0], [1]] * 2, 0),
    "optimizer_step_written": ([[0], [1]], 0),
    "resume_after_an_epoch.light": ([[0], [1]] * 3, 2),
    "resume_in_mid_epoch.light": ([[0], [1], [2], [3]] * 2, 4),
    "resume_from_a_validation_in_mid_epoch": ([[0], [1], [2], [3]] * 2, 0),
}


def weight_by_hand(steps: list[list[int]], halved_every: int) -> str:
    """The line that a scenario's recording would end with, from a plain loop over ``steps``."""
    layer = torch.nn.Linear(2, 1, bias=False)
    with torch.no_grad():
        layer.weight.copy_(torch.tensor([[0.5, -0.25]]))
    optimizer = torch.optim.SGD(layer.parameters(), lr=0.1)
    data = rows(5)
    for done, window in enumerate(steps, start=1):
        optimizer.zero_grad()
        for index in window:
            ((layer(data[index][None]) - 1).pow(2).mean() / len(window)).backward()
        optimizer.step()
        if halved_every and done % halved_every == 0:
            optimizer.param_groups[0]["lr"] /= 2
    return f"weight {numbers(layer.weight.flatten().tolist())}"


@pytest.mark.parametrize("name", BY_HAND)
def test_weight_of_a_scenario_equals_that_of_a_loop_written_by_hand(name: str) -> None:
    scenario, light = SCENARIOS[name]

    ours = record(scenario, framework_of("fulmen"), light)

    assert weight_by_hand(*BY_HAND[name]) in ours.splitlines()
