"""A program becomes several processes: by itself, by torchrun, or by spawning."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

PREFIXES = ("MASTER_", "SLURM_", "LSB_", "JSM_", "OMPI_", "PMI_", "TORCHELASTIC_")
NAMES = (
    "RANK",
    "LOCAL_RANK",
    "NODE_RANK",
    "GROUP_RANK",
    "WORLD_SIZE",
    "LOCAL_WORLD_SIZE",
    "MASTER_ADDR",
    "MASTER_PORT",
)

#: a run of two epochs of four batches, whose processes each leave a file with what they have seen
MODULE = """
import json, os, sys, time, warnings
import torch
from torch.utils.data import DataLoader
from fulmen import Callback, LightningModule, Trainer, seed_everything
from fulmen.callbacks import ModelCheckpoint

warnings.simplefilter("ignore")

class Module(LightningModule):
    def __init__(self):
        super().__init__()
        seed_everything(1, verbose=False)
        self.layer = torch.nn.Linear(4, 1)

    def loss(self, batch):
        return (self.layer(batch) - batch.sum(1, keepdim=True)).square().mean()

    def training_step(self, batch, batch_idx):
        loss = self.loss(batch)
        self.log("loss", loss, on_epoch=True)
        return loss

    def validation_step(self, batch, batch_idx):
        self.log("val_loss", self.loss(batch))

    test_step = validation_step

    def predict_step(self, batch, batch_idx):
        return batch.sum(1)

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), 0.05)

def loader():
    numbers = torch.arange(64.0).sin().reshape(16, 4)
    return DataLoader(numbers, batch_size=2)

def trainer(**arguments):
    quiet = dict(enable_progress_bar=False, enable_model_summary=False, logger=False)
    usual = dict(accelerator="cpu", devices=2, max_epochs=2)
    return Trainer(**{**usual, **quiet, **arguments})

def weights(module):
    return module.layer.weight.flatten().tolist() + module.layer.bias.tolist()

def leave(folder, trainer, module, **more):
    state = dict(rank=trainer.global_rank, world=trainer.world_size, weights=weights(module), steps=trainer.global_step)
    path = os.path.join(folder, f"rank{trainer.global_rank}.json")
    with open(path, "w") as file:
        json.dump({**state, "pid": os.getpid(), **more}, file)
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "common.py").write_text(MODULE)
    return tmp_path


def environment(**more: str) -> dict[str, str]:
    """The variables of a shell that is part of no job."""
    own = {name: value for name, value in os.environ.items() if name not in NAMES and not name.startswith(PREFIXES)}
    return {**own, "OMP_NUM_THREADS": "1", "PYTHONUNBUFFERED": "1", **more}


