"""Every misuse raises what Lightning raises, but for the decided differences."""

from __future__ import annotations

from pathlib import Path

import pytest

from .differences import expected, scenario_params
from .misuses import MISUSES, outcome
from .recorder import framework_of

RECORDED = Path(__file__).with_name("recorded") / "errors.txt"


@pytest.mark.parametrize("name", scenario_params(MISUSES))
def test_misuse_raises_the_recorded_type(name: str) -> None:
    recorded = dict(line.split(" -> ") for line in expected("errors", RECORDED.read_text()))

    assert outcome(name, framework_of("fulmen")) == recorded[name]
