"""Small runs whose result a person can compute: by hand, on Fulmen, and on Lightning where it is installed.

Each case is the same program in each framework, in a process of its own.

    python benchmarks/mended.py [--json] [--only NAME ...]
"""

from __future__ import annotations

import argparse
import contextlib
import importlib
import importlib.util
import json
import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import torch
from measuring import aligned
from torch.utils.data import DataLoader

PACKAGES = {"fulmen": "fulmen", "lightning": "lightning.pytorch"}
QUIET = {"logger": False, "enable_progress_bar": False, "enable_model_summary": False, "accelerator": "cpu"}


def trainer_of(package: ModuleType, **arguments: Any) -> Any:
    return package.Trainer(**{"devices": 1, "enable_checkpointing": False, "max_epochs": 1, **QUIET, **arguments})


def numbers(count: int) -> Any:
    return torch.arange(1.0, count + 1)


def one_weight(package: ModuleType, **more: Any) -> Any:
    """A module with the loss ``weight * batch``, so that its gradient is the batch, and a step subtracts it."""

    class Net(package.LightningModule):  # type: ignore[name-defined,misc]
        def __init__(self) -> None:
            super().__init__()
            self.weight = torch.nn.Parameter(torch.zeros(()))

        def training_step(self, batch: torch.Tensor, batch_idx: int) -> Any:
            return (self.weight * batch).mean()

        def configure_optimizers(self) -> Any:
            return torch.optim.SGD(self.parameters(), lr=1.0)

    return type("Net", (Net,), more)()


def tail(package: ModuleType) -> str:
    """Five batches of one sample with the gradients 1, 2, 3, 4, 5; accumulate_grad_batches=2."""
    module = one_weight(package)
    trainer_of(package, accumulate_grad_batches=2).fit(module, DataLoader(numbers(5)))
    return f"{-module.weight.item():g}"


def left_out(package: ModuleType) -> str:
    """The gradients 1, 2, 3, 4; accumulate_grad_batches=2; the step of the fourth batch returns None."""
    module = one_weight(package)
    whole = type(module).training_step
    type(module).training_step = lambda self, batch, batch_idx: (
        None if batch_idx == 3 else whole(self, batch, batch_idx)
    )
    trainer_of(package, accumulate_grad_batches=2).fit(module, DataLoader(numbers(4)))
    return f"{-module.weight.item():g}"


def frequency(package: ModuleType) -> str:
    """Two epochs of five steps; a scheduler that halves the rate, with interval 'step' and frequency 2."""
    module = one_weight(package)

    def configure_optimizers(self: Any) -> Any:
        optimizer = torch.optim.SGD(self.parameters(), lr=1.0)
        halves = torch.optim.lr_scheduler.ExponentialLR(optimizer, 0.5)
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": halves, "interval": "step", "frequency": 2}}

    type(module).configure_optimizers = configure_optimizers
    trainer = trainer_of(package, max_epochs=2)
    trainer.fit(module, DataLoader(numbers(5)))
    return f"1/{1 / trainer.optimizers[0].param_groups[0]['lr']:g}"


def processes(package: ModuleType) -> str:
    """`trainer.test` of five samples with the values 1 to 5 on two processes: their mean."""
    module = one_weight(package)
    type(module).test_step = lambda self, batch, batch_idx: self.log("mean", batch.mean(), sync_dist=True)
    trainer = trainer_of(package, devices=2, strategy="ddp")
    found = trainer.test(module, DataLoader(numbers(5)), verbose=False)[0]["mean"]
    if not trainer.is_global_zero:
        sys.exit()
    return f"{found:.4g}"


def double(package: ModuleType) -> str:
    """The epoch's mean of the values 100000000, 1 and -100000000."""
    module = one_weight(package)
    values: Any = torch.tensor([1e8, 1.0, -1e8])
    type(module).validation_step = lambda self, batch, batch_idx: self.log("mean", batch.mean())
    trainer = trainer_of(package)
    return f"{trainer.validate(module, DataLoader(values), verbose=False)[0]['mean']:.3g}"


