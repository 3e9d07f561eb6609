"""What two processes cost beside ``DistributedDataParallel`` written by hand, with the same buckets.

Targets: a step of a small GPT at most 1.02 x the loop by hand; from the command to the first step at most 1.3 x a
script by hand under torchrun. Both trainings run in the same two processes, a stretch of steps each in turn.

    python benchmarks/ddp_overhead.py [--quick] [--only steps]
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
import textwrap
import time
from functools import partial
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from contenders import Task, one_layer, small_gpt
from measuring import Clock, interleave, output_to, quiet, table
from torch import Tensor
from torch.nn.parallel import DistributedDataParallel
from torch.utils.data import DataLoader, DistributedSampler

TITLES = {
    "lean": "One layer on 2 processes: a step, for information",
    "gpt": "Small GPT (width 128, 4 blocks, 8 x 128 tokens) on 2 processes: a step (target: ratio <= 1.02)",
}


def by_hand(task: Task, clock: Clock) -> None:
    model = task.make_model()
    wrapped = DistributedDataParallel(model)
    optimizer = torch.optim.SGD(model.parameters(), lr=1e-4)
    dataset, size = task.batches.dataset, task.batches.batch_size
    sampler: DistributedSampler[Any] = DistributedSampler(dataset, shuffle=False)
    for batch in DataLoader(dataset, batch_size=size, sampler=sampler):
        clock()
        loss = task.loss_of(wrapped, batch)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()


def by_fulmen(task: Task, clock: Clock) -> None:
    import fulmen

    class Module(fulmen.LightningModule):
        def __init__(self) -> None:
            super().__init__()
            self.model = task.make_model()

        def training_step(self, batch: Any, batch_idx: int) -> Tensor:
            clock()
            return task.loss_of(self.model, batch)

        def configure_optimizers(self) -> torch.optim.Optimizer:
            return torch.optim.SGD(self.parameters(), lr=1e-4)

    off = ("logger", "enable_checkpointing", "enable_progress_bar", "enable_model_summary")
    trainer = fulmen.Trainer(accelerator="cpu", devices=2, max_epochs=1, **dict.fromkeys(off, False))
    trainer.fit(Module(), task.batches)


def one_process(quick: bool) -> None:
    """Measure on this process of the two; rank 0 prints."""
    quiet()
    rank = int(os.environ["LOCAL_RANK"])
    dist.init_process_group("gloo", rank=rank, world_size=2)
    for name in TITLES:
        torch.manual_seed(0)
        if name == "gpt":
            task, stretch = small_gpt(batches=120 if quick else 480), 2
        else:
            task, stretch = one_layer(batches=2_000 if quick else 10_000), 50
        runs = {"DDP by hand": partial(by_hand, task), "fulmen": partial(by_fulmen, task)}
        with output_to("null"):
            results = interleave(runs, stretch, time.perf_counter, per=stretch)
        if rank == 0:
            print(table(TITLES[name], results, "ms" if name == "gpt" else "us"), flush=True)
    dist.barrier()
    os._exit(0)  # threads of torch need no goodbye


def measure_steps(quick: bool) -> None:
    with _free_port() as port:
        variables = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "WORLD_SIZE": "2", "OMP_NUM_THREADS": "1"}
    command = [sys.executable, __file__, "--process", *(["--quick"] if quick else [])]
    processes = [subprocess.Popen(command, env={**os.environ, **variables, "LOCAL_RANK": str(rank)}) for rank in (0, 1)]
    if any([process.wait() for process in processes]):
        sys.exit("one of the processes failed")


class _free_port:
    """A port that nobody has, for the moment."""

    def __enter__(self) -> int:
        import socket

        with socket.socket() as bound:
            bound.bind(("127.0.0.1", 0))
            return bound.getsockname()[1]

    def __exit__(self, *exception: object) -> None:
        pass


# -- the start ---------------------------------------------------------------------------------------------------------

_NETWORK = """
import os, time
import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset
data = TensorDataset(torch.randn(64, 32))
def note():
    if os.environ["LOCAL_RANK"] == "0":
        open(os.environ["NOTE"], "w").write(repr(time.time()))
    os._exit(0)
"""
_BY_HAND = (
    _NETWORK
    + """
import torch.distributed as dist
from torch.nn.parallel import DistributedDataParallel
from torch.utils.data import DistributedSampler
dist.init_process_group("gloo")
model = DistributedDataParallel(nn.Linear(32, 2))
optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
for i, (batch,) in enumerate(DataLoader(data, batch_size=4, sampler=DistributedSampler(data))):
    optimizer.zero_grad()
    model(batch).sum().backward()
    optimizer.step()
    if i == 0:
        dist.barrier()
        note()
"""
)
_BY_FULMEN = (
    _NETWORK
    + """
from fulmen import LightningModule, Trainer
class Module(LightningModule):
    def __init__(self):
        super().__init__()
        self.layer = nn.Linear(32, 2)
    def training_step(self, batch, batch_idx):
        if batch_idx == 1:
            torch.distributed.barrier()
            note()
        return self.layer(batch[0]).sum()
    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=0.1)
trainer = Trainer(accelerator="cpu", devices=2, max_epochs=1, logger=False, enable_checkpointing=False)
trainer.fit(Module(), DataLoader(data, batch_size=4))
"""
)


def measure_start(rounds: int) -> None:
    seconds: dict[str, list[float]] = {"torchrun by hand": [], "fulmen, started by itself": [], "fulmen, torchrun": []}
    with tempfile.TemporaryDirectory() as folder:
        scripts = {name: Path(folder, f"{name}.py") for name in ("hand", "own")}
        scripts["hand"].write_text(textwrap.dedent(_BY_HAND))
        scripts["own"].write_text(textwrap.dedent(_BY_FULMEN))
        torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
        commands = {
            "torchrun by hand": [*torchrun, str(scripts["hand"])],
            "fulmen, started by itself": [sys.executable, str(scripts["own"])],
            "fulmen, torchrun": [*torchrun, str(scripts["own"])],
        }
        note = Path(folder, "note.txt")
        for turn in range(rounds + 1):
            for name, command in commands.items():
                note.unlink(missing_ok=True)
                began = time.time()
                variables = {**os.environ, "NOTE": str(note), "OMP_NUM_THREADS": "1"}
                subprocess.run(command, env=variables, check=True, capture_output=True, cwd=folder)
                if turn:  # the first round fills the caches of the disk
                    seconds[name].append(float(note.read_text()) - began)
    first = statistics.median(seconds["torchrun by hand"])
    print("\nFrom the command to the end of the first step on 2 processes (target: ratio <= 1.3)")
    for name, each in seconds.items():
        print(f"{name:<28} median {statistics.median(each):6.2f} s   ratio {statistics.median(each) / first:.2f}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="fewer steps, fewer starts")
    parser.add_argument("--only", choices=["steps", "start"], help="one of the two")
    parser.add_argument("--process", action="store_true", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.process:
        one_process(arguments.quick)
    if arguments.only != "start":
        measure_steps(arguments.quick)
    if arguments.only != "steps":
        measure_start(2 if arguments.quick else 5)


if __name__ == "__main__":
    main()
