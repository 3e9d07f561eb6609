"""A failure of one process ends all of them within seconds, and is what is seen last."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import torch
from tests.distributed.processes import Failed, run
from torch.utils.data import DataLoader, Dataset

from fulmen import Callback, LightningModule, Trainer
from fulmen.callbacks import ModelCheckpoint
from fulmen.loggers import CSVLogger
from fulmen.plugins.io import AsyncCheckpointIO, TorchCheckpointIO

BOUND = 10.0  # seconds from the failure to the end of the last process


def fail(plan: dict[str, Any], place: str, batch: int = 0) -> None:
    """Fail if this is the process, the place and the batch of ``plan``."""
    if plan["place"] != place or plan["rank"] != int(os.environ["LOCAL_RANK"]) or plan["batch"] > batch:
        return
    Path("failed_at").write_text(str(time.time()))
    if plan["how"] == "kill":
        os.kill(os.getpid(), signal.SIGKILL)
    if plan["how"] == "exit":
        sys.exit(3)
    raise ValueError("boom")


class Samples(Dataset):
    def __init__(self, plan: dict[str, Any]) -> None:
        self.plan = plan

    def __len__(self) -> int:
        return 24

    def __getitem__(self, index: int) -> torch.Tensor:
        fail(self.plan, "worker", index)
        return torch.ones(3)


class Module(LightningModule):
    def __init__(self, plan: dict[str, Any]) -> None:
        super().__init__()
        self.plan = plan
        self.layer = torch.nn.Linear(3, 1)

    def training_step(self, batch: torch.Tensor, batch_idx: int) -> torch.Tensor:
        fail(self.plan, "training_step", batch_idx)
        if self.plan["place"] == "other is busy":
            if self.global_rank != self.plan["rank"]:
                time.sleep(60)
            fail(self.plan, "other is busy", batch_idx)
        loss = self.layer(batch).mean()
        self.log("loss", loss)
        return loss

    def validation_step(self, batch: torch.Tensor, batch_idx: int) -> None:
        fail(self.plan, "validation_step", batch_idx)

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        fail(self.plan, "on_save_checkpoint")

    def configure_optimizers(self) -> Any:
        fail(self.plan, "configure_optimizers")
        return torch.optim.SGD(self.parameters(), lr=0.1)


class Witness(Callback):
    def __init__(self, plan: dict[str, Any]) -> None:
        self.plan = plan

    def on_train_batch_end(self, trainer: Trainer, pl_module: Any, outputs: Any, batch: Any, batch_idx: int) -> None:
        fail(self.plan, "callback", batch_idx)

    def on_exception(self, trainer: Trainer, pl_module: Any, exception: BaseException) -> None:
        Path(f"exception_{trainer.global_rank}").write_text(str(exception))


class WitnessLogger(CSVLogger):
    def finalize(self, status: str) -> None:
        super().finalize(status)
        Path(f"finalized_{os.environ['LOCAL_RANK']}").write_text(status)


class FailingWriter(TorchCheckpointIO):
    def __init__(self, plan: dict[str, Any]) -> None:
        super().__init__()
        self.plan = plan

    def save_checkpoint(self, checkpoint: Any, path: Any, storage_options: Any = None) -> None:
        fail(self.plan, "writer")
        super().save_checkpoint(checkpoint, path, storage_options)


def train(plan: dict[str, Any], world: int = 2) -> None:
    writer: Any = FailingWriter(plan)
    if plan.get("asynchronous"):
        writer = AsyncCheckpointIO(writer)
    trainer = Trainer(
        accelerator="cpu",
        devices=world,
        max_epochs=2,
        val_check_interval=3,
        num_sanity_val_steps=0,
        callbacks=[Witness(plan), ModelCheckpoint(dirpath="checkpoints", every_n_train_steps=3)],
        logger=WitnessLogger("logs"),
        plugins=[writer],
        enable_progress_bar=False,
        enable_model_summary=False,
    )
    workers = {"num_workers": 1, "multiprocessing_context": "fork"} if plan["place"] == "worker" else {}
    trainer.fit(Module(plan), DataLoader(Samples(plan), 2, **workers), DataLoader(Samples(plan), 2))


def ended_job(
    folder: Path, place: str, rank: int, batch: int = 0, how: str = "raise", world: int = 2, **more: Any
) -> Any:
    """What is left of a job whose process ``rank`` fails, and how long it took to end."""
    plan = {"place": place, "rank": rank, "batch": batch, "how": how, **more}
    with pytest.raises(Failed) as caught:
        run(world, train, plan, world, cwd=folder, timeout=50)
    if not (folder / "failed_at").exists():
        raise caught.value
    seconds = time.time() - float((folder / "failed_at").read_text())
    assert seconds < BOUND
    assert all(caught.value.codes), "a process ended as if all was well"
    return caught.value


def check_failure(folder: Path, failed: Failed, rank: int, what: str = "failed: ValueError") -> None:
    for other, output in enumerate(failed.outputs):
        if other == rank:
            continue
        assert f"rank {other} ends because rank {rank} {what}" in output
        assert "Traceback" not in output
        assert (folder / f"finalized_{other}").read_text() == "failed"
        assert f"rank {rank} {what}" in (folder / f"exception_{other}").read_text()


@pytest.mark.parametrize(
    ("place", "rank", "batch"),
    [
        ("training_step", 1, 0),
        ("callback", 0, 4),
        ("worker", 1, 3),
        ("validation_step", 1, 0),
        ("writer", 0, 0),
        pytest.param("training_step", 0, 0, marks=pytest.mark.slow),
        pytest.param("training_step", 1, 4, marks=pytest.mark.slow),
        pytest.param("callback", 1, 0, marks=pytest.mark.slow),
        pytest.param("worker", 0, 3, marks=pytest.mark.slow),
        pytest.param("validation_step", 0, 1, marks=pytest.mark.slow),
        pytest.param("on_save_checkpoint", 0, 0, marks=pytest.mark.slow),
        pytest.param("configure_optimizers", 1, 0, marks=pytest.mark.slow),
        pytest.param("configure_optimizers", 0, 0, marks=pytest.mark.slow),
    ],
)
def test_an_exception_in_one_process_ends_all_in_seconds(tmp_path: Path, place: str, rank: int, batch: int) -> None:
    failed = ended_job(tmp_path, place, rank, batch)
    assert "ValueError: " in failed.outputs[rank]
    assert failed.outputs[rank].rstrip().endswith("boom")
    assert (tmp_path / f"finalized_{rank}").read_text() == "failed"
    check_failure(tmp_path, failed, rank)


@pytest.mark.slow
def test_an_exception_in_the_background_writer_ends_all(tmp_path: Path) -> None:
    failed = ended_job(tmp_path, "writer", 0, asynchronous=True)
    assert "boom" in failed.outputs[0]
    check_failure(tmp_path, failed, 0)


@pytest.mark.parametrize(("rank", "world"), [(1, 3), pytest.param(0, 2, marks=pytest.mark.slow)])
def test_a_process_that_is_killed_ends_the_others_which_name_it(tmp_path: Path, rank: int, world: int) -> None:
    failed = ended_job(tmp_path, "training_step", rank, 3, how="kill", world=world)
    assert failed.codes[rank] == -signal.SIGKILL
    check_failure(tmp_path, failed, rank, "is gone")


@pytest.mark.slow
def test_the_process_that_holds_the_store_is_killed_and_the_others_name_it(tmp_path: Path) -> None:
    check_failure(tmp_path, ended_job(tmp_path, "training_step", 0, 3, how="kill", world=3), 0, "is gone")


@pytest.mark.slow
def test_a_process_that_exits_in_the_middle_ends_the_others_with_its_code(tmp_path: Path) -> None:
    failed = ended_job(tmp_path, "training_step", 1, 3, how="exit")
    assert failed.codes == [3, 3]


def test_a_process_that_is_busy_elsewhere_is_interrupted(tmp_path: Path) -> None:
    check_failure(tmp_path, ended_job(tmp_path, "other is busy", 0), 0)


def processes_of_session(session: int) -> list[str]:
    found = []
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            text = stat.read_text()
        except OSError:
            continue
        state, _, _, of = text.rpartition(")")[2].split()[:4]
        if int(of) == session and state != "Z":
            found.append(text)
    return found


@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="looks for orphans in /proc")
@pytest.mark.parametrize("rank", [1, pytest.param(0, marks=pytest.mark.slow)])
def test_the_first_traceback_is_the_last_on_the_screen_and_no_process_is_left(tmp_path: Path, rank: int) -> None:
    plan = {"place": "training_step", "rank": rank, "batch": 2, "how": "raise"}
    script = tmp_path / "script.py"
    script.write_text(f"from tests.distributed.test_failure_of_one_process import train\ntrain({plan!r})\n")
    root = Path(__file__).parents[2]
    environment = {name: value for name, value in os.environ.items() if name not in ("LOCAL_RANK", "MASTER_PORT")}
    environment["PYTHONPATH"] = f"{root / 'src'}{os.pathsep}{root}"
    process = subprocess.Popen(
        [sys.executable, str(script)],
        cwd=tmp_path,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )
    try:
        output, _ = process.communicate(timeout=100)
        orphans = processes_of_session(process.pid)
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
    # on a busy machine, much of the time goes to the interpreters, which unload torch
    assert time.time() - float((tmp_path / "failed_at").read_text()) < 3 * BOUND
    assert process.returncode != 0
    assert output.rstrip().endswith("ValueError: boom")
    assert output.count("Traceback (most recent call last)") == 1
    assert output.index(f"rank {1 - rank} ends because rank {rank} failed") < output.index("Traceback")
    assert not orphans