def run(
    arguments: list[str], cwd: Path, timeout: float = 120, code: int = 0, **variables: str
) -> subprocess.CompletedProcess[str]:
    """Run Python; all that it has started ends with it."""
    process = subprocess.Popen(
        [sys.executable, *arguments],
        cwd=cwd,
        env=environment(**variables),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    try:
        out, err = process.communicate(timeout=timeout)
    finally:
        left = members(process.pid)
        for pid in left:
            os.kill(pid, signal.SIGKILL)
        process.kill()
        process.wait()
    assert process.returncode == code, f"exit code {process.returncode}\n{out}\n{err}"
    assert not left, f"{left} are left\n{out}\n{err}"
    return subprocess.CompletedProcess(arguments, process.returncode, out, err)


def members(session: int) -> list[int]:
    """The processes of a session that are alive."""
    found = []
    for path in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = path.read_text().rpartition(")")[2].split()
        except OSError:
            continue
        if int(fields[3]) == session and fields[0] not in "ZX":
            found.append(int(path.parent.name))
    return found


def left_by(folder: Path, world: int = 2) -> list[dict[str, Any]]:
    """What the processes left, which must all have done the same."""
    states = [json.loads((folder / f"rank{rank}.json").read_text()) for rank in range(world)]
    assert [state["rank"] for state in states] == list(range(world))
    assert {state["world"] for state in states} == {world}
    for state in states:
        assert state["weights"] == states[0]["weights"]
        assert state["steps"] == states[0]["steps"]
    return states


SCRIPT = """
from common import *
import argparse
parser = argparse.ArgumentParser()
parser.add_argument("-m", "--name")
parser.add_argument("--out")
arguments = parser.parse_args()
out = os.path.abspath(arguments.out)
os.makedirs("elsewhere", exist_ok=True)
os.chdir("elsewhere")
module = Module()
fit = trainer(default_root_dir=out)
fit.fit(module, loader())
leave(out, fit, module, name=arguments.name)
"""


@pytest.mark.parametrize("how", ["path", pytest.param("-m", marks=pytest.mark.slow)])
def test_script_is_started_again_as_it_was(how: str, folder: Path) -> None:
    place = folder / "package with space" / "inner"
    place.mkdir(parents=True)
    (place / "__init__.py").touch()
    (place / "train.py").write_text(SCRIPT)
    arguments = ["-m", "a name", "--out", "../out"]
    if how == "path":
        (folder / "out").mkdir()
        run(["-W", "ignore", "inner/train.py", *arguments], place.parent, PYTHONPATH=_path(folder))
    else:
        (folder / "out").mkdir()
        run(["-Wignore", "-um", "inner.train", *arguments], place.parent, PYTHONPATH=_path(folder))
    states = left_by(folder / "out")
    assert [state["name"] for state in states] == ["a name", "a name"]
    assert states[0]["steps"] == 8
    assert states[0]["pid"] != states[1]["pid"]
    assert not (place.parent / "elsewhere" / "elsewhere").exists()


def _path(*folders: Path) -> str:
    return os.pathsep.join([*map(str, folders), *filter(None, [os.environ.get("PYTHONPATH")])])


@pytest.mark.slow
def test_text_of_a_command_is_started_again(folder: Path) -> None:
    text = "from common import *; t, m = trainer(), Module(); t.fit(m, loader()); leave(sys.argv[1], t, m)"
    run(["-c", text, str(folder)], folder)
    assert left_by(folder)[0]["steps"] == 8


def test_process_that_ends_before_fit_is_noticed_at_once(folder: Path) -> None:
    (folder / "train.py").write_text(
        "from common import *\n"
        "if os.environ.get('LOCAL_RANK') == '1': sys.exit('rank 1 has no data')\n"
        "trainer(devices=3).fit(Module(), loader())\n"
    )
    began = time.monotonic()
    done = run(["train.py"], folder, code=1)
    assert time.monotonic() - began < 50  # and not after the 60 seconds that are for the meeting
    assert "rank 1 has no data" in done.stderr
    assert "local rank 1 has ended (exit code 1) before it came to where this process is" in done.stderr


ELASTIC = """
from common import *
attempt = int(os.environ["TORCHELASTIC_RESTART_COUNT"])

class Dies(Callback):
    def on_train_batch_end(self, trainer, module, outputs, batch, batch_idx):
        if attempt == 0 and trainer.global_step == 6 and trainer.global_rank == int(sys.argv[1]):
            os._exit(9)

module = Module()
fit = trainer(callbacks=[Dies(), ModelCheckpoint(every_n_train_steps=2, save_top_k=-1)], default_root_dir="run")
fit.fit(module, loader(), ckpt_path="auto")
leave(".", fit, module, attempt=attempt)
"""


@pytest.mark.slow
def test_process_of_torchrun_that_dies_goes_on_from_its_checkpoint(folder: Path) -> None:
    (folder / "train.py").write_text(ELASTIC)
    torchrun = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2", "--max-restarts=1"]
    done = run([*torchrun, "train.py", "1"], folder, timeout=180)
    states = left_by(folder)
    assert [state["attempt"] for state in states] == [1, 1]
    assert states[0]["steps"] == 8
    assert "going on from" in done.stderr + done.stdout
    assert states[0]["weights"] == pytest.approx(_alone(folder), rel=1e-5)


def _alone(folder: Path) -> list[float]:
    """The weights of one process that takes two batches of a step as one."""
    text = "from common import *; m = Module(); t = trainer(devices=1, accumulate_grad_batches=2); t.fit(m, loader())"
    run(["-c", f"{text}; leave('.', t, m)"], _made(folder / "alone"), PYTHONPATH=_path(folder))
    return json.loads((folder / "alone" / "rank0.json").read_text())["weights"]


def _made(folder: Path) -> Path:
    folder.mkdir(exist_ok=True)
    return folder


SPAWN = """
from common import *
from fulmen.loggers import CSVLogger
print("the program runs")

class Seen(Callback):
    def __init__(self):
        self.batches, self.lock = [], None
    def on_train_batch_end(self, trainer, module, outputs, batch, batch_idx):
        self.batches.append(batch_idx)

class OfMain(Module):  # a class of the program, which has no guard
    def __init__(self):
        super().__init__()
        self.factor = lambda value: value

module, seen, saves = OfMain(), Seen(), ModelCheckpoint(monitor="val_loss")
fit = trainer(strategy=sys.argv[1], callbacks=[seen, saves], logger=CSVLogger("."))
before = weights(module)
assert fit.fit(module, loader(), loader()) is None
first = weights(module)
assert first != before
assert (fit.global_step, fit.current_epoch, seen.batches) == (8, 2, [0, 1, 2, 3] * 2), (fit.global_step, seen.batches)
assert {"loss", "loss_epoch", "val_loss"} <= fit.callback_metrics.keys()
assert os.path.isfile(saves.best_model_path) and saves.best_model_score == fit.callback_metrics["val_loss"]
assert fit.state.finished
assert fit.log_dir == fit.logger.log_dir and fit.logger.version == 0 and os.path.isdir(fit.log_dir)
leave(".", fit, module)
[tested] = fit.test(module, loader(), verbose=False)
assert abs(tested["val_loss"] - float(saves.best_model_score)) < 1e-6
if len(sys.argv) > 2:
    [validated] = fit.validate(module, loader(), verbose=False)
    assert validated == tested
    predicted = torch.cat(fit.predict(module, loader()))
    assert torch.equal(predicted, loader().dataset.sum(1))
    fit.fit_loop.max_epochs = 3
    fit.fit(module, loader(), loader())
    assert (fit.global_step, fit.current_epoch) == (12, 3)
    assert weights(module) != first
"""


@pytest.mark.parametrize(
    "arguments",
    [
        ["ddp_spawn"],
        pytest.param(["ddp_spawn", "all"], marks=pytest.mark.slow),
        pytest.param(["ddp_fork", "all"], marks=pytest.mark.slow),
    ],
    ids=["spawn", "spawn and all verbs", "fork and all verbs"],
)
def test_spawned_run_leaves_its_results_with_the_program(arguments: list[str], folder: Path) -> None:
    (folder / "train.py").write_text(SPAWN)
    done = run(["train.py", *arguments], folder, timeout=200)
    assert done.stdout.count("the program runs") == 1
    state = json.loads((folder / "rank0.json").read_text())
    assert state["weights"] == pytest.approx(_alone(folder), rel=1e-5)


BROKEN_SPAWN = """
from common import *
import threading

class Failing(Module):
    def training_step(self, batch, batch_idx):
        if self.global_rank == 1 and batch_idx == 2:
            raise ZeroDivisionError("the third batch")
        return super().training_step(batch, batch_idx)

try:
    trainer(strategy=sys.argv[1]).fit(Failing(), loader())
except ZeroDivisionError as error:
    assert str(error) == "the third batch"
    assert "in training_step" in "".join(error.__notes__) and "local rank 1" in "".join(error.__notes__)
else:
    raise AssertionError("no error")

module = Module()
module.lock = threading.Lock()
try:
    trainer(strategy="ddp_spawn").fit(module, loader())
except Exception as error:
    assert type(error).__name__ == "MisconfigurationException"
    print(error)
module = Module()
fit = trainer(strategy=sys.argv[1], max_epochs=1)
fit.fit(module, loader())
leave(".", fit, module)
"""


@pytest.mark.parametrize("method", [pytest.param("ddp_spawn", marks=pytest.mark.slow), "ddp_fork"])
def test_error_of_a_spawned_process_is_that_of_the_caller(method: str, folder: Path) -> None:
    (folder / "train.py").write_text(BROKEN_SPAWN)
    done = run(["train.py", method], folder, timeout=200)
    assert "cannot be sent to new processes: TypeError: cannot pickle '_thread.lock' object" in done.stdout
    assert "Make what cannot be sent in `setup`" in done.stdout
    assert json.loads((folder / "rank0.json").read_text())["steps"] == 4  # the run after the two that failed


def test_forked_processes_train_after_the_program_has_used_threads(folder: Path) -> None:
    (folder / "train.py").write_text(
        "from common import *\n"
        "torch.set_num_threads(2)\n"
        "big = torch.ones(512, 512, requires_grad=True)\n"
        "(big @ big).sum().backward()\n"
        "class Big(Module):\n"
        "    def training_step(self, batch, batch_idx):\n"
        "        assert (big @ big)[0, 0] == 512\n"
        "        return super().training_step(batch, batch_idx)\n"
        "module, fit = Big(), trainer(strategy='ddp_fork', max_epochs=1)\n"
        "fit.fit(module, loader())\n"
        "leave('.', fit, module)\n"
    )
    run(["train.py"], folder, timeout=60)
    assert json.loads((folder / "rank0.json").read_text())["steps"] == 4


@pytest.mark.slow
def test_fork_that_autograd_refuses_is_an_error_with_advice(folder: Path) -> None:
    (folder / "train.py").write_text(
        "from common import *\n"
        "class Refused(Module):\n"
        "    def backward(self, loss):  # as torch does where a device's threads were running before the fork\n"
        "        raise RuntimeError('Unable to handle autograd\\'s threading in combination with fork-based '\n"
        "                           'multiprocessing. See https://github.com/pytorch/pytorch/wiki/Autograd-and-Fork')\n"
        "trainer(strategy='ddp_fork').fit(Refused(), loader())\n"
    )
    done = run(["train.py"], folder, code=1)
    assert "has gone backward on a device already" in done.stderr
    assert "Write `strategy='ddp_spawn'`" in done.stderr
    assert "in combination with fork" in done.stderr


KILLED = """
from common import *
class Slow(Module):
    def training_step(self, batch, batch_idx):
        open(f"began{self.global_rank}", "w").close()
        time.sleep(0.2)
        return super().training_step(batch, batch_idx)
trainer(strategy=sys.argv[1], max_epochs=1000).fit(Slow(), loader())
"""


@pytest.mark.parametrize(
    "strategy", ["ddp", *(pytest.param(name, marks=pytest.mark.slow) for name in ("ddp_spawn", "ddp_fork"))]
)
def test_no_process_is_left_when_the_first_is_killed(strategy: str, folder: Path) -> None:
    (folder / "train.py").write_text(KILLED)
    process = subprocess.Popen(
        [sys.executable, "train.py", strategy],
        cwd=folder,
        env=environment(),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    try:
        _wait_for(lambda: all((folder / f"began{rank}").exists() for rank in range(2)), 120)
        process.kill()
        process.wait()
        _wait_for(lambda: not members(process.pid), 15)
    finally:
        for pid in members(process.pid):
            os.kill(pid, signal.SIGKILL)
        process.kill()
        process.wait()


def _wait_for(true: Any, seconds: float) -> None:
    deadline = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < deadline, "too late"
        time.sleep(0.1)
