"""Every logging scenario writes and shows the values that Lightning does, but for the decided differences."""

from __future__ import annotations

from pathlib import Path

import pytest

from .differences import expected, scenario_params
from .log_recorder import record_log
from .log_scenarios import LOG_SCENARIOS
from .recorder import framework_of

RECORDED = Path(__file__).with_name("recorded")


@pytest.mark.parametrize("name", scenario_params(LOG_SCENARIOS, "log_"))
def test_logging_of_a_scenario_equals_the_recording(name: str) -> None:
    ours = record_log(LOG_SCENARIOS[name], framework_of("fulmen"))

    assert ours.splitlines() == expected(f"log_{name}", (RECORDED / f"log_{name}.txt").read_text())
