"""WandbLogger, with real runs of wandb that stay on the disk."""

from __future__ import annotations

import copy
import json
import pickle
import struct
import subprocess
import sys
import time
from argparse import Namespace
from enum import Enum
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

from fulmen import Callback, Trainer
from fulmen.callbacks import ModelCheckpoint
from fulmen.demos.boring_classes import BoringModel
from fulmen.loggers import CSVLogger, WandbLogger
from fulmen.utilities.exceptions import MisconfigurationException

wandb = pytest.importorskip("wandb")
from wandb.proto.wandb_internal_pb2 import Record  # noqa: E402

BLOCK, HEAD = 32768, 7


@pytest.fixture(autouse=True)
def _offline(monkeypatch, tmp_path):
    monkeypatch.setenv("WANDB_MODE", "offline")
    monkeypatch.setenv("WANDB_SILENT", "true")
    monkeypatch.setenv("WANDB_ERROR_REPORTING", "false")
    for place in ("CACHE", "CONFIG", "DATA", "ARTIFACT"):
        monkeypatch.setenv(f"WANDB_{place}_DIR", str(tmp_path / "of_wandb"))
    for name in ("WANDB_PROJECT", "WANDB_RUN_ID"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.chdir(tmp_path)
    yield
    wandb.finish()


def records(folder: Path) -> list[Any]:
    """What wandb has written, of all runs in the order in which they began."""
    found = []
    for file in sorted(folder.glob("wandb/offline-run-*/run-*.wandb"), key=lambda path: path.stat().st_ctime_ns):
        of_run: list[Any] = []
        until = time.monotonic() + 20
        while not any(record.HasField("exit") for record in of_run):  # another process writes
            assert time.monotonic() < until, f"{file} has no end"
            of_run = read(file)
        found += of_run
    return found


def read(file: Path) -> list[Any]:
    """LevelDB's log format."""
    found, data, place, parts = [], file.read_bytes(), HEAD, b""
    while place + HEAD <= len(data):
        if BLOCK - place % BLOCK < HEAD:
            place += BLOCK - place % BLOCK
            continue
        _, length, kind = struct.unpack("<IHB", data[place : place + HEAD])
        if not kind or place + HEAD + length > len(data):
            break
        parts += data[place + HEAD : place + HEAD + length]
        place += HEAD + length
        if kind in (1, 4):  # a whole one, or the last part
            found.append(Record.FromString(parts))
            parts = b""
    return found


def rows(folder: Path) -> list[dict[str, Any]]:
    """The rows of the history, without wandb's own entries but its step."""
    found = []
    for record in records(folder):
        if record.WhichOneof("record_type") == "history":
            row: dict[str, Any] = {}
            for item in record.history.item:
                *outer, key = item.nested_key or [item.key]
                inside = row
                for name in outer:
                    inside = inside.setdefault(name, {})
                inside[key] = json.loads(item.value_json)
            found.append({key: value for key, value in row.items() if key == "_step" or key[0] != "_"})
    return found


def metrics(folder: Path) -> list[dict[str, Any]]:
    return [{key: value for key, value in row.items() if key != "_step"} for row in rows(folder)]


def config(folder: Path) -> dict[str, Any]:
    found = {}
    for record in records(folder):
        part = record.config if record.WhichOneof("record_type") == "config" else record.run.config
        for item in part.update:
            found[item.key or "/".join(item.nested_key)] = json.loads(item.value_json)
    return found


def artifacts(folder: Path) -> list[Any]:
    return [
        record.request.log_artifact.artifact if record.HasField("request") else record.artifact
        for record in records(folder)
        if record.HasField("artifact") or (record.HasField("request") and record.request.HasField("log_artifact"))
    ]


class Model(BoringModel):
    def training_step(self, batch, batch_idx):
        loss = super().training_step(batch, batch_idx)["loss"]
        self.log("loss", loss)
        return loss


def trainer(logger: Any, folder: Path, **options: Any) -> Trainer:
    quiet = {"enable_progress_bar": False, "enable_model_summary": False, "enable_checkpointing": False}
    limits = {"max_epochs": 1, "limit_train_batches": 4, "limit_val_batches": 0, "log_every_n_steps": 1}
    return Trainer(accelerator="cpu", default_root_dir=folder, logger=logger, **{**quiet, **limits, **options})


def test_a_run_sends_its_rows_with_the_step_beside_them(tmp_path):
    logger = WandbLogger(save_dir=tmp_path, project="here", id="one")
    csv = CSVLogger(tmp_path / "csv", name="", version="run")
    trainer([logger, csv], tmp_path).fit(Model())
    wandb.finish()

    logged = metrics(tmp_path)
    assert [row["trainer/global_step"] for row in logged] == [0, 1, 2, 3]
    lines = (tmp_path / "csv/run/metrics.csv").read_text().splitlines()
    assert [row["loss"] for row in logged] == [float(line.split(",")[1]) for line in lines[1:]]
    assert (logger.name, logger.version, logger.save_dir, logger.log_dir) == ("here", "one", str(tmp_path), None)


def test_every_chart_has_the_step_as_its_axis(tmp_path):
    _ = WandbLogger(save_dir=tmp_path).experiment
    wandb.finish()
    defined = [record.metric for record in records(tmp_path) if record.WhichOneof("record_type") == "metric"]
    assert {metric.name or metric.glob_name: metric.step_metric for metric in defined} == {
        "trainer/global_step": "",
        "*": "trainer/global_step",
    }


def test_prefix_stands_before_names_but_not_before_the_step(tmp_path):
    logger = WandbLogger(save_dir=tmp_path, prefix="own")
    logger.log_metrics({"loss": 0.5}, step=3)
    wandb.finish()
    assert metrics(tmp_path) == [{"own-loss": 0.5, "trainer/global_step": 3}]


class Kind(Enum):
    SMALL = 1


def test_hyperparameters_of_any_kind_are_in_the_config_and_may_change(tmp_path):
    logger = WandbLogger(save_dir=tmp_path)
    logger.log_hyperparams({"lr": 0.1, "kind": Kind.SMALL, "act": torch.relu, "inner": {"sizes": (1, 2)}})
    logger.log_hyperparams(Namespace(lr=0.2))
    wandb.finish()
    found = config(tmp_path)
    assert found["lr"] == 0.2
    assert found["kind"] == "SMALL"
    assert found["act"].endswith("relu")
    assert found["inner"] == {"sizes": [1, 2]}


def test_project_comes_from_the_environment_when_it_is_not_given(monkeypatch):
    monkeypatch.setenv("WANDB_PROJECT", "of-the-shell")
    assert WandbLogger().name == "of-the-shell"
    assert WandbLogger(project="own").name == "own"
    monkeypatch.delenv("WANDB_PROJECT")
    assert WandbLogger().name == "lightning_logs"


def test_nothing_is_written_before_the_run_is_asked_for(tmp_path):
    logger = WandbLogger(save_dir=tmp_path / "later", version="v")
    assert logger.version == "v"
    assert wandb.run is None
    assert not (tmp_path / "later").exists()


def test_a_run_that_is_open_is_used_without_a_word(tmp_path):
    run = wandb.init(dir=tmp_path, project="theirs", id="theirs")
    logger = WandbLogger()
    assert logger.experiment is run
    assert logger.version == "theirs"


def test_a_name_that_has_no_effect_warns(tmp_path):
    wandb.init(dir=tmp_path, id="theirs")
    with pytest.warns(UserWarning, match=r"goes on in the run theirs .* name='mine' has no effect"):
        _ = WandbLogger(name="mine").experiment


def test_images_texts_tables_and_films_are_rows_with_the_step(tmp_path):
    logger = WandbLogger(save_dir=tmp_path)
    picture = np.zeros((4, 4, 3), dtype=np.uint8)
    logger.log_image("picture", [picture, picture], step=1, caption=["a", "b"])
    logger.log_text("text", columns=["in", "out"], data=[["x", "y"]], step=2)
    logger.log_table("table", columns=["n"], data=[[1]], step=3)
    (tmp_path / "film.mp4").write_bytes(b"x")
    logger.log_video("film", [str(tmp_path / "film.mp4")], step=4, format=["mp4"])
    wandb.finish()
    logged = metrics(tmp_path)
    assert [row["trainer/global_step"] for row in logged] == [1, 2, 3, 4]
    assert logged[0]["picture"]["count"] == 2
    assert logged[0]["picture"]["captions"] == ["a", "b"]
    assert (logged[1]["text"]["_type"], logged[2]["table"]["nrows"]) == ("table-file", 1)
    assert logged[3]["film"]["count"] == 1


def test_sounds_are_a_row_with_the_step(tmp_path):
    pytest.importorskip("soundfile")
    logger = WandbLogger(save_dir=tmp_path)
    logger.log_audio("sound", [np.zeros(8)], step=5, sample_rate=[8], caption=["hum"])
    wandb.finish()
    (row,) = metrics(tmp_path)
    assert row["trainer/global_step"] == 5
    assert row["sound"]["captions"] == ["hum"]


def test_media_that_do_not_fit_are_refused_by_name(tmp_path):
    logger = WandbLogger(save_dir=tmp_path)
    with pytest.raises(TypeError, match="`images` of 'picture' must be a list, not ndarray"):
        logger.log_image("picture", np.zeros((2, 2)))  # type: ignore[arg-type]
    with pytest.raises(ValueError, match=r"`caption=\['a'\]` of 'picture' .* each of the 2 images"):
        logger.log_image("picture", [np.zeros((2, 2))] * 2, caption=["a"])


# -- checkpoints -------------------------------------------------------------------------------------------------------


def keep(**options: Any) -> ModelCheckpoint:
    return ModelCheckpoint(every_n_train_steps=2, monitor="loss", **options)


@pytest.mark.parametrize(("log_model", "keeps", "count"), [(False, 1, 0), (True, 1, 1), ("all", 2, 2), (True, -1, 2)])
def test_checkpoints_are_uploaded_as_log_model_says(tmp_path, log_model, keeps, count):
    logger = WandbLogger(save_dir=tmp_path, id="one", log_model=log_model)
    checkpoints = keep(save_top_k=keeps)
    trainer(logger, tmp_path, callbacks=[checkpoints], enable_checkpointing=True).fit(Model())
    wandb.finish()
    sent = artifacts(tmp_path)
    assert len(sent) == count, [artifact.metadata for artifact in sent]
    assert {artifact.name for artifact in sent} <= {"model-one"}
    assert all([entry.path for entry in artifact.manifest.contents] == ["model.ckpt"] for artifact in sent)
    if sent:
        best = [artifact for artifact in sent if "best" in artifact.aliases]
        assert json.loads(best[-1].metadata)["original_filename"] == Path(checkpoints.best_model_path).name
        assert json.loads(best[-1].metadata)["score"] == pytest.approx(float(checkpoints.best_model_score))
    assert Path(checkpoints.best_model_path).parent == tmp_path / "lightning_logs/one/checkpoints"


def test_a_checkpoint_that_is_a_folder_is_uploaded_whole(tmp_path):
    folder = tmp_path / "sharded.ckpt"
    folder.mkdir()
    (folder / "a.distcp").write_text("a")
    (folder / ".metadata").write_text("b")
    callback: Any = ModelCheckpoint()
    callback.best_model_path = str(folder)
    logger = WandbLogger(save_dir=tmp_path, log_model="all", checkpoint_name="own")
    logger.after_save_checkpoint(callback)
    logger.after_save_checkpoint(callback)  # nothing new
    wandb.finish()
    (sent,) = artifacts(tmp_path)
    assert sent.name == "own"
    assert {entry.path for entry in sent.manifest.contents} == {"model.ckpt/a.distcp", "model.ckpt/.metadata"}


def test_a_run_that_fails_uploads_nothing_at_its_end(tmp_path):
    class Fails(Callback):
        def on_train_batch_end(self, trainer, *arguments):
            if trainer.global_step == 3:
                raise RuntimeError("on purpose")

    logger = WandbLogger(save_dir=tmp_path, log_model=True)
    with pytest.raises(RuntimeError, match="on purpose"):
        trainer(logger, tmp_path, callbacks=[keep(), Fails()], enable_checkpointing=True).fit(Model())
    wandb.finish()
    assert artifacts(tmp_path) == []


def test_offline_with_log_model_is_refused():
    with pytest.raises(MisconfigurationException, match="log_model='all', offline=True"):
        WandbLogger(offline=True, log_model="all")


@pytest.mark.parametrize(("argument", "value"), [("log_model", "best"), ("add_file_policy", "frozen")])
def test_a_value_that_is_not_known_is_refused_by_name(argument, value):
    options: dict[str, Any] = {argument: value}
    with pytest.raises(ValueError, match=f"WandbLogger\\({argument}='{value}'\\) is not known"):
        WandbLogger(**options)


def test_offline_writes_to_the_disk_whatever_the_environment_says(tmp_path, monkeypatch):
    monkeypatch.delenv("WANDB_MODE")
    run = WandbLogger(save_dir=tmp_path, offline=True).experiment
    assert run.offline


# -- going on ----------------------------------------------------------------------------------------------------------


class Died(BaseException):
    pass


class Dies(Callback):
    def on_train_batch_end(self, trainer, *arguments):
        if trainer.global_step == 5:
            raise Died


def test_auto_goes_on_in_the_same_run_with_rows_that_are_numbered_on(tmp_path):
    def start(*callbacks: Any) -> WandbLogger:
        logger = WandbLogger(save_dir=tmp_path)
        saves = ModelCheckpoint(every_n_train_steps=3, save_top_k=-1)
        run = trainer(logger, tmp_path, limit_train_batches=8, callbacks=[saves, *callbacks], enable_checkpointing=True)
        torch.manual_seed(1)
        try:
            run.fit(Model(), ckpt_path="auto")
        finally:
            wandb.finish()
        return logger

    with pytest.raises(Died):
        start(Dies())
    logger = start()

    logged = rows(tmp_path)
    assert [row["_step"] for row in logged] == [0, 1, 2, 3, 3, 4, 5, 6, 7]
    assert [row["trainer/global_step"] for row in logged] == [row["_step"] for row in logged]
    assert logged[3] == logged[4]
    assert {path.name for path in (tmp_path / "lightning_logs").iterdir()} == {logger.version}


class Run:
    """Stands for a run that wandb's server has: a resumed one begins with the rows that are there."""

    id, offline = "theirs", False

    def __init__(self, rows: list[dict[str, Any]]) -> None:
        self.rows = rows
        self.config: dict[str, Any] = {}

    @property
    def step(self) -> int:
        return len(self.rows)

    @property
    def summary(self) -> dict[str, Any]:
        return {name: value for row in self.rows for name, value in row.items()}

    def log(self, row: dict[str, Any], step: int | None = None, commit: bool | None = None) -> None:
        assert step is None or step == len(self.rows)
        self.rows.append(row)

    def define_metric(self, *arguments: Any, **options: Any) -> None:
        pass


def test_rows_that_the_run_has_are_not_logged_again_but_those_by_hand_are(monkeypatch, tmp_path):
    on_server: list[dict[str, Any]] = []
    begin = SimpleNamespace(run=None, init=lambda **options: Run(on_server))
    monkeypatch.setattr("fulmen.loggers.wandb.library", lambda name: begin)

    def log(logger: WandbLogger, steps: range) -> None:
        for step in steps:
            logger.log_metrics({"loss": step / 4}, step)
            if step % 2:
                logger.experiment.log({"by hand": step})

    killed = WandbLogger(save_dir=tmp_path)
    log(killed, range(4))
    state = killed.state_dict()
    log(killed, range(4, 7))

    resumed = WandbLogger(save_dir=tmp_path)
    _ = resumed.experiment
    resumed.load_state_dict(state)
    log(resumed, range(4, 5))
    again = resumed.state_dict()  # while rows of before are still to come
    log(resumed, range(5, 8))
    assert [row["trainer/global_step"] for row in on_server if "loss" in row] == list(range(8))

    third = WandbLogger(save_dir=tmp_path)
    _ = third.experiment
    third.load_state_dict(again)
    log(third, range(5, 10))
    assert [row["trainer/global_step"] for row in on_server if "loss" in row] == list(range(10))


def test_a_checkpoint_of_another_run_leaves_nothing_out(tmp_path):
    logger = WandbLogger(save_dir=tmp_path, id="one")
    logger.log_metrics({"loss": 1.0}, 0)
    logger.load_state_dict({"id": "other", "rows": 0})
    logger.log_metrics({"loss": 2.0}, 1)
    wandb.finish()
    assert [row["loss"] for row in metrics(tmp_path)] == [1.0, 2.0]


@pytest.mark.parametrize("again", [copy.deepcopy, lambda logger: pickle.loads(pickle.dumps(logger))])
def test_a_copy_goes_on_in_the_same_run(tmp_path, again):
    logger = WandbLogger(save_dir=tmp_path, project="p")
    begun = again(logger)
    assert wandb.run is None  # a copy begins nothing
    identity = logger.experiment.id
    assert again(logger).experiment.id == identity
    assert begun.version is None


@pytest.mark.slow
@pytest.mark.parametrize("is_open", [False, True])
def test_processes_that_are_started_write_to_one_run_that_is_known_afterwards(tmp_path, is_open):
    logger = WandbLogger(save_dir=tmp_path)
    if is_open:
        logger.experiment.log({"by hand": 1.0})
    run = trainer(logger, tmp_path, devices=2, strategy="ddp_spawn", limit_train_batches=2)
    run.fit(Model())
    wandb.finish()
    assert len(list(tmp_path.glob("wandb/offline-run-*"))) == 1
    assert next(tmp_path.glob("wandb/offline-run-*")).name.endswith(f"-{logger.version}")
    assert [row["trainer/global_step"] for row in metrics(tmp_path) if "loss" in row] == [0, 1]


def test_without_wandb_the_error_names_the_extra():
    program = "import sys; sys.modules['wandb'] = None\nfrom fulmen.loggers import WandbLogger\nWandbLogger()"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert "pip install 'fulmen[wandb]'" in done.stderr.splitlines()[-1]
