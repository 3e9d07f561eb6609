"""Record what Lightning does in each scenario, as text files in ``recorded/``. See ``README.md`` beside this file."""

from __future__ import annotations

import logging
import sys
from pathlib import Path

RECORDED = Path(__file__).with_name("recorded")
ROOT = "lightning.pytorch"


def main(chosen: list[str]) -> None:
    """Record the scenarios whose names contain one of ``chosen``, or all of them."""
    sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
    from parity.recorder import framework_of, record
    from parity.scenarios import SCENARIOS

    framework = framework_of(ROOT)
    for name in ("lightning", "lightning.pytorch", "lightning.fabric"):
        logging.getLogger(name).setLevel(logging.CRITICAL)
    RECORDED.mkdir(exist_ok=True)
    for name, (scenario, light) in SCENARIOS.items():
        if not chosen or any(word in name for word in chosen):
            text = record(scenario, framework, light)
            (RECORDED / f"{name}.txt").write_text(text)
            exits = [line[3:] for line in text.splitlines() if line.startswith("== ") and "exit" in line]
            print(f"{name}: {text.count(chr(10))} lines, {', '.join(exits)}")


if __name__ == "__main__":
    main(sys.argv[1:])
