"""A process that is killed, and started again with the same command, goes on in the same run of each service."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("mlflow")
pytest.importorskip("wandb")

PROGRAM = """
import os, signal, sys
import torch
from fulmen import Callback, Trainer
from fulmen.callbacks import LearningRateMonitor, ModelCheckpoint
from fulmen.demos.boring_classes import BoringModel
from fulmen.loggers import CSVLogger, MLFlowLogger, WandbLogger

class Model(BoringModel):
    def training_step(self, batch, batch_idx):
        loss = super().training_step(batch, batch_idx)["loss"]
        self.log("loss", loss)
        return loss

class Dies(Callback):
    def on_train_batch_start(self, trainer, *arguments):
        if len(sys.argv) > 1 and trainer.global_step == int(sys.argv[1]):
            os.kill(os.getpid(), signal.SIGKILL)

torch.manual_seed(1)
loggers = [WandbLogger(save_dir="."), MLFlowLogger(save_dir="store"), CSVLogger("csv", name="")]
saves = ModelCheckpoint(every_n_train_steps=3, save_top_k=-1)
quiet = {"enable_progress_bar": False, "enable_model_summary": False, "accelerator": "cpu"}
trainer = Trainer(
    logger=loggers, callbacks=[saves, LearningRateMonitor("step"), Dies()], log_every_n_steps=1, max_epochs=1,
    limit_train_batches=8, limit_val_batches=2, **quiet
)
trainer.fit(Model(), ckpt_path="auto")
client, run_id = loggers[1].experiment, loggers[1].run_id
for name in ("loss", "lr-SGD"):
    print(name, [(each.step, each.value) for each in client.get_metric_history(run_id, name)])
print(loggers[0].version)
"""


@pytest.mark.slow
def test_a_killed_run_goes_on_without_a_value_twice(tmp_path: Path) -> None:
    environment = {**os.environ, "WANDB_MODE": "offline", "WANDB_SILENT": "true", "MLFLOW_DISABLE_TELEMETRY": "true"}

    def start(folder: str, *dies_at: str) -> subprocess.CompletedProcess[str]:
        (tmp_path / folder).mkdir(exist_ok=True)
        command = [sys.executable, "-c", PROGRAM, *dies_at]
        return subprocess.run(command, cwd=tmp_path / folder, env=environment, capture_output=True, text=True)

    whole = start("whole").stdout.splitlines()
    assert start("killed", "5").returncode == -signal.SIGKILL
    assert start("killed", "7").returncode == -signal.SIGKILL
    done = start("killed")
    assert done.stdout.splitlines()[-3:-1] == whole[-3:-1], done.stderr
    assert len(list((tmp_path / "killed/wandb").glob(f"offline-run-*-{done.stdout.split()[-1]}*"))) == 3
