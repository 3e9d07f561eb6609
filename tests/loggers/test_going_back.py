"""A resumed run takes back what was logged after its checkpoint, by the run that was killed and by itself."""

from __future__ import annotations

import os
import pickle
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
import torch
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from torch.utils.data import DataLoader

from fulmen import Callback, Trainer
from fulmen.demos.boring_classes import BoringModel, RandomDataset
from fulmen.loggers import CSVLogger, TensorBoardLogger, files
from fulmen.loggers.logger import DummyLogger

# -- CSV ---------------------------------------------------------------------------------------------------------------


def csv(root: Any, **options: Any) -> CSVLogger:
    return CSVLogger(root, name="", version="run", **options)


def text_of(logger: CSVLogger) -> str:
    return files.read_text(f"{logger.log_dir}/metrics.csv")


def log(logger: Any, *rows: tuple[int, dict[str, Any]], save: bool = True) -> None:
    for step, values in rows:
        logger.log_metrics(values, step=step)
    if save:
        logger.save()


BEFORE = [(0, {"loss": 1.5}), (1, {"loss": 0.25, "note": 'two\n"lines"'})]
AFTER = [(2, {"loss": 1 / 3}), (2, {"acc": 0.5, "loss": 2.0}), (3, {"loss": 4.0})]


@pytest.fixture(params=["local", "memory"])
def root(request, tmp_path) -> Any:
    return tmp_path if request.param == "local" else f"memory://{tmp_path}"


@pytest.mark.parametrize("lost", [[], AFTER[:1], AFTER[:2], [(9, {"later": 1.0})]])
def test_csv_file_is_at_the_end_that_of_the_run_that_never_stopped(root, lost):
    whole = csv(f"{root}/whole")
    log(whole, *BEFORE, *AFTER)
    killed = csv(root)
    log(killed, *BEFORE, save=False)
    state = killed.state_dict()
    log(killed, *lost)

    resumed = csv(root)
    log(resumed, (1, {"lr": 0.1}), save=False)  # by a hook that opens the epoch
    resumed.load_state_dict(state)
    log(resumed, *AFTER)

    assert text_of(resumed) == text_of(whole)
    assert whole.state_dict()["rows"] == resumed.state_dict()["rows"] == 5


def test_csv_rows_of_the_opening_hooks_go_also_when_they_are_written(root):
    killed = csv(root)
    log(killed, *BEFORE)
    state = killed.state_dict()
    resumed = csv(root)
    log(resumed, (1, {"lr": 0.1}), (1, {"loss": 9.0}))
    resumed.load_state_dict(state)
    assert text_of(resumed) == text_of(killed)
    assert "9.0" not in text_of(resumed)


def test_csv_file_goes_when_the_checkpoint_is_older_than_its_first_row(root):
    killed = csv(root)
    state = killed.state_dict()
    log(killed, *AFTER)
    resumed = csv(root)
    resumed.load_state_dict(state)
    log(resumed, *BEFORE[:1])
    assert text_of(resumed) == "loss,step\n1.5,0\n"


@pytest.mark.parametrize("size", range(1, 24))
def test_csv_row_that_was_cut_short_anywhere_goes_without_a_word(tmp_path, size):
    killed = csv(tmp_path)
    log(killed, *BEFORE)
    state, whole = killed.state_dict(), text_of(killed)
    log(killed, (2, {"loss": 0.125, "note": 'a "b"'}))
    path = Path(killed.log_dir, "metrics.csv")
    os.truncate(path, min(len(whole) + size, path.stat().st_size))

    resumed = csv(tmp_path)
    resumed.load_state_dict(state)

    assert path.read_text() == whole
    assert {file.name for file in path.parent.iterdir()} == {"metrics.csv", "hparams.yaml"}


