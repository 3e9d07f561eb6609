"""Runs that are asked to end at random instants, and are started again by the same command until they are whole.

    python tests/trainer/preempted.py FOLDER SEED CASES [OPTION ...]

Each start is a process of its own with real signals, forked from this one, which has imported everything and trained
nothing. Prints one line of JSON: what is wrong with each case that is, or nothing. Options: ``workers`` (two loader
workers, and the signal goes to the whole process group), ``ctrl-c`` (SIGINT instead of SIGTERM), ``slow-validation``.
"""

from __future__ import annotations

import json
import os
import random
import shutil
import signal
import sys
import time
import traceback
from pathlib import Path
from typing import Any

import torch
import torch._dynamo  # which the first optimizer imports, for a second
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset

from fulmen import Callback, LightningModule, Trainer, seed_everything
from fulmen.callbacks import ModelCheckpoint
from fulmen.loggers import CSVLogger
from fulmen.plugins.io import index

SAMPLES, EPOCHS = 14, 3


class Noisy(Dataset[Any]):
    def __init__(self, samples: int) -> None:
        self.samples = samples

    def __len__(self) -> int:
        return self.samples

    def __getitem__(self, place: int) -> tuple[int, Tensor]:
        return place, torch.full((4,), place / 10) + torch.rand(())


class Model(LightningModule):
    def __init__(self, trained: Path, slow: bool) -> None:
        super().__init__()
        self.net = nn.Sequential(nn.Linear(4, 8), nn.Dropout(0.5), nn.BatchNorm1d(8), nn.Linear(8, 1))
        self.trained, self.pause = trained, 0.05 if slow else 0.0005

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        places, numbers = batch
        loss = self.net(numbers).square().mean()
        self.log("loss", loss, on_step=True, on_epoch=True)
        with self.trained.open("a") as file:
            file.write(f"{self.current_epoch} {batch_idx} {places.tolist()}\n")
        return loss

    def validation_step(self, batch: Any, batch_idx: int) -> None:
        time.sleep(self.pause)
        self.log("val_loss", self.net(batch[1]).square().mean() + torch.rand(()), on_step=True, on_epoch=True)

    def configure_optimizers(self) -> Any:
        optimizer = torch.optim.Adam(self.parameters(), lr=0.01)
        plateau = torch.optim.lr_scheduler.ReduceLROnPlateau(optimizer, patience=0)
        return [optimizer], [{"scheduler": plateau, "monitor": "val_loss", "interval": "step", "frequency": 2}]


class Ready(Callback):
    """Says that the run has begun: before, nobody listens to signals."""

    def __init__(self, pipe: int) -> None:
        self.pipe = pipe

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        os.write(self.pipe, b".")


def train(folder: Path, options: list[str], pipe: int) -> None:
    """The user's program."""
    seed_everything(3, verbose=False)
    workers = 2 if "workers" in options else 0
    model = Model(folder / "trained.txt", "slow-validation" in options)
    checkpoint = ModelCheckpoint(monitor="val_loss", save_top_k=2, every_n_train_steps=2)
    trainer = Trainer(
        accelerator="cpu",
        max_epochs=EPOCHS,
        default_root_dir=folder,
        logger=CSVLogger(folder),
        callbacks=[checkpoint, Ready(pipe)],
        enable_progress_bar=False,
        enable_model_summary=False,
        accumulate_grad_batches=3,
        val_check_interval=2,
        log_every_n_steps=1,
        num_sanity_val_steps=1,
    )
    loaders = [
        DataLoader(Noisy(SAMPLES), batch_size=2, shuffle=True, num_workers=workers),
        DataLoader(Noisy(6), batch_size=2),
    ]
    trainer.fit(model, *loaders, ckpt_path="auto")
    torch.save([model.state_dict(), trainer.optimizers[0].state_dict()], folder / "final.pt.part")
    os.replace(folder / "final.pt.part", folder / "final.pt")  # the signal may come here, where nobody waits for it


