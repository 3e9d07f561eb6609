"""Record what Lightning does in each scenario, as text files in ``recorded/``. See ``README.md`` beside this file."""

from __future__ import annotations

import logging
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path

RECORDED = Path(__file__).with_name("recorded")
ROOT = "lightning.pytorch"


def main(chosen: list[str]) -> None:
    """Record the scenarios whose names contain one of ``chosen``, or all of them."""
    sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
    from parity.log_recorder import record_log
    from parity.log_scenarios import LOG_SCENARIOS
    from parity.misuses import outcomes
    from parity.recorder import framework_of, record
    from parity.scenarios import SCENARIOS

    framework = framework_of(ROOT)
    for name in ("lightning", "lightning.pytorch", "lightning.fabric"):
        logging.getLogger(name).setLevel(logging.CRITICAL)
    RECORDED.mkdir(exist_ok=True)
    runs: dict[str, Callable[[], str]] = {}
    for name, (scenario, light) in SCENARIOS.items():
        runs[name] = partial(record, scenario, framework, light)
    for name, log_scenario in LOG_SCENARIOS.items():
        runs[f"log_{name}"] = partial(record_log, log_scenario, framework)
    runs["errors"] = partial(outcomes, framework)
    for name, run in runs.items():
        if not chosen or any(word in name for word in chosen):
            text = run()
            (RECORDED / f"{name}.txt").write_text(text)
            exits = [line[3:] for line in text.splitlines() if line.startswith("== ") and "exit" in line]
            print(f"{name}: {text.count(chr(10))} lines, {', '.join(exits)}")


if __name__ == "__main__":
    main(sys.argv[1:])
