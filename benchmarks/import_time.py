"""What importing costs beside ``import torch``, in fresh processes.

Targets: at most 1.15 times torch's import, and fewer than 150 modules beyond it.

    python benchmarks/import_time.py [--quick] [--json]
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import statistics
import subprocess
import sys

from measuring import aligned

LINES = {
    "import torch": "torch",
    "import fulmen": "fulmen",
    "from fulmen import Trainer, LightningModule": "fulmen",
    "from lightning.pytorch import Trainer, LightningModule": "lightning",
    "from ignite.engine import Engine": "ignite",
}
MEASURE = """
import sys, time
start = time.perf_counter()
{line}
seconds = time.perf_counter() - start
modules = set(sys.modules)
import torch
print(seconds, len(modules - set({torch_modules!r})))
"""


def run(code: str) -> list[str]:
    return subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True).stdout.split()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="3 processes per line instead of 9")
    parser.add_argument("--json", action="store_true", help="print JSON")
    arguments = parser.parse_args()
    lines = [line for line, package in LINES.items() if importlib.util.find_spec(package) is not None]
    torch_modules = run("import torch, sys; print(*sys.modules)")
    seconds: dict[str, list[float]] = {line: [] for line in lines}
    modules: dict[str, int] = {}
    for _ in range(3 if arguments.quick else 9):
        for line in lines:
            took, count = run(MEASURE.format(line=line, torch_modules=torch_modules))
            seconds[line].append(float(took))
            modules[line] = int(count)
    if arguments.json:
        print(json.dumps({line: {"seconds": seconds[line], "modules": modules[line]} for line in lines}, indent=1))
        return
    least = {line: min(seconds[line]) for line in lines}
    median = {line: statistics.median(seconds[line]) for line in lines}
    torch_line = "import torch"
    rows = [
        (
            line,
            f"{least[line]:.2f}",
            f"{median[line]:.2f}",
            f"{least[line] / least[torch_line]:.2f}",
            f"{median[line] / median[torch_line]:.2f}",
            str(modules[line]),
        )
        for line in lines
    ]
    print(aligned(("", "min s", "median s", "ratio (min)", "ratio (median)", "further modules"), rows))


if __name__ == "__main__":
    main()