def start(folder: Path, options: list[str], number: int | None = None, after: float = 0.0) -> int:
    """One process; ``number`` is sent to it ``after`` seconds, if it still runs. Returns its exit code."""
    reads, writes = os.pipe()
    child = os.fork()
    if not child:
        code = 70
        try:
            os.setsid()
            os.close(reads)
            out = os.open(folder / "output.txt", os.O_WRONLY | os.O_CREAT | os.O_APPEND)
            os.dup2(out, 1)
            os.dup2(out, 2)
            signal.signal(signal.SIGINT, signal.default_int_handler)
            train(folder, options, writes)
            code = 0
        except SystemExit as end:
            code = end.code if isinstance(end.code, int) else 71
        except KeyboardInterrupt:  # after the fit, which takes it for itself
            code = 130
        except BaseException:
            traceback.print_exc()
        finally:
            os._exit(code)
    os.close(writes)
    os.read(reads, 1)
    os.close(reads)
    if number is not None:
        time.sleep(after)
        (os.killpg if "workers" in options else os.kill)(child, number)  # a zombie can be sent a signal
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def lines(folder: Path) -> list[str]:
    path = folder / "trained.txt"
    return path.read_text().splitlines() if path.exists() else []


def outcome(folder: Path) -> dict[str, Any]:
    """All that a run leaves behind."""
    checkpoints = folder / "lightning_logs" / "version_0" / "checkpoints"
    weights, optimizer = torch.load(folder / "final.pt")
    return {
        "trained": lines(folder),
        "rows": (folder / "lightning_logs" / "version_0" / "metrics.csv").read_text(),
        "files": sorted(path.name for path in checkpoints.iterdir()),
        "weights": {name: value.tolist() for name, value in weights.items()},
        "optimizer": str(optimizer),
        "runs": sorted(path.name for path in (folder / "lightning_logs").iterdir()),
    }


def what_is_wrong_after_a_signal(folder: Path, code: int, expected: int, reason: str, whole: int) -> list[str]:
    trained = len(lines(folder))
    too_late = code == (130 if reason == "SIGINT" else -signal.SIGTERM)  # what a signal does where nobody waits for it
    if (folder / "final.pt").exists() or (too_late and trained == whole):
        return []
    if code != expected:
        return [f"exit code {code} after {trained} batches"]
    checkpoints = folder / "lightning_logs" / "version_0" / "checkpoints"
    if not trained:
        return (
            ["a checkpoint of a run that has not begun"] if checkpoints.exists() and any(checkpoints.iterdir()) else []
        )
    known = index.read(str(checkpoints))
    entries = known.entries
    wrong = [f"{entry.path}: {known.damage(entry)}" for entry in entries if known.damage(entry) is not None]
    names = {entry.path for entry in entries} | {index.FILE_NAME}
    wrong += [f"{path.name} is not in the index" for path in checkpoints.iterdir() if path.name not in names]
    here = [entry for entry in entries if entry.batch == trained]
    if not here:
        wrong.append(f"{trained} batches were trained, and the newest checkpoint is of {entries[-1:]}")
    if [entry.reason for entry in entries].count(reason) > 1:
        wrong.append(f"several checkpoints for one signal: {entries}")
    return wrong


def main(folder: Path, seed: int, cases: int, options: list[str]) -> dict[str, Any]:
    torch.set_num_threads(1)
    number = signal.SIGINT if "ctrl-c" in options else signal.SIGTERM
    expected = 1 if number is signal.SIGINT else 143
    reference = folder / "reference"
    reference.mkdir()
    assert start(reference, options) == 0, (reference / "output.txt").read_text()
    began = time.monotonic()  # the second time, with warm caches
    shutil.rmtree(reference)
    reference.mkdir()
    start(reference, options)
    length = time.monotonic() - began
    whole = outcome(reference)
    numbers = random.Random(seed)
    failed: dict[str, Any] = {}
    ended = 0
    for case in range(cases):
        place = folder / str(case)
        place.mkdir()
        moments, codes, wrong = [], [], []
        for _ in range(4):  # signals, and then to the end
            moments.append(numbers.uniform(0, length))
            codes.append(start(place, options, number, moments[-1]))
            if (place / "final.pt").exists():
                break
            wrong += what_is_wrong_after_a_signal(place, codes[-1], expected, number.name, len(whole["trained"]))
            ended += codes[-1] == expected
            if wrong:
                break
        if not wrong and not (place / "final.pt").exists():
            codes.append(start(place, options))
        if not wrong:
            found = outcome(place) if (place / "final.pt").exists() else {}
            wrong = [
                f"{what}: {found.get(what)!r} instead of {whole[what]!r}"
                for what in whole
                if found.get(what) != whole[what]
            ]
        if wrong:
            output = (place / "output.txt").read_text()[-3000:]
            failed[str(case)] = {"codes": codes, "moments": moments, "wrong": wrong, "output": output}
        else:
            shutil.rmtree(place)
    return {"seed": seed, "length": length, "ended": ended, "failed": failed}


if __name__ == "__main__":
    print(json.dumps(main(Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3]), sys.argv[4:])))