def _resumable(package: ModuleType, seen: list[int], max_steps: int) -> tuple[Any, Any]:
    module = one_weight(package)

    def training_step(self: Any, batch: torch.Tensor, batch_idx: int) -> torch.Tensor:
        seen.extend(batch.int().tolist())
        return (self.weight * torch.rand(()) * batch).mean()

    type(module).training_step = training_step
    keeps = package.callbacks.ModelCheckpoint(dirpath=".", every_n_train_steps=1)
    return module, trainer_of(package, callbacks=keeps, enable_checkpointing=True, max_steps=max_steps)


def resumed(package: ModuleType) -> str:
    """64 samples, shuffled, in batches of 4: stopped after 7 batches, and gone on with in a new Trainer."""
    importlib.import_module(f"{package.__name__}.callbacks")
    loader = DataLoader(numbers(64), batch_size=4, shuffle=True)
    torch.manual_seed(0)
    seen: list[int] = []
    module, trainer = _resumable(package, seen, 7)
    trainer.fit(module, loader)
    file = trainer.checkpoint_callback.best_model_path
    torch.manual_seed(1)
    module, trainer = _resumable(package, seen, -1)
    trainer.fit(module, loader, ckpt_path=file)
    return f"{len(set(seen))} of 64"


def terminated(package: ModuleType) -> str:
    """SIGTERM at the seventh batch of a run that saves at the end of its epoch: the newest file."""
    importlib.import_module(f"{package.__name__}.callbacks")
    module = one_weight(package)
    whole = type(module).training_step

    def training_step(self: Any, batch: torch.Tensor, batch_idx: int) -> torch.Tensor:
        if batch_idx == 6:
            os.kill(os.getpid(), signal.SIGTERM)
        return whole(self, batch, batch_idx)

    type(module).training_step = training_step
    keeps = package.callbacks.ModelCheckpoint(dirpath="saved")
    with contextlib.suppress(SystemExit):
        trainer_of(package, callbacks=keeps, enable_checkpointing=True).fit(module, DataLoader(numbers(64)))
    files = list(Path("saved").glob("*.ckpt"))
    return f"step {torch.load(files[0], weights_only=True)['global_step']}" if files else "none"


#: what a person computes, and how
CASES: dict[str, tuple[Callable[[ModuleType], str], str, str]] = {
    "tail": (tail, "10", "(1+2)/2 + (3+4)/2 + 5/1"),
    "left_out": (left_out, "4.5", "(1+2)/2 + 3/1"),
    "frequency": (frequency, "1/32", "10 steps, halved after every 2nd: 5 times"),
    "processes": (processes, "3", "(1+2+3+4+5)/5"),
    "double": (double, "0.333", "(1e8 + 1 - 1e8)/3"),
    "resumed": (resumed, "64 of 64", "each sample once per epoch"),
    "terminated": (terminated, "step 7", "the step that was being made, as a whole"),
}


def found_by(case: str, package: str) -> str:
    """What the case prints in a process of its own."""
    with tempfile.TemporaryDirectory() as folder:
        done = subprocess.run(
            [sys.executable, "-W", "ignore", str(Path(__file__).resolve()), "--run", case, package],
            cwd=folder,
            capture_output=True,
            text=True,
            timeout=300,
        )
    results = [line.removeprefix("result: ") for line in done.stdout.splitlines() if line.startswith("result: ")]
    if not results:
        raise SystemExit(f"{case} on {package} gave nothing:\n{done.stdout}\n{done.stderr}")
    return results[-1]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", action="store_true", help="print JSON")
    parser.add_argument("--only", nargs="+", choices=CASES, default=list(CASES), help="these cases")
    parser.add_argument("--run", nargs=2, metavar=("CASE", "PACKAGE"), help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.run:
        case, package = arguments.run
        print("result:", CASES[case][0](importlib.import_module(PACKAGES[package])))
        return
    packages = [name for name, path in PACKAGES.items() if importlib.util.find_spec(path.split(".")[0])]
    found = {case: {package: found_by(case, package) for package in packages} for case in arguments.only}
    if arguments.json:
        print(json.dumps(found, indent=1))
        return
    rows = [(case, CASES[case][2], CASES[case][1], *found[case].values()) for case in arguments.only]
    print(aligned(("", "arithmetic", "by hand", *packages), rows))
    for case in arguments.only:
        print(f"\n{case}: {CASES[case][0].__doc__}", end="")
    print()


if __name__ == "__main__":
    main()
