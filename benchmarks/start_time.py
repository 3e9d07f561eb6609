"""What a small run costs from the shell to its end: one program, as a plain loop, on Fulmen and on Lightning.

A process is started for each; what counts is the time until the first training step, and until the process has ended.
The frameworks run with all their defaults, on one process of the CPU.

    python benchmarks/start_time.py [--quick] [--json]
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time

from measuring import aligned

PLAIN = """
import torch
from torch.utils.data import DataLoader

torch.manual_seed(0)
layer = torch.nn.Linear(32, 2)
optimizer = torch.optim.SGD(layer.parameters(), lr=0.1)
for _ in range(2):
    for batch in DataLoader(torch.randn(64, 32), batch_size=2, shuffle=True):
        step()
        loss = layer(batch).square().mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    with torch.no_grad():
        for batch in DataLoader(torch.randn(64, 32), batch_size=2):
            layer(batch).square().mean()
"""

FRAMEWORK = """
import torch
from torch.utils.data import DataLoader
from {package} import LightningModule, Trainer


class Net(LightningModule):
    def __init__(self):
        super().__init__()
        self.layer = torch.nn.Linear(32, 2)

    def training_step(self, batch, batch_idx):
        step()
        return self.layer(batch).square().mean()

    def validation_step(self, batch, batch_idx):
        self.log("val_loss", self.layer(batch).square().mean())

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=0.1)


torch.manual_seed(0)
loaders = DataLoader(torch.randn(64, 32), batch_size=2, shuffle=True), DataLoader(torch.randn(64, 32), batch_size=2)
Trainer(max_epochs=2, accelerator="cpu", devices=1).fit(Net(), *loaders)
"""

FIRST = """
import sys, time
began = []
def step():
    if not began:
        began.append(time.time())
        sys.stderr.write(f"first step {began[0]!r}\\n")
"""

PROGRAMS = {
    "plain loop": ("torch", PLAIN),
    "fulmen": ("fulmen", FRAMEWORK.format(package="fulmen")),
    "lightning": ("lightning", FRAMEWORK.format(package="lightning.pytorch")),
}


def measured(program: str) -> tuple[float, float]:
    """Seconds from the start of a process to its first step, and to its end."""
    with tempfile.TemporaryDirectory() as folder:
        start = time.time()
        done = subprocess.run(
            [sys.executable, "-W", "ignore", "-c", FIRST + program],
            cwd=folder,
            env={**os.environ, "OMP_NUM_THREADS": "1"},
            capture_output=True,
            text=True,
        )
        end = time.time()
    if done.returncode:
        raise SystemExit(done.stderr)
    first = next(line for line in done.stderr.splitlines() if line.startswith("first step "))
    return float(first.split()[-1]) - start, end - start


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="3 processes of each instead of 9")
    parser.add_argument("--json", action="store_true", help="print JSON")
    arguments = parser.parse_args()
    programs = {name: text for name, (package, text) in PROGRAMS.items() if importlib.util.find_spec(package)}
    seconds: dict[str, list[tuple[float, float]]] = {name: [] for name in programs}
    for turn in range(4 if arguments.quick else 10):
        for name, program in programs.items():
            found = measured(program)
            if turn:  # the first one fills the caches of the disk
                seconds[name].append(found)
    if arguments.json:
        print(json.dumps(seconds, indent=1))
        return
    rows = []
    for name, found in seconds.items():
        firsts, ends = zip(*found, strict=True)
        plain_first, plain_end = zip(*seconds["plain loop"], strict=True)
        rows.append(
            (
                name,
                f"{statistics.median(firsts):.2f}",
                f"{statistics.median(firsts) / statistics.median(plain_first):.2f}",
                f"{statistics.median(ends):.2f}",
                f"{statistics.median(ends) / statistics.median(plain_end):.2f}",
            )
        )
    print(aligned(("", "s to first step", "ratio", "s to the end", "ratio"), rows))


if __name__ == "__main__":
    main()
