"""Every scenario calls what Lightning calls, in its order, and leaves the same state, but for decided differences."""

from __future__ import annotations

from pathlib import Path

import pytest

from fulmen.core.hooks import HOOKS

from .differences import DIFFERENCES, PENDING, RULES, expected, scenario_params
from .log_scenarios import LOG_SCENARIOS
from .misuses import MISUSES
from .recorder import framework_of, hook_owners, record
from .scenarios import SCENARIOS

RECORDED = Path(__file__).with_name("recorded")


@pytest.mark.parametrize("name", scenario_params(SCENARIOS))
def test_hook_order_of_a_scenario_equals_the_recording(name: str) -> None:
    scenario, light = SCENARIOS[name]

    ours = record(scenario, framework_of("fulmen"), light)

    assert ours.splitlines() == expected(name, (RECORDED / f"{name}.txt").read_text())


def test_hook_list_of_the_recorder_equals_the_hooks_table() -> None:
    table = {hook.name: [owner for owner in hook.owners if owner != "strategy"] for hook in HOOKS}

    assert hook_owners() == table


def test_recordings_and_differences_belong_to_scenarios() -> None:
    names = {*SCENARIOS, *(f"log_{name}" for name in LOG_SCENARIOS), "errors"}

    assert {path.stem for path in RECORDED.glob("*.txt")} == names
    assert {*DIFFERENCES, *(name for rule in RULES for name in rule.scenarios)} <= names
    assert set(PENDING) <= {*names, *MISUSES}
