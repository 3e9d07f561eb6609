"""How long a run takes to find its place in a large data set: resumed at the middle, and resumed at the start.

The data set has ten million samples in a shuffled loader. Target: the middle takes at most 2 seconds longer than the
start, and reads no other samples than those of the batch that is trained.

    python benchmarks/resume_seek.py [--samples 10000000] [--batch-size 32] [--workers 0]
"""

from __future__ import annotations

import argparse
import tempfile
import time
from pathlib import Path
from typing import Any

import torch
from measuring import quiet
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from fulmen import Callback, LightningModule, Trainer


class Places(Dataset):
    """So many samples, which are their own numbers; counts the readings of this process."""

    def __init__(self, samples: int) -> None:
        self.samples, self.readings = samples, 0

    def __len__(self) -> int:
        return self.samples

    def __getitem__(self, place: int) -> Tensor:
        self.readings += 1
        return torch.tensor([place / self.samples])


class Line(LightningModule):
    """One weight."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = torch.nn.Linear(1, 1)

    def training_step(self, batch: Tensor, batch_idx: int) -> Tensor:
        return self.layer(batch).square().mean()

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.SGD(self.parameters(), lr=0.1)


class Watch(Callback):
    """Saves after the first batch, and notes when the first batch was there."""

    def __init__(self, path: Path | None = None) -> None:
        self.path, self.first = path, 0.0

    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int) -> None:
        self.first = self.first or time.perf_counter()

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        if self.path is not None:
            trainer.boundary.defer(lambda: trainer.save_checkpoint(self.path or ""))


def fit(arguments: argparse.Namespace, watch: Watch, path: Path | None) -> tuple[float, int]:
    """Train one batch; returns the seconds until it was there, and how many samples were read."""
    data = Places(arguments.samples)
    loader = DataLoader(data, batch_size=arguments.batch_size, shuffle=True, num_workers=arguments.workers)
    trainer = Trainer(
        max_steps=1 if path is None else 2,
        accelerator="cpu",
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        callbacks=watch,
    )
    torch.manual_seed(0)
    began = time.perf_counter()
    trainer.fit(Line(), loader, ckpt_path=path)
    if not watch.first:
        raise RuntimeError(f"the run from {path} trained nothing")
    return watch.first - began, data.readings


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--samples", type=int, default=10**7)
    parser.add_argument("--batch-size", type=int, default=32)
    parser.add_argument("--workers", type=int, default=0, help="then readings are not counted: they are in the workers")
    arguments = parser.parse_args()
    quiet()
    with tempfile.TemporaryDirectory() as folder:
        start, middle = Path(folder, "start.ckpt"), Path(folder, "middle.ckpt")
        fit(arguments, Watch(start), None)
        checkpoint = torch.load(start, weights_only=True)
        (mark,) = checkpoint["resume"]["data"]["train"]
        batches = arguments.samples // arguments.batch_size // 2
        mark["position"] = checkpoint["loops"]["progress"]["batches_done"] = batches  # as after hours
        torch.save(checkpoint, middle)
        seconds = {}
        for name, path in (("start", start), ("middle", middle)):
            seconds[name], readings = min(fit(arguments, Watch(), path) for _ in range(3))
            print(f"resumed at the {name:6}: {seconds[name]:6.2f} s, {readings} samples read")
        print(f"difference            : {seconds['middle'] - seconds['start']:6.2f} s (target: < 2 s)")


if __name__ == "__main__":
    main()
