"""Several processes from a notebook: a real Jupyter kernel runs the cells."""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from queue import Empty
from typing import Any

import pytest

DEFINE = """
import warnings
warnings.simplefilter("ignore")
import torch
from torch.utils.data import DataLoader
from fulmen import Callback, LightningModule, Trainer

class Module(LightningModule):
    def __init__(self):
        super().__init__()
        self.layer = torch.nn.Linear(4, 1)

    def training_step(self, batch, batch_idx):
        if batch_idx == 3:
            print(f"process {self.global_rank} of {self.trainer.world_size} trains", flush=True)
        return self.layer(batch).square().mean()

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), 0.1)

module, data = Module(), DataLoader(torch.ones(16, 4), batch_size=2)
module.training_step(next(iter(data)), 0).backward()  # autograd has been used, on threads of this process
before = float(module.layer.weight.detach().sum())
"""
FIT = """
trainer = Trainer(accelerator="cpu", devices=2, max_epochs=2, logger=False, enable_checkpointing=False,
                  enable_progress_bar=False)
trainer.fit(module, data)
print("steps", trainer.global_step, float(module.layer.weight.detach().sum()) != before)
"""
WRONG = """
class Wrong(Module):
    def training_step(self, batch, batch_idx):
        raise ValueError("wrong on purpose")
trainer.fit(Wrong(), data)
"""
INTERRUPTED = """
import os, signal, threading, time
class Slow(Module):
    def training_step(self, batch, batch_idx):
        time.sleep(0.05)
        return super().training_step(batch, batch_idx)
def press_ctrl_c():
    while not os.path.exists("begun"):
        time.sleep(0.05)
    {press}
class Begun(Callback):
    def on_train_batch_end(self, trainer, *rest):
        open("begun", "w").close()
threading.Thread(target=press_ctrl_c).start()
trainer = Trainer(accelerator="cpu", devices=2, strategy="{strategy}", max_epochs=1000, logger=False, callbacks=Begun(),
                  enable_progress_bar=False, default_root_dir="{strategy}")
trainer.fit(Slow(), data)
"""
SCRIPT_ONLY = "Trainer(accelerator='cpu', devices=2, strategy='ddp', max_epochs=1, logger=False).fit(module, data)"


@pytest.fixture
def kernel(tmp_path: Path) -> Iterator[Any]:
    for name in ("ipykernel", "zmq"):
        pytest.importorskip(name)
    client = pytest.importorskip("jupyter_client")
    manager = client.KernelManager(
        kernel_cmd=[sys.executable, "-m", "ipykernel_launcher", "-f", "{connection_file}"],
        connection_file=str(tmp_path / "kernel.json"),
    )
    hidden = {"LOCAL_RANK", "PYTEST_CURRENT_TEST", "PYTEST_VERSION"}  # the kernel is somebody's, not part of a test
    variables = {name: value for name, value in os.environ.items() if name not in hidden}
    manager.start_kernel(cwd=str(tmp_path), env={**variables, "OMP_NUM_THREADS": "1"})
    channels = manager.client()
    channels.start_channels()
    try:
        channels.wait_for_ready(timeout=120)
        yield channels
    finally:
        channels.stop_channels()
        manager.shutdown_kernel(now=True)


def execute(kernel: Any, code: str, timeout: float = 120) -> tuple[str, str]:
    """What a cell writes, and the error that it ends with."""
    request, written, error = kernel.execute(code), "", ""
    deadline = time.monotonic() + timeout
    while True:
        try:
            message = kernel.get_iopub_msg(timeout=max(0.1, deadline - time.monotonic()))
        except Empty:
            raise AssertionError(f"the cell is not through after {timeout:g} s: {written}") from None
        if message["parent_header"].get("msg_id") != request:
            continue
        kind, content = message["msg_type"], message["content"]
        if kind == "stream":
            written += content["text"]
        elif kind == "error":
            error = json.dumps([content["ename"], content["evalue"], *content["traceback"]])
        elif kind == "status" and content["execution_state"] == "idle":
            return written, error


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")  # of the libraries of Jupyter
def test_notebook_trains_on_two_processes(kernel: Any) -> None:
    assert execute(kernel, DEFINE) == ("", "")
    written, error = execute(kernel, FIT)
    assert not error
    assert "`strategy='auto'` is 'ddp_notebook'" in written
    assert "process 0 of 2 trains" in written
    assert "process 1 of 2 trains" in written
    assert "steps 8 True" in written

    written, error = execute(kernel, WRONG)
    assert "ValueError" in error
    assert "wrong on purpose" in error
    assert "in training_step" in error

    written, error = execute(kernel, SCRIPT_ONLY)
    assert "there is no program here that the others could run" in error
    assert "ddp_notebook" in error


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")  # of the libraries of Jupyter
@pytest.mark.parametrize(
    ("strategy", "press"),
    [
        ("ddp_notebook", "os.killpg(os.getpgid(0), signal.SIGINT)"),  # as Jupyter does it
        ("ddp_notebook", "os.kill(os.getpid(), signal.SIGINT)"),
        ("ddp_fork", "os.killpg(os.getpgid(0), signal.SIGINT)"),
    ],
)
def test_interrupt_of_a_notebook_saves_the_run_of_two_processes(
    kernel: Any, tmp_path: Path, strategy: str, press: str
) -> None:
    define = DEFINE.replace("module.training_step(next", "# module.training_step(next")  # which cannot be forked
    assert execute(kernel, define) == ("", "")
    written, error = execute(kernel, INTERRUPTED.format(strategy=strategy, press=press))
    assert "SystemExit" in error, written
    assert "Ctrl-C: ended in epoch" in written
    (saved,) = (tmp_path / strategy / "checkpoints").glob("last.ckpt")
    assert "Go on by ckpt_path='auto'" in written
    assert saved.stat().st_size