def test_csv_row_that_lost_its_line_end_is_kept_and_ended(tmp_path):
    killed = csv(tmp_path)
    log(killed, *BEFORE)
    state, whole = killed.state_dict(), text_of(killed)
    Path(killed.log_dir, "metrics.csv").write_text(whole.removesuffix("\n"))
    csv(tmp_path).load_state_dict(state)
    assert text_of(killed) == whole


def test_csv_file_is_not_written_anew_when_nothing_was_logged_after(tmp_path):
    killed = csv(tmp_path)
    log(killed, *BEFORE)
    path = Path(killed.log_dir, "metrics.csv")
    inode = path.stat().st_ino
    csv(tmp_path).load_state_dict(killed.state_dict())
    assert path.stat().st_ino == inode


def test_csv_rows_without_a_step_are_counted_on(root):
    killed = csv(root)
    for _ in range(3):
        killed.log_metrics({"loss": 1.0})
    state = killed.state_dict()
    killed.log_metrics({"loss": 1.0})
    killed.save()
    resumed = csv(root)
    resumed.load_state_dict(state)
    resumed.log_metrics({"loss": 2.0})
    resumed.save()
    assert text_of(resumed) == "loss,step\n1.0,0\n1.0,1\n1.0,2\n2.0,3\n"


def test_csv_logger_in_another_directory_keeps_the_rows_that_are_there(root):
    killed = CSVLogger(root, version=0)
    log(killed, *BEFORE)
    state = killed.state_dict()
    log(CSVLogger(root, version=1), (7, {"loss": 7.0}), (8, {"loss": 8.0}), (9, {"loss": 9.0}))

    other = CSVLogger(root, version=1)
    other.load_state_dict(state)
    log(other, *AFTER[:1])

    assert text_of(other) == f"loss,step\n7.0,7\n8.0,8\n9.0,9\n{1 / 3},2\n"
    assert text_of(killed).count("\n") == 4  # one of them within a note


def test_csv_directory_is_the_same_by_whatever_path(tmp_path, monkeypatch):
    killed = csv(tmp_path)
    log(killed, *BEFORE)
    state, whole = killed.state_dict(), text_of(killed)
    log(killed, *AFTER)
    (tmp_path / "link").symlink_to(tmp_path)
    monkeypatch.chdir(tmp_path)
    for same in (Path(), tmp_path / "link"):
        csv(same).load_state_dict(state)
        assert text_of(killed) == whole
        log(killed, *AFTER)


def test_csv_rows_that_are_missing_are_told(tmp_path):
    killed = csv(tmp_path)
    log(killed, *BEFORE)
    state = killed.state_dict()
    Path(killed.log_dir, "metrics.csv").write_text("loss,note,step\n1.5,,0\n0.2")
    resumed = csv(tmp_path)
    with pytest.warns(UserWarning, match="has 1 rows of the 2 that the checkpoint counts"):
        resumed.load_state_dict(state)
    log(resumed, *AFTER[:1])
    assert text_of(resumed) == f"loss,note,step\n1.5,,0\n{1 / 3},,2\n"


def test_logger_without_a_state_is_asked_and_told_nothing(tmp_path):
    assert DummyLogger().state_dict() == {}
    assert DummyLogger().load_state_dict({"any": 1}) is None


# -- TensorBoard -------------------------------------------------------------------------------------------------------


def board(root: Any, **options: Any) -> TensorBoardLogger:
    return TensorBoardLogger(root, name="", version="run", **options)


def events(folder: Any) -> dict[str, list[tuple[int, float]]]:
    """What the real reader of event files shows, in the order of steps."""
    reader = EventAccumulator(os.fspath(folder)).Reload()
    return {tag: sorted((event.step, event.value) for event in reader.Scalars(tag)) for tag in reader.Tags()["scalars"]}


def tables(folder: Any) -> Counter[str]:
    """How often each table of hyperparameters is in the event files."""
    reader = EventAccumulator(os.fspath(folder)).Reload()
    return Counter(tag for tag in reader.summary_metadata if tag.startswith("_hparams_"))


