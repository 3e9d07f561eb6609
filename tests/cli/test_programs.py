"""Command lines of real programs, each in a process of its own."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

PROGRAM = """
import torch
from fulmen.cli import LightningCLI
from fulmen.demos.boring_classes import BoringDataModule, BoringModel


class Net(BoringModel):
    def __init__(self, width: int = 3, layer: torch.nn.Module | None = None):
        super().__init__()
        self.save_hyperparameters()
        self.width = width


class Told(LightningCLI):
    def after_fit(self):
        trainer = self.trainer
        with open(f"of rank {trainer.global_rank}", "w") as file:
            file.write(f"one of {trainer.world_size}, width {self.model.width}")


if __name__ == "__main__":
    Told(Net, BoringDataModule)
"""

QUICK = [
    "--trainer.max_steps=1",
    "--trainer.limit_val_batches=0",
    "--trainer.enable_progress_bar=false",
    "--trainer.enable_model_summary=false",
]
CSV = ["--trainer.logger=CSVLogger", "--trainer.logger.save_dir=logs"]


def run(*args: str, code: int = 0, program: str = PROGRAM) -> str:
    """What the program prints; with another exit code than 0, on stderr."""
    Path("program.py").write_text(program)
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONWARNINGS": "error::UserWarning"}
    done = subprocess.run(
        [sys.executable, "program.py", *args], capture_output=True, text=True, timeout=120, env=environment
    )
    assert done.returncode == code, done.stderr
    return done.stderr if code else done.stdout


@pytest.mark.parametrize("strategy", ["ddp", pytest.param("ddp_spawn", marks=pytest.mark.slow)])
def test_two_processes_share_the_command_line_and_one_configuration(strategy) -> None:
    args = [*QUICK, *CSV, "--model.width=5", f"--trainer.strategy={strategy}", "--trainer.devices=2"]

    run("fit", "--trainer.accelerator=cpu", *args)

    programs = range(2) if strategy == "ddp" else [0]
    assert {path.name: path.read_text() for path in Path().glob("of rank *")} == {
        f"of rank {rank}": "one of 2, width 5" for rank in programs
    }
    (saved,) = Path("logs").rglob("config*.yaml")
    assert yaml.safe_load(saved.read_text())["trainer"]["devices"] == 2


def test_checkpoint_of_a_program_is_taken_up_by_its_next_command() -> None:
    run("fit", *QUICK, *CSV, "--model.width=5", "--model.layer=torch.nn.ReLU")
    (path,) = Path("logs").rglob("*.ckpt")

    run("test", *QUICK, "--trainer.limit_test_batches=1", "--trainer.logger=false", f"--ckpt_path={path}")

    saved = yaml.safe_load(Path("config.yaml").read_text())
    assert saved["model"]["width"] == 5
    assert saved["model"]["layer"]["class_path"] == "torch.nn.ReLU"


def test_mistake_ends_with_two_and_nothing_is_made() -> None:
    error = run("fit", *CSV, "--model.widht=5", code=2)

    assert "--model.widht" in error
    assert "Traceback" not in error
    assert not Path("logs").exists()


COUNTS = """
import json, sys
import torch
import fulmen.callbacks.model_checkpoint, fulmen.demos.boring_classes as boring
from fulmen import Trainer

Trainer(fast_dev_run=True, logger=False)
before = set(sys.modules)
import fulmen.cli

assert "jsonargparse" not in sys.modules  # public names come when they are used
assert set(dir(fulmen.cli)) == set(fulmen.cli.__all__)
from fulmen.cli import LightningCLI

calls = 0


def count(frame, event, argument):
    global calls
    calls += event == "call"


class Stops(LightningCLI):
    def _run_subcommand(self, subcommand):
        sys.setprofile(None)


sys.setprofile(count)
Stops(boring.BoringModel, boring.BoringDataModule, args=["fit", "--trainer.fast_dev_run=true"])
news = set(sys.modules) - before
print(json.dumps({"calls": calls, "modules": len(news), "heavy": sorted(news & set(json.loads(sys.argv[1])))}))
"""


def test_command_line_costs_little_more_than_the_run_by_hand() -> None:
    """0.12 s where it was measured: 210 000 calls of Python, half of them for the arguments of one subcommand."""
    heavy = ["fsspec", "torch.distributed.fsdp", "tensorboard", "optuna", "ray", "lightning", "omegaconf", "pandas"]
    program = COUNTS.replace("sys.argv[1]", repr(json.dumps(heavy)))

    counted = json.loads(run(program=program).splitlines()[-1])

    assert counted["heavy"] == []
    assert counted["calls"] < 300_000
    assert counted["modules"] < 150
