"""How long training stands still for a checkpoint: written at once, written in the background, beside a plain copy.

Target: in the background <= 1.2 x a plain copy of the state.

One run of the Trainer saves its state every few steps, in turn by each of
- ``plain copy``: a clone of every tensor of the state, and nothing more;
- ``torch.save``: into a file, as one would write it in a loop by hand (not flushed to the disk);
- ``TorchCheckpointIO``: what ``trainer.save_checkpoint`` does by default (flushed and renamed);
- ``AsyncCheckpointIO``: the same in the background, while the run goes on.

Another run has ``ModelCheckpoint(save_top_k=1, save_last=True)``, which writes two files at a time, removes the one of
before and keeps the index; its line is what a step with all that waits longer than one without, in the background.

    python benchmarks/checkpoint_stall.py [--quick] [--megabytes 200] [--json]
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from measuring import Result, aligned, as_json, output_to, quiet
from torch import Tensor, nn
from torch.utils._pytree import tree_map
from torch.utils.data import DataLoader

from fulmen import Callback, LightningModule, Trainer
from fulmen.callbacks import ModelCheckpoint
from fulmen.plugins import AsyncCheckpointIO, TorchCheckpointIO
from fulmen.trainer.checkpoint import dump

STEPS_BETWEEN = 8


class Network(LightningModule):
    """Large layers on little data: much state, short steps."""

    def __init__(self, megabytes: int) -> None:
        super().__init__()
        width = 1024
        layers = max(1, megabytes * 2**20 // (4 * 3 * width * width))  # Adam keeps two more of each weight
        self.net = nn.Sequential(*(nn.Linear(width, width, bias=False) for _ in range(layers)))

    def training_step(self, batch: Tensor, batch_idx: int) -> Tensor:
        return self.net(batch).pow(2).mean()

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.Adam(self.parameters(), lr=1e-5)


class Stall(Callback):
    """Saves in turn by each contender, and measures how long it takes and what the steps cost that follow."""

    def __init__(self, contenders: dict[str, Callable[[Trainer], None]], settle: Callable[[], None]) -> None:
        self.contenders, self.settle = contenders, settle
        self.stalls = {name: Result(name) for name in contenders}
        self.steps = {name: Result(name) for name in contenders}
        self.begun = 0.0
        self.current = ""

    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int) -> None:
        self.begun = time.perf_counter()

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        if self.current:
            self.steps[self.current].seconds.append(time.perf_counter() - self.begun)
        if batch_idx % STEPS_BETWEEN == STEPS_BETWEEN - 1:
            self.settle()  # the one before is over
            self.current = list(self.contenders)[batch_idx // STEPS_BETWEEN % len(self.contenders)]
            begun = time.perf_counter()
            self.contenders[self.current](trainer)
            self.stalls[self.current].seconds.append(time.perf_counter() - begun)


class StallOfPolicy(Callback):
    """Measures what is between the hooks of a batch and the next batch: nothing, or all that a policy does to save."""

    def __init__(self) -> None:
        self.saving, self.others = Result("ModelCheckpoint, two files"), Result("no save")
        self.ended = 0.0

    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int) -> None:
        if batch_idx:
            saved = batch_idx % STEPS_BETWEEN == 0
            (self.saving if saved else self.others).seconds.append(time.perf_counter() - self.ended)

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        if batch_idx % STEPS_BETWEEN == STEPS_BETWEEN - 1:
            trainer.strategy.checkpoint_io.settle()  # the one before is over
        self.ended = time.perf_counter()

    @property
    def result(self) -> Result:
        return Result(self.saving.contender, [each - self.others.median for each in self.saving.seconds])


def stall_of_policy(folder: Path, megabytes: int, turns: int) -> Result:
    """What a step waits for a ModelCheckpoint that writes the newest and the last state in the background."""
    stall = StallOfPolicy()
    policy = ModelCheckpoint(folder, every_n_train_steps=STEPS_BETWEEN, save_top_k=1, save_last=True)
    steps = STEPS_BETWEEN * (turns + 1) + 1
    trainer = Trainer(
        max_steps=steps, logger=False, callbacks=[stall, policy], accelerator="cpu", plugins=AsyncCheckpointIO()
    )
    trainer.fit(Network(megabytes), DataLoader(torch.rand(steps, 1024), batch_size=1))
    return stall.result


def clone(value: Any) -> Any:
    return value.detach().clone() if isinstance(value, Tensor) else value


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="4 saves of each instead of 12")
    parser.add_argument("--megabytes", type=int, default=200, help="size of the state")
    parser.add_argument("--json", action="store_true", help="every single number")
    arguments = parser.parse_args()
    quiet()
    turns = 4 if arguments.quick else 12
    background, at_once = AsyncCheckpointIO(), TorchCheckpointIO()
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "state.ckpt"
        contenders: dict[str, Callable[[Trainer], None]] = {
            "plain copy": lambda trainer: tree_map(clone, dump(trainer)) and None,
            "torch.save": lambda trainer: torch.save(dump(trainer), path),
            "TorchCheckpointIO": lambda trainer: at_once.save_checkpoint(dump(trainer), path),
            "AsyncCheckpointIO": lambda trainer: background.save_checkpoint(dump(trainer), path),
        }
        stall = Stall(contenders, background.settle)
        steps = STEPS_BETWEEN * (len(contenders) * (turns + 1) + 1)
        with output_to("null"):
            trainer = Trainer(
                max_steps=steps, logger=False, enable_checkpointing=False, callbacks=[stall], accelerator="cpu"
            )
            trainer.fit(Network(arguments.megabytes), DataLoader(torch.rand(steps, 1024), batch_size=1))
            policy = stall_of_policy(Path(folder) / "policy", arguments.megabytes, turns)
        background.teardown()
        size = path.stat().st_size
    results = [Result(name, result.seconds[1:]) for name, result in stall.stalls.items()]  # the first one warms up
    results.append(Result(policy.contender, policy.seconds[1:]))
    if arguments.json:
        print(as_json({"stall": results, "steps": list(stall.steps.values())}))
        return
    copy = results[0]
    rows = [
        (
            result.contender,
            f"{1e3 * result.least:.1f}",
            f"{1e3 * result.median:.1f}",
            f"{result.least / copy.least:.2f}",
            f"{result.median / copy.median:.2f}",
            f"{1e3 * stall.steps[result.contender].median:.1f}" if result.contender in stall.steps else "",
        )
        for result in results
    ]
    head = ("", "stall min ms", "median ms", "min / copy", "median / copy", "step after it, ms")
    print(f"\nA state of {size / 2**20:.0f} MB, {turns} saves of each in turn\n{aligned(head, rows)}")


if __name__ == "__main__":
    main()