def test_tensorboard_reader_sees_each_step_once_and_none_is_missing(tmp_path):
    whole, killed = board(tmp_path / "whole"), board(tmp_path)
    for logger in (whole, killed):
        logger.log_hyperparams({"width": 8})
    rows = [(step, {"loss": float(step), **({"val": step * 2.0} if step % 2 else {})}) for step in range(10)]
    log(whole, *rows)
    log(killed, *rows[:5])
    killed.log_metrics({"late": 1.0}, step=4)
    state = killed.state_dict()
    assert pickle.loads(pickle.dumps(state)) == state
    killed.log_metrics({"after": 1.0}, step=4)  # at a step that was written before the checkpoint, too
    log(killed, *rows[5:8])

    resumed = board(tmp_path)
    resumed.log_hyperparams({"width": 8})
    log(resumed, (4, {"opening": 1.0}))
    resumed.load_state_dict(state)
    log(resumed, *rows[5:])
    resumed.finalize("success")

    assert events(resumed.log_dir) == {**events(whole.log_dir), "late": [(4, 1.0)]}
    assert tables(resumed.log_dir) == tables(whole.log_dir) != {}


def test_tensorboard_goes_back_again_and_again(tmp_path):
    killed = board(tmp_path)
    log(killed, (0, {"loss": 0.0}))
    state = killed.state_dict()
    for attempt in range(3):
        again = board(tmp_path)
        again.load_state_dict(state)
        log(again, *((step, {"loss": float(step), f"attempt{attempt}": 1.0}) for step in range(1, 4)))
    assert events(again.log_dir) == {
        "loss": [(0, 0.0), (1, 1.0), (2, 2.0), (3, 3.0)],
        "attempt2": [(1, 1.0), (2, 1.0), (3, 1.0)],
    }
    assert len(list(Path(again.log_dir).glob("events*"))) == 2


def test_tensorboard_url_goes_back(tmp_path):
    root = f"memory://{tmp_path}"
    killed = board(root)
    log(killed, (0, {"loss": 0.0}))
    state = killed.state_dict()
    log(killed, (1, {"loss": 1.0}), (2, {"loss": {"a": 1.0}}))
    resumed = board(root)
    resumed.load_state_dict(state)
    log(resumed, (1, {"loss": 1.0}), (2, {"loss": {"a": 1.0}}))
    assert events(resumed.log_dir) == {"loss": [(0, 0.0), (1, 1.0)]}
    assert events(f"{resumed.log_dir}/loss_a") == {"loss": [(2, 1.0)]}


def test_tensorboard_event_that_was_cut_short_goes(tmp_path):
    killed = board(tmp_path)
    log(killed, (0, {"loss": 0.0}))
    state = killed.state_dict()
    log(killed, (1, {"loss": 1.0}))
    (path,) = Path(killed.log_dir).glob("events*")
    os.truncate(path, path.stat().st_size - 5)
    resumed = board(tmp_path)
    resumed.load_state_dict(state)
    log(resumed, (1, {"loss": 1.0}))
    assert events(resumed.log_dir) == {"loss": [(0, 0.0), (1, 1.0)]}


def test_tensorboard_chart_of_several_lines_goes_back_in_each(tmp_path):
    killed = board(tmp_path)
    log(killed, (0, {"loss": {"a": 1.0}}))
    state = killed.state_dict()
    log(killed, (1, {"loss": {"a": 2.0, "b": 3.0}}))
    resumed = board(tmp_path)
    resumed.load_state_dict(state)
    log(resumed, (1, {"loss": {"a": 2.0, "b": 3.0}}))
    assert events(f"{resumed.log_dir}/loss_a") == {"loss": [(0, 1.0), (1, 2.0)]}
    assert events(f"{resumed.log_dir}/loss_b") == {"loss": [(1, 3.0)]}


