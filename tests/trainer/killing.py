"""A run that is killed at its n-th touch of a file, started again, and compared with the run that was never killed.

``python -m tests.trainer.killing POLICY FIRST EVERY FOLDER`` kills at the touches FIRST, FIRST + EVERY, ... and prints
what differs; nothing if all is equal. ``python -m tests.trainer.killing POLICY FOLDER`` is one start of the run.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

from fulmen import LightningModule, Trainer, seed_everything
from fulmen.callbacks.early_stopping import EarlyStopping
from fulmen.callbacks.model_checkpoint import ModelCheckpoint
from fulmen.loggers.csv_logs import CSVLogger
from fulmen.plugins.io import index

POLICIES: dict[str, Callable[[], list[Any]]] = {
    "default": list,
    "monitored": lambda: [ModelCheckpoint(monitor="v")],
    "linked": lambda: [ModelCheckpoint(save_last="link", every_n_train_steps=2)],
    "best, last and steps": lambda: [
        ModelCheckpoint(monitor="v", save_top_k=2, save_last=True),
        ModelCheckpoint(every_n_train_steps=2, filename="s-{step}"),
    ],
    "all": lambda: [
        ModelCheckpoint(every_n_train_steps=2, save_top_k=-1),
        ModelCheckpoint(monitor="v", save_top_k=-1, filename="b-{epoch}"),
    ],
    "stopped early": lambda: [
        ModelCheckpoint(monitor="v", save_last=True),
        EarlyStopping("v", patience=1, min_delta=10.0),
    ],
}
_TOUCHES = ("os.rename", "os.remove", "os.mkdir", "os.truncate", "os.symlink")


class Model(LightningModule):
    """Small, with dropout, and a metric to monitor."""

    def __init__(self, lr: float = 0.1) -> None:
        super().__init__()
        self.save_hyperparameters()
        self.net = nn.Sequential(nn.Linear(4, 8), nn.Dropout(0.3), nn.Linear(8, 1))

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        loss = self.net(batch[0]).pow(2).mean()
        self.log("loss", loss)
        return loss

    def validation_step(self, batch: Any, batch_idx: int) -> None:
        self.log("v", self.net(batch[0]).pow(2).mean())

    def configure_optimizers(self) -> Any:
        return torch.optim.Adam(self.parameters(), lr=self.hparams["lr"])


def trainer_of(folder: str, callbacks: list[Any], **arguments: Any) -> Trainer:
    options = {"max_epochs": 3, "logger": CSVLogger(folder), "log_every_n_steps": 1, "accumulate_grad_batches": 2}
    quiet = {"enable_progress_bar": False, "enable_model_summary": False, "accelerator": "cpu"}
    return Trainer(default_root_dir=folder, callbacks=callbacks, **{**options, **quiet, **arguments})


def fit(trainer: Trainer, model: Model | None = None) -> Model:
    """One start of the run, by the same program each time."""
    seed_everything(1)
    data = TensorDataset(torch.randn(12, 4))
    model = Model() if model is None else model
    trainer.fit(model, DataLoader(data, 2, shuffle=True), DataLoader(data, 5), ckpt_path="auto")
    return model


def tree(folder: Path) -> dict[str, Any]:
    """All that a run has left, byte for byte, apart from the times at which checkpoints were written."""
    found: dict[str, Any] = {}
    for path in sorted(folder.rglob("*")):
        if path.is_symlink():
            content: Any = os.readlink(path)
        elif path.is_dir():
            continue
        elif path.name == index.FILE_NAME:
            content = json.loads(path.read_text())
            for entry in content["checkpoints"]:
                del entry["written"]
        else:
            content = path.read_bytes()
        found[str(path.relative_to(folder))] = content
    return found


def attributes(callback: ModelCheckpoint) -> list[str]:
    """What a ModelCheckpoint tells its user."""
    names = ("best_model_path", "best_model_score", "best_k_models", "kth_value", "current_score", "last_model_path")
    return [f"{name}={getattr(callback, name)}" for name in names]


def _start(policy: str, folder: Path, kill_at: int | None = None) -> tuple[int, list[Any]]:
    """One start in a process of its own. Returns its exit code and what its callbacks say at the end."""
    report = folder.with_suffix(".report")
    report.unlink(missing_ok=True)
    child = os.fork()
    if child == 0:
        log = os.open(folder.with_suffix(".log"), os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
        os.dup2(log, 1)
        os.dup2(log, 2)
        if kill_at is not None:
            _kill_at_touch(kill_at, str(folder))
        trainer = trainer_of(str(folder), POLICIES[policy]())
        fit(trainer)
        report.write_text(json.dumps([attributes(callback) for callback in trainer.checkpoint_callbacks]))
        os._exit(0)
    code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    return code, json.loads(report.read_text()) if report.exists() else []


def _kill_at_touch(number: int, folder: str) -> None:
    touched = 0

    def hook(event: str, arguments: Any) -> None:
        nonlocal touched
        opens = event == "open" and isinstance(arguments[1], str) and arguments[1][0] in "wax"
        if event in _TOUCHES or (opens and str(arguments[0]).startswith(folder)):
            touched += 1
            if touched == number:
                os.kill(os.getpid(), signal.SIGKILL)

    sys.addaudithook(hook)


def _damage(folder: Path) -> list[str]:
    found = []
    for path in folder.rglob(index.FILE_NAME):
        known = index.read(str(path.parent))
        damage = {entry.path: known.damage(entry) for entry in known.entries}
        found += [f"the index names {name}, but {what}" for name, what in damage.items() if what]
    return found


def differences(policy: str, first: int, every: int, folder: Path) -> list[str]:
    """Kill again and again until a run comes to its end; what was not as in the run that was never killed."""
    run = folder / "run"
    code, whole_callbacks = _start(policy, run)
    assert code == 0, run.with_suffix(".log").read_text()
    whole, found = tree(run), []
    kill_at = first
    while True:
        shutil.rmtree(run)
        code, _ = _start(policy, run, kill_at)
        if code == 0:
            return found if kill_at > first else ["the run was never killed"]
        problems = _damage(run)
        code, callbacks = _start(policy, run)
        said = run.with_suffix(".log").read_text()
        again = tree(run) if code == 0 else {}
        problems += [f"it ended with {code}"] if code else []
        problems += ["it warned"] if "Warning" in said else []
        problems += [name for name in sorted(whole.keys() | again.keys()) if whole.get(name) != again.get(name)]
        if callbacks != whole_callbacks and "nothing to train" not in said:
            problems.append(f"callbacks: {callbacks} instead of {whole_callbacks}")
        found += [f"killed at {kill_at}: {problem}\n{said[-800:]}" for problem in problems]
        kill_at += every


if __name__ == "__main__":
    torch.set_num_threads(1)
    if len(sys.argv) == 3:
        fit(trainer_of(sys.argv[2], POLICIES[sys.argv[1]]()))
    else:
        print("\n".join(differences(sys.argv[1], int(sys.argv[2]), int(sys.argv[3]), Path(sys.argv[4]))), end="")
