"""Make runs with Lightning, in a process of its own: ``python under_lightning.py <runs.json> <results.pt>``."""

from __future__ import annotations

import json
import sys
import tempfile
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import torch

from interchange.toys import Run, run


def main(runs: str, results: str) -> None:
    """Make each of the runs, which are the attributes of a :class:`Run` by name, and write down what was seen."""
    seen = {}
    for name, attributes in json.loads(Path(runs).read_text()).items():
        with tempfile.TemporaryDirectory() as folder:
            seen[name] = run("lightning.pytorch", Run(**attributes), folder)
    torch.save(seen, results)


if __name__ == "__main__":
    main(*sys.argv[1:])