def test_tensorboard_leaves_the_files_of_others_alone(tmp_path):
    killed = board(tmp_path / "runs", filename_suffix=".mine")
    log(killed, (0, {"loss": 0.0}))
    state = killed.state_dict()
    other, nested = board(tmp_path / "runs", filename_suffix=".other"), board(tmp_path / "runs", sub_dir="sub")
    log(other, (5, {"other": 5.0}))
    log(nested, (5, {"nested": 5.0}))
    log(killed, (1, {"loss": 1.0}))
    resumed = board(tmp_path / "runs", filename_suffix=".mine")
    resumed.load_state_dict(state)
    resumed.finalize("success")
    assert events(resumed.log_dir) == {"loss": [(0, 0.0)], "other": [(5, 5.0)]}
    assert events(nested.log_dir) == {"nested": [(5, 5.0)]}


def test_tensorboard_in_another_directory_keeps_what_is_there(tmp_path):
    killed = board(tmp_path / "one")
    log(killed, (0, {"loss": 0.0}))
    other = board(tmp_path / "two")
    log(other, (3, {"loss": 3.0}))
    other.load_state_dict(killed.state_dict())
    log(other, (4, {"loss": 4.0}))
    assert events(other.log_dir) == {"loss": [(3, 3.0), (4, 4.0)]}


def test_tensorboard_events_that_are_missing_are_told(tmp_path):
    killed = board(tmp_path)
    log(killed, (0, {"loss": 0.0}))
    state = killed.state_dict()
    (path,) = Path(killed.log_dir).glob("events*")
    path.unlink()
    with pytest.warns(UserWarning, match=f"less than the checkpoint counts, of {path.name}"):
        board(tmp_path).load_state_dict(state)


# -- both, in a run ----------------------------------------------------------------------------------------------------


class Died(BaseException):
    pass


class SaveAndDie(Callback):
    def __init__(self, path: Path) -> None:
        self.path = path

    def on_train_batch_end(self, trainer: Trainer, *args: Any) -> None:
        if trainer.global_step == 3:
            trainer.boundary.defer(lambda: trainer.save_checkpoint(self.path))
        if trainer.global_step == 6:
            raise Died


class Logs(BoringModel):
    def __init__(self) -> None:
        super().__init__()
        self.save_hyperparameters({"width": 32})

    def training_step(self, batch: Any, batch_idx: int) -> Any:
        self.log("value", batch.sum(), on_step=True, on_epoch=True)
        return super().training_step(batch, batch_idx)


def run(root: Path, save: SaveAndDie | None = None, resume: Path | None = None) -> None:
    torch.manual_seed(3)
    loggers = [csv(root / "csv"), board(root / "tb"), csv(root / "second")]
    trainer = Trainer(
        max_epochs=2,
        accelerator="cpu",
        logger=loggers,
        log_every_n_steps=1,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        limit_val_batches=0,
        callbacks=[save] if save else [],
    )
    try:
        trainer.fit(Logs(), DataLoader(RandomDataset(32, 5), shuffle=True), ckpt_path=resume)
    except Died:
        assert save


def test_run_with_several_loggers_leaves_what_the_run_that_never_stopped_leaves(tmp_path):
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    run(whole)
    run(killed, SaveAndDie(tmp_path / "k.ckpt"))
    run(killed, resume=tmp_path / "k.ckpt")

    for name in ("csv", "second"):
        for file in ("metrics.csv", "hparams.yaml"):
            assert (killed / name / "run" / file).read_bytes() == (whole / name / "run" / file).read_bytes()
    assert events(killed / "tb" / "run") == events(whole / "tb" / "run")
    assert len(events(whole / "tb" / "run")["value_step"]) == 10
    assert tables(killed / "tb" / "run") == tables(whole / "tb" / "run")
    assert (killed / "tb" / "run" / "hparams.yaml").read_text() == "width: 32\n"
