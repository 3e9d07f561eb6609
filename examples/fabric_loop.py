"""A loop of one's own, on any number of devices: Fabric lends it the Trainer's devices, processes and precisions.

The script is a plain loop of torch; what Fabric does in it is marked by a comment. On one process:

    python examples/fabric_loop.py

On several, by the script itself, or by a command, where the script may leave all of it open:

    python examples/fabric_loop.py --strategy ddp --devices 2
    fulmen run --accelerator cpu --devices 2 --precision bf16-mixed examples/fabric_loop.py

A run that is started again goes on from its checkpoint, also with another number of processes.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from fulmen import Fabric
from fulmen.demos.digits import load_digits
from fulmen.loggers import CSVLogger


def parse_arguments(argv: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0] if __doc__ else None)
    parser.add_argument("--accelerator", default="auto")
    parser.add_argument("--strategy", default="auto", help="ddp or fsdp, for several processes")
    parser.add_argument("--devices", default="auto", help="how many")
    parser.add_argument("--precision", default=None, help="bf16-mixed, say")
    parser.add_argument("--epochs", type=int, default=5)
    parser.add_argument("--accumulate", type=int, default=2, help="batches for one step")
    parser.add_argument("--dir", type=Path, default=Path("fabric_loop_runs"), help="the folder for all files")
    return parser.parse_args(argv)


def network() -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(1, 16, 3, padding=1),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Flatten(),
        nn.Linear(256, 64),
        nn.ReLU(),
        nn.Dropout(0.2),
        nn.Linear(64, 10),
    )


def main(arguments: argparse.Namespace) -> float:
    """Train, and return the accuracy on images that were not trained on."""
    fabric = Fabric(
        accelerator=arguments.accelerator,
        strategy=arguments.strategy,
        devices=arguments.devices,
        precision=arguments.precision,
        loggers=CSVLogger(arguments.dir),
    )
    fabric.launch()  # from here on there are as many processes as devices
    fabric.seed_everything(0, verbose=False)

    images, digits = load_digits()
    train = DataLoader(TensorDataset(images[:1497], digits[:1497]), batch_size=16, shuffle=True)
    rest = DataLoader(TensorDataset(images[1497:], digits[1497:]), batch_size=50)
    train, rest = fabric.setup_dataloaders(train, rest)  # each process gets its own batches

    model = network()
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3)
    model, optimizer = fabric.setup(model, optimizer)

    state: dict[str, Any] = {"model": model, "optimizer": optimizer, "epoch": 0, "step": 0}
    file = arguments.dir / "last.ckpt"
    if file.exists():
        fabric.load(file, state)

    accuracy = 0.0
    while state["epoch"] < arguments.epochs:
        model.train()
        total = torch.zeros((), device=fabric.device)
        for number, (inputs, targets) in enumerate(train, 1):  # on the device
            is_step = number % arguments.accumulate == 0 or number == len(train)
            with fabric.no_backward_sync(model, enabled=not is_step):  # gradients are exchanged for a step only
                loss = F.cross_entropy(model(inputs), targets)  # in the precision
                fabric.backward(loss / arguments.accumulate)
            total += loss.detach()
            if is_step:
                fabric.clip_gradients(model, optimizer, max_norm=1.0)
                optimizer.step()
                optimizer.zero_grad()
                state["step"] += 1
        accuracy = evaluate(fabric, model, rest)
        values = {"train_loss": fabric.all_reduce(total / len(train)), "accuracy": accuracy}
        fabric.log_dict(values, step=state["step"])
        state["epoch"] += 1
        fabric.save(file, state)
        fabric.print(f"epoch {state['epoch']}: {accuracy:.3f}")
    return accuracy


@torch.no_grad()
def evaluate(fabric: Fabric, model: nn.Module, batches: Any) -> float:
    model.eval()
    right = torch.zeros((), device=fabric.device)
    count = torch.zeros((), device=fabric.device)
    for inputs, targets in batches:
        right += (model(inputs).argmax(1) == targets).sum()
        count += len(targets)
    total = fabric.all_reduce([right, count], reduce_op="sum")
    return float(total[0] / total[1])


if __name__ == "__main__":
    main(parse_arguments())
