"""Whether a long run keeps anything: its size over 20,000 steps with 20 logged values, and graphs alive in between.

Targets: flat within 1 MB after the first tenth; no tensor with a ``grad_fn`` alive between two steps.

    python benchmarks/memory.py [--quick] [--package lightning.pytorch]
"""

from __future__ import annotations

import argparse
import gc
import importlib
import os
import tempfile
from typing import Any

import torch
from contenders import one_layer
from measuring import output_to, quiet


def resident_megabytes() -> float:
    """The process's resident size (Linux)."""
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE") / 2**20


def tensors_with_a_graph() -> int:
    return sum(isinstance(each, torch.Tensor) and each.grad_fn is not None for each in gc.get_objects())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="4,000 steps")
    parser.add_argument("--package", default="fulmen", help="where Trainer, LightningModule and Callback come from")
    arguments = parser.parse_args()
    quiet()
    package = importlib.import_module(arguments.package)
    steps = 4_000 if arguments.quick else 20_000
    task = one_layer(batches=steps)
    sizes: list[float] = []
    graphs: list[int] = []

    class Module(package.LightningModule):
        def __init__(self) -> None:
            super().__init__()
            self.model = task.make_model()

        def training_step(self, batch: Any, batch_idx: int) -> torch.Tensor:
            loss = task.loss_of(self.model, batch)
            for index in range(20):
                self.log(f"loss_{index}", loss, on_step=True, on_epoch=index % 2 == 0)
            return loss

        def configure_optimizers(self) -> torch.optim.Optimizer:
            return torch.optim.SGD(self.parameters(), lr=1e-4)

    class Watch(package.Callback):
        def on_train_batch_start(self, trainer: Any, pl_module: Any, batch: Any, batch_idx: int) -> None:
            if batch_idx % (steps // 10) == steps // 10 - 1:
                gc.collect()
                graphs.append(tensors_with_a_graph())
                sizes.append(resident_megabytes())

    with tempfile.TemporaryDirectory() as directory, output_to("null"):
        trainer = package.Trainer(
            accelerator="cpu", devices=1, max_epochs=1, default_root_dir=directory, callbacks=[Watch()]
        )
        trainer.fit(Module(), task.batches)
    growth = max(sizes) - sizes[0]
    print(f"{arguments.package}, {steps} steps, 20 logged values, all defaults on")
    print("resident MB at each tenth:", *(f"{size:.2f}" for size in sizes))
    print(f"growth after the first tenth: {growth:+.2f} MB (target: <= 1 MB)")
    print("tensors with a grad_fn between two steps:", *graphs, "(target: 0)")


if __name__ == "__main__":
    main()
