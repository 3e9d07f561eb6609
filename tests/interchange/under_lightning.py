"""Make runs with Lightning, in a process of its own: ``python under_lightning.py <runs.json> <results.pt>``.

Where a run has nothing but a ``ckpt_path``, the module is made by ``load_from_checkpoint`` from it.
"""

from __future__ import annotations

import json
import sys
import tempfile
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import torch

from interchange.toys import Run, models, run

ROOT = "lightning.pytorch"


def main(runs: str, results: str) -> None:
    """Make each of the runs, which are the attributes of a :class:`Run` by name, and write down what was seen."""
    seen = {}
    for name, attributes in json.loads(Path(runs).read_text()).items():
        if attributes.keys() == {"ckpt_path"}:
            model = models(ROOT)["Net"].load_from_checkpoint(attributes["ckpt_path"], weights_only=True)
            seen[name] = {"weights": model.state_dict(), "hparams": dict(model.hparams)}
            continue
        with tempfile.TemporaryDirectory() as folder:
            seen[name] = run(ROOT, Run(**attributes), folder)
    torch.save(seen, results)


if __name__ == "__main__":
    main(*sys.argv[1:])
