"""``ckpt_path="auto"``: the same program, started again and again, finishes the run."""

from __future__ import annotations

import csv
import logging
import os
import shutil
import signal
import subprocess
import sys
import time
import uuid
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.utils.data import DataLoader, TensorDataset

from fulmen import Callback
from fulmen.callbacks.model_checkpoint import ModelCheckpoint
from fulmen.callbacks.on_exception_checkpoint import OnExceptionCheckpoint
from fulmen.loggers.csv_logs import CSVLogger
from fulmen.loggers.logger import Logger
from fulmen.loggers.tensorboard import TensorBoardLogger
from fulmen.plugins.io import index

from .killing import POLICIES, Model, attributes, fit, trainer_of, tree

REPOSITORY = Path(__file__).parents[2]


class StopAt(Callback):
    """Breaks the run off before the batch of this number, counted over the run."""

    def __init__(self, batch: int) -> None:
        self.batch = batch

    def on_train_batch_start(self, trainer: Any, pl_module: Any, batch: Any, batch_idx: int) -> None:
        if trainer.progress.total_batches == self.batch:
            raise KeyboardInterrupt


def start(folder: Path, *callbacks: Any, stop_at: int | None = None, **arguments: Any) -> Any:
    """One start of the run; it may be broken off, like a process that ends."""
    stop = [] if stop_at is None else [StopAt(stop_at)]
    trainer = trainer_of(str(folder), [*callbacks, *stop], **arguments)
    if stop_at is None:
        fit(trainer)
    else:
        with pytest.raises(SystemExit):
            fit(trainer)
    return trainer


def checkpoints(folder: Path) -> dict[str, tuple[int, int]]:
    """The checkpoints below ``folder``, each with its epoch and step."""
    loaded = {path.name: torch.load(path, weights_only=True) for path in sorted(folder.rglob("*.ckpt"))}
    return {name: (content["epoch"], content["global_step"]) for name, content in loaded.items()}


def newest(folder: Path) -> Path:
    """The newest checkpoint by the index."""
    (place,) = folder.rglob(index.FILE_NAME)
    return place.parent / index.read(str(place.parent)).entries[-1].path


def flip_a_bit(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


# -- kills ------------------------------------------------------------------------------------------------------------


def _differences(policy: str, first: int, every: int, folder: Path) -> str:
    command = [sys.executable, "-m", "tests.trainer.killing", policy, str(first), str(every), str(folder)]
    done = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True, timeout=900)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_run_that_is_killed_while_it_touches_files_ends_as_if_it_had_not_been(tmp_path):
    assert _differences("best, last and steps", 5, 17, tmp_path) == ""


@pytest.mark.slow
@pytest.mark.parametrize("policy", POLICIES)
def test_run_that_is_killed_at_any_touch_of_a_file_ends_as_if_it_had_not_been(tmp_path, policy):
    assert _differences(policy, 1, 1, tmp_path) == ""


def test_script_that_is_killed_from_outside_and_run_again_leaves_what_one_run_leaves(tmp_path):
    def command(folder: str) -> list[str]:
        return [sys.executable, "-m", "tests.trainer.killing", "default", str(tmp_path / folder / "run")]

    subprocess.run(command("whole"), cwd=REPOSITORY, check=True, capture_output=True, timeout=120)
    process = subprocess.Popen(command("killed"), cwd=REPOSITORY, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    deadline = time.monotonic() + 120
    while not list(tmp_path.glob("killed/run/**/*.ckpt")) and time.monotonic() < deadline and process.poll() is None:
        time.sleep(0.002)
    process.send_signal(signal.SIGKILL)
    process.wait(timeout=60)
    subprocess.run(command("killed"), cwd=REPOSITORY, check=True, capture_output=True, timeout=120)

    whole, killed = (tree(tmp_path / name) for name in ("whole", "killed"))
    assert killed.keys() == whole.keys()
    rows = next(name for name in whole if name.endswith("metrics.csv"))
    assert killed[rows] == whole[rows]


# -- which run --------------------------------------------------------------------------------------------------------


def test_first_start_is_a_fresh_one_and_says_so_in_one_line(tmp_path, caplog):
    with caplog.at_level(logging.INFO, logger="fulmen"):
        trainer = start(tmp_path)

    assert [record.message for record in caplog.records if "fresh start" in record.message] == [
        f"a fresh start: there is no checkpoint in {str(tmp_path / 'lightning_logs/version_0/checkpoints')!r} yet"
    ]
    assert trainer.global_step == 9


def test_next_start_goes_on_in_the_same_directory_and_ends_like_one_run(tmp_path):
    start(tmp_path / "whole", ModelCheckpoint(monitor="v", save_top_k=2, save_last=True))
    for stop_at in (1, 8, 13, None):
        callback = ModelCheckpoint(monitor="v", save_top_k=2, save_last=True)
        start(tmp_path / "often", callback, stop_at=stop_at)

    whole, often = (tree(tmp_path / name) for name in ("whole", "often"))
    assert often.keys() == whole.keys()
    assert often["lightning_logs/version_0/metrics.csv"] == whole["lightning_logs/version_0/metrics.csv"]


def test_callback_of_a_resumed_run_is_that_of_the_whole_run(tmp_path):
    whole, killed, resumed = (
        ModelCheckpoint(monitor="v", save_top_k=2, save_last=True, every_n_train_steps=2) for _ in range(3)
    )
    start(tmp_path / "run", whole)
    os.rename(tmp_path / "run", tmp_path / "whole")
    start(tmp_path / "run", killed, stop_at=9)
    start(tmp_path / "run", resumed)

    assert attributes(resumed) == attributes(whole)


def test_run_that_is_finished_is_left_as_it_is_and_said_to_be_finished(tmp_path, caplog):
    start(tmp_path, ModelCheckpoint(monitor="v", save_last=True))
    before = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    with caplog.at_level(logging.INFO, logger="fulmen"):
        trainer = start(tmp_path, ModelCheckpoint(monitor="v", save_last=True))

    assert "nothing to train: this run is finished, with 3 epochs and 9 steps" in caplog.messages
    assert trainer.global_step == 9
    assert {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()} == before


def test_run_that_is_finished_goes_on_when_more_epochs_are_asked_for(tmp_path):
    start(tmp_path)
    trainer = start(tmp_path, max_epochs=4)

    assert trainer.current_epoch == 4
    assert checkpoints(tmp_path) == {"epoch=3-step=12.ckpt": (3, 12)}


def test_start_that_came_to_no_checkpoint_leaves_no_row(tmp_path):
    start(tmp_path / "whole")
    start(tmp_path / "run", stop_at=4)
    (rows,) = (tmp_path / "run").rglob("metrics.csv")
    assert rows.read_text().count("\n") > 1
    start(tmp_path / "run")

    assert [path.name for path in (tmp_path / "run" / "lightning_logs").iterdir()] == ["version_0"]
    assert rows.read_bytes() == next((tmp_path / "whole").rglob("metrics.csv")).read_bytes()


@pytest.mark.parametrize("kind", [CSVLogger, TensorBoardLogger])
def test_first_start_leaves_what_an_evaluation_has_logged(tmp_path, kind):
    evaluation = trainer_of(str(tmp_path), [], logger=kind(tmp_path))
    evaluation.validate(Model(), DataLoader(TensorDataset(torch.zeros(2, 4)), 2), verbose=False)
    (before,) = (path for path in tmp_path.rglob("*") if path.name.startswith(("metrics", "events")))
    content = before.read_bytes()
    start(tmp_path, logger=kind(tmp_path))

    if kind is CSVLogger:
        assert len(before.read_text().splitlines()) == 1 + 1 + 9 + 3  # the header, its row, steps, validations
    else:
        assert before.read_bytes() == content


def test_start_that_is_killed_after_an_evaluation_is_begun_again_in_its_directory(tmp_path):
    for _ in range(2):
        evaluation = trainer_of(str(tmp_path), [StopAt(2)])
        evaluation.validate(Model(), DataLoader(TensorDataset(torch.zeros(2, 4)), 2), verbose=False)
        with pytest.raises(SystemExit):
            fit(evaluation)

        assert evaluation.logger.version == 0


def test_newest_version_with_files_of_a_run_is_gone_on_with(tmp_path):
    start(tmp_path, stop_at=7)
    (tmp_path / "lightning_logs" / "version_7").mkdir()
    trainer = start(tmp_path)

    assert trainer.logger.version == 0


def test_run_goes_on_though_it_was_evaluated_meanwhile_in_a_directory_of_its_own(tmp_path):
    start(tmp_path, stop_at=7)
    evaluation = trainer_of(str(tmp_path), [])
    evaluation.validate(Model(), DataLoader(TensorDataset(torch.zeros(2, 4)), 2), verbose=False)
    trainer = start(tmp_path)

    assert (evaluation.logger.version, trainer.logger.version) == (1, 0)
    assert trainer.loaded_ckpt_path is not None


@pytest.mark.parametrize("kind", [CSVLogger, TensorBoardLogger])
def test_program_that_evaluates_before_it_trains_goes_on_with_its_run(tmp_path, kind):
    def program(*callbacks: Any) -> Any:
        trainer = trainer_of(str(tmp_path), list(callbacks), logger=kind(tmp_path))
        trainer.validate(Model(), DataLoader(TensorDataset(torch.zeros(2, 4)), 2), verbose=False)
        fit(trainer)
        return trainer

    with pytest.raises(SystemExit):
        program(StopAt(7))
    trainer = program()

    assert trainer.loaded_ckpt_path is not None
    assert trainer.logger.version == 0
    assert Path(trainer.checkpoint_callback.best_model_path).parent.parent.name == "version_0"


def test_empty_directory_of_a_first_start_is_used(tmp_path):
    (tmp_path / "lightning_logs" / "version_0").mkdir(parents=True)
    trainer = start(tmp_path)

    assert trainer.logger.version == 0


def test_version_that_the_user_chose_is_the_run(tmp_path):
    start(tmp_path, logger=CSVLogger(tmp_path, version=3), stop_at=7)
    start(tmp_path, logger=CSVLogger(tmp_path, version=5), stop_at=7)
    trainer = start(tmp_path, logger=CSVLogger(tmp_path, version=3))

    assert Path(trainer.checkpoint_callback.best_model_path).parent.parent.name == "version_3"
    assert sorted(path.name for path in (tmp_path / "lightning_logs").iterdir()) == ["version_3", "version_5"]


def test_version_that_was_looked_at_before_is_not_fixed(tmp_path):
    start(tmp_path, stop_at=7)
    trainer = trainer_of(str(tmp_path), [])
    assert trainer.log_dir.endswith("version_1")
    fit(trainer)

    assert trainer.log_dir.endswith("version_0")


def test_logger_of_the_users_own_is_asked_for_its_version(tmp_path):
    class Own(Logger):
        name, version, save_dir = "own", "chosen", str(tmp_path)

        def log_metrics(self, metrics: Any, step: Any = None) -> None:
            """Keeps nothing."""

        def log_hyperparams(self, *args: Any, **kwargs: Any) -> None:
            """Keeps nothing."""

    start(tmp_path, logger=Own(), stop_at=7)
    trainer = start(tmp_path, logger=Own())

    assert trainer.loaded_ckpt_path == str(tmp_path / "own" / "chosen" / "checkpoints" / "epoch=0-step=3.ckpt")


def test_tensorboard_goes_on_in_the_same_directory(tmp_path):
    pytest.importorskip("tensorboard")
    for stop_at in (7, None):
        start(tmp_path, logger=TensorBoardLogger(tmp_path), stop_at=stop_at)

    assert [path.name for path in (tmp_path / "lightning_logs").iterdir()] == ["version_0"]


@pytest.mark.parametrize("place", ["none", "folder", "memory"])
def test_folder_without_a_logger_is_the_run(tmp_path, place):
    dirpath = {"none": None, "folder": tmp_path / "mine", "memory": f"memory://{uuid.uuid4().hex}"}[place]
    start(tmp_path, ModelCheckpoint(dirpath), logger=False, stop_at=7)
    callback = ModelCheckpoint(dirpath)
    trainer = start(tmp_path, callback, logger=False)

    assert str(trainer.loaded_ckpt_path).endswith("epoch=0-step=3.ckpt")
    assert [entry.path for entry in index.read(callback.dirpath).entries] == ["epoch=2-step=9.ckpt"]


def test_run_without_checkpoints_is_told_that_it_always_begins_anew(tmp_path):
    with pytest.warns(UserWarning, match="every start is a fresh one"):
        start(tmp_path, enable_checkpointing=False)


def test_run_that_saves_weights_only_is_told_that_it_always_begins_anew(tmp_path):
    with pytest.warns(UserWarning, match="every start is a fresh one. Leave `save_weights_only=True` out"):
        start(tmp_path, ModelCheckpoint(save_weights_only=True))


def test_fast_dev_run_goes_on_with_nothing_and_touches_nothing(tmp_path):
    start(tmp_path, logger=False, stop_at=7)
    newest(tmp_path).write_bytes(b"")
    trainer = start(tmp_path, logger=False, fast_dev_run=True)

    assert trainer.global_step == 1
    assert newest(tmp_path).exists()


def test_other_hyperparameters_are_named_with_both_values(tmp_path):
    start(tmp_path, stop_at=7)
    with pytest.warns(UserWarning, match=r"other hyperparameters: now lr=0\.5 \(was 0\.1\)"):
        fit(trainer_of(str(tmp_path), []), Model(lr=0.5))


# -- which file -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("harm", "said"), [(flip_a_bit, "checksum"), (lambda path: os.truncate(path, 2000), "it has 2,000 bytes")]
)
def test_newest_file_that_is_damaged_is_put_aside_and_the_one_before_used(tmp_path, harm, said):
    start(tmp_path / "run")
    os.rename(tmp_path / "run", tmp_path / "whole")
    start(tmp_path / "run", ModelCheckpoint(save_top_k=-1), stop_at=13)
    damaged = newest(tmp_path / "run")
    harm(damaged)
    content = damaged.read_bytes()
    with pytest.warns(UserWarning, match=said) as warned:
        trainer = start(tmp_path / "run", ModelCheckpoint(save_top_k=-1))

    assert len([one for one in warned if "damaged" in str(one.message)]) == 1
    assert str(trainer.loaded_ckpt_path).endswith("epoch=0-step=3.ckpt")
    assert (damaged.parent / "epoch=1-step=6.ckpt.damaged").read_bytes() == content
    assert checkpoints(tmp_path / "run").keys() == {f"epoch={n}-step={3 * n + 3}.ckpt" for n in range(3)}
    whole, again = (next((tmp_path / name).rglob("metrics.csv")).read_bytes() for name in ("whole", "run"))
    assert again == whole


def test_when_all_files_are_damaged_the_run_begins_anew_and_says_it(tmp_path):
    start(tmp_path, stop_at=7)
    flip_a_bit(newest(tmp_path))
    with pytest.warns(UserWarning, match="There is no other one"):
        trainer = start(tmp_path)

    assert trainer.loaded_ckpt_path is None
    assert trainer.global_step == 9


def test_index_that_is_lost_is_made_from_the_files(tmp_path):
    start(tmp_path, ModelCheckpoint(save_top_k=-1), stop_at=13)
    (place,) = tmp_path.rglob(index.FILE_NAME)
    place.unlink()
    trainer = start(tmp_path, ModelCheckpoint(save_top_k=-1))

    assert str(trainer.loaded_ckpt_path).endswith("epoch=1-step=6.ckpt")
    assert [entry.reason for entry in index.read(str(place.parent)).entries] == ["epoch"] * 3


def test_index_that_is_lost_in_a_copy_with_other_times_is_made_in_the_order_of_the_steps(tmp_path):
    start(tmp_path / "a", ModelCheckpoint(save_top_k=-1, every_n_train_steps=2), stop_at=13)
    folder = newest(tmp_path / "a").parent
    (folder / index.FILE_NAME).unlink()
    for age, path in enumerate(sorted(folder.glob("*.ckpt"), key=lambda path: checkpoints(folder)[path.name])):
        os.utime(path, (1e9 - age, 1e9 - age))

    trainer = start(tmp_path / "a", ModelCheckpoint(save_top_k=-1, every_n_train_steps=2))

    assert trainer.ckpt_path.endswith("step=6.ckpt")


@pytest.mark.parametrize("kind", [CSVLogger, TensorBoardLogger])
def test_run_whose_directory_was_moved_goes_on_with_its_rows(tmp_path, kind, monkeypatch):
    def again(folder: Path, **stop: int) -> None:
        start(folder, ModelCheckpoint(every_n_train_steps=2), logger=kind(str(folder)), log_every_n_steps=1, **stop)

    again(tmp_path / "whole")
    again(tmp_path / "before", stop_at=5)
    (tmp_path / "before").rename(tmp_path / "after")
    again(tmp_path / "after")

    if kind is CSVLogger:
        (whole,), (moved,) = (list((tmp_path / name).rglob("metrics.csv")) for name in ("whole", "after"))
        assert moved.read_text() == whole.read_text()
    else:
        assert steps_of(tmp_path / "after") == steps_of(tmp_path / "whole")


def steps_of(folder: Path) -> dict[str, list[int]]:
    """The steps of each scalar in the event files."""
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    (place,) = {path.parent for path in folder.rglob("events.*")}
    events = EventAccumulator(str(place)).Reload()
    return {tag: [event.step for event in events.Scalars(tag)] for tag in events.Tags()["scalars"]}


def test_what_a_killed_writer_left_half_written_is_removed(tmp_path):
    start(tmp_path, stop_at=7)
    (folder,) = tmp_path.rglob("checkpoints")
    (folder / ".epoch=1-step=6.ckpt.0123abcd.part").write_text("half")
    start(tmp_path)

    assert sorted(path.name for path in folder.iterdir()) == ["checkpoints.json", "epoch=2-step=9.ckpt"]


def test_files_with_weights_only_are_passed_over(tmp_path):
    both = [ModelCheckpoint(), ModelCheckpoint(every_n_train_steps=1, save_weights_only=True, filename="w-{step}")]
    start(tmp_path, *both, stop_at=9)
    both = [ModelCheckpoint(), ModelCheckpoint(every_n_train_steps=1, save_weights_only=True, filename="w-{step}")]
    trainer = start(tmp_path, *both)

    assert str(trainer.loaded_ckpt_path).endswith("epoch=0-step=3.ckpt")


def test_file_that_an_exception_left_is_gone_on_with_when_it_is_the_newest(tmp_path):
    trainer = trainer_of(str(tmp_path), [OnExceptionCheckpoint(tmp_path / "broken"), StopAt(9)])
    with pytest.raises(SystemExit):
        fit(trainer)
    trainer = start(tmp_path, OnExceptionCheckpoint(tmp_path / "broken"))

    assert trainer.loaded_ckpt_path == str(tmp_path / "broken" / "on_exception.ckpt")
    assert trainer.global_step == 9


def test_another_verb_takes_the_newest_state_of_the_run(tmp_path):
    start(tmp_path, ModelCheckpoint(monitor="v", save_last=True), stop_at=13)
    trainer = trainer_of(str(tmp_path), [ModelCheckpoint(monitor="v", save_last=True)])
    trainer.validate(Model(), DataLoader(TensorDataset(torch.ones(2, 4))), ckpt_path="auto", verbose=False)

    assert trainer.loaded_ckpt_path == str(newest(tmp_path))


@pytest.mark.parametrize("kind", [CSVLogger, TensorBoardLogger])
@pytest.mark.parametrize("ckpt_path", ["best", "last", "auto", "path"])
def test_evaluation_in_another_process_logs_in_a_version_of_its_own(tmp_path, ckpt_path, kind):
    def monitored() -> ModelCheckpoint:
        return ModelCheckpoint(monitor="v", save_last=True)

    start(tmp_path, monitored(), logger=kind(tmp_path))
    before = tree(tmp_path)
    path = str(newest(tmp_path)) if ckpt_path == "path" else ckpt_path
    for version in (1, 2):
        other = trainer_of(str(tmp_path), [monitored()], logger=kind(tmp_path))
        other.validate(Model(), DataLoader(TensorDataset(torch.ones(2, 4))), ckpt_path=path, verbose=False)

        assert other.logger.version == version
        assert Path(str(other.loaded_ckpt_path)).parent == newest(tmp_path).parent
    after = tree(tmp_path)

    assert {name: content for name, content in after.items() if "version_0" in name} == before
    assert any("version_1" in name for name in after)


@pytest.mark.parametrize("ckpt_path", ["best", "last"])
def test_evaluation_after_fit_by_the_same_trainer_logs_below_its_rows(tmp_path, ckpt_path):
    trainer = start(tmp_path, ModelCheckpoint(monitor="v"))
    (place,) = tmp_path.rglob("metrics.csv")
    with place.open() as file:
        before = list(csv.DictReader(file))
    model = Model()
    model.test_step = lambda batch, batch_idx: model.log("tested", batch[0].mean())  # type: ignore[method-assign]
    trainer.test(model, DataLoader(TensorDataset(torch.ones(2, 4))), ckpt_path=ckpt_path, verbose=False)
    with place.open() as file:
        after = list(csv.DictReader(file))

    assert [path.name for path in (tmp_path / "lightning_logs").iterdir()] == ["version_0"]
    assert [{name: row[name] for name in before[0]} for row in after[:-1]] == before
    assert after[-1]["tested"] == "1.0"


@pytest.mark.parametrize("ckpt_path", ["best", "last", "auto"])
def test_evaluation_finds_the_files_of_a_run_whose_index_is_lost_and_changes_none(tmp_path, ckpt_path):
    start(tmp_path, ModelCheckpoint(monitor="v", save_last=True), stop_at=13)
    (place,) = tmp_path.rglob(index.FILE_NAME)
    place.unlink()
    before = tree(tmp_path)
    other = trainer_of(str(tmp_path), [ModelCheckpoint(monitor="v", save_last=True)])
    other.validate(Model(), DataLoader(TensorDataset(torch.ones(2, 4))), ckpt_path=ckpt_path, verbose=False)

    name = "epoch=0-step=3.ckpt" if ckpt_path == "best" else "last.ckpt"
    assert other.loaded_ckpt_path == str(place.parent / name)
    assert {name: content for name, content in tree(tmp_path).items() if "version_0" in name} == before


def test_copy_of_a_run_goes_on_and_leaves_the_run_alone(tmp_path):
    start(tmp_path / "run", stop_at=7)
    shutil.copytree(tmp_path / "run", tmp_path / "copy")
    before = tree(tmp_path / "run")
    start(tmp_path / "whole")
    trainer = start(tmp_path / "copy")

    whole, copy = (tree(tmp_path / name) for name in ("whole", "copy"))
    assert Path(str(trainer.loaded_ckpt_path)).is_relative_to(tmp_path / "copy")
    assert copy.keys() == whole.keys()
    assert copy["lightning_logs/version_0/metrics.csv"] == whole["lightning_logs/version_0/metrics.csv"]
    assert tree(tmp_path / "run") == before


def test_run_goes_on_after_an_evaluation_of_its_newest_state_as_if_there_had_been_none(tmp_path):
    start(tmp_path / "whole")
    start(tmp_path / "run", stop_at=7)
    other = trainer_of(str(tmp_path / "run"), [])
    other.validate(Model(), DataLoader(TensorDataset(torch.ones(2, 4))), ckpt_path="auto", verbose=False)
    trainer = start(tmp_path / "run")

    whole, run = tree(tmp_path / "whole"), tree(tmp_path / "run")
    assert trainer.logger.version == 0
    assert run["lightning_logs/version_0/metrics.csv"] == whole["lightning_logs/version_0/metrics.csv"]


def test_another_verb_without_a_state_is_an_error_that_says_so(tmp_path):
    with pytest.raises(ValueError, match=r"trainer\.validate\(ckpt_path='auto'\).*there is none"):
        trainer_of(str(tmp_path), []).validate(Model(), DataLoader(TensorDataset(torch.ones(2, 4))), ckpt_path="auto")


# -- the other names --------------------------------------------------------------------------------------------------


def _fit(folder: Path, callback: ModelCheckpoint, ckpt_path: str) -> Any:
    trainer = trainer_of(str(folder), [callback], logger=False)
    data = DataLoader(TensorDataset(torch.ones(12, 4)), 2)
    trainer.fit(Model(), data, data, ckpt_path=ckpt_path)
    return trainer


def test_last_is_the_newest_by_the_index_whatever_the_times_of_the_files_are(tmp_path):
    start(tmp_path, ModelCheckpoint(tmp_path / "c", save_top_k=-1), logger=False, stop_at=13)
    os.utime(tmp_path / "c" / "epoch=0-step=3.ckpt", (2_000_000_000, 2_000_000_000))
    trainer = _fit(tmp_path, ModelCheckpoint(tmp_path / "c", save_top_k=-1), "last")

    assert trainer.loaded_ckpt_path == str(tmp_path / "c" / "epoch=1-step=6.ckpt")


@pytest.mark.parametrize("arguments", [{"monitor": "v", "save_top_k": -1, "mode": "max"}, {"save_last": True}])
def test_best_is_known_in_another_process(tmp_path, arguments):
    callback = ModelCheckpoint(**arguments)
    start(tmp_path, callback)
    other = trainer_of(str(tmp_path), [ModelCheckpoint(**arguments)])
    other.validate(Model(), DataLoader(TensorDataset(torch.ones(2, 4))), ckpt_path="best", verbose=False)

    assert other.loaded_ckpt_path == callback.best_model_path


@pytest.mark.parametrize("harm", [flip_a_bit, lambda path: os.truncate(path, 2000)])
def test_path_of_a_damaged_file_is_an_error_that_names_the_newest_whole_one(tmp_path, harm):
    start(tmp_path, ModelCheckpoint(tmp_path / "c", save_top_k=-1), logger=False)
    damaged = tmp_path / "c" / "epoch=1-step=6.ckpt"
    harm(damaged)
    with pytest.raises(RuntimeError, match=r"epoch=1-step=6\.ckpt is damaged.*whole is 'epoch=2-step=9\.ckpt'"):
        _fit(tmp_path, ModelCheckpoint(tmp_path / "c"), str(damaged))


def test_path_of_a_file_that_the_user_wrote_over_is_taken(tmp_path):
    start(tmp_path, ModelCheckpoint(tmp_path / "c", save_top_k=-1), logger=False)
    path = tmp_path / "c" / "epoch=1-step=6.ckpt"
    os.replace(tmp_path / "c" / "epoch=0-step=3.ckpt", path)
    trainer = _fit(tmp_path, ModelCheckpoint(tmp_path / "c", save_top_k=-1), str(path))

    assert trainer.current_epoch == 3


def test_hpc_is_the_file_with_the_highest_number_that_lightning_left(tmp_path):
    start(tmp_path / "run", ModelCheckpoint(tmp_path / "c"), logger=False)
    for number in (2, 10):
        (tmp_path / f"hpc_ckpt_{number}.ckpt").write_bytes((tmp_path / "c" / "epoch=2-step=9.ckpt").read_bytes())
    trainer = _fit(tmp_path, ModelCheckpoint(tmp_path / "d"), "hpc")

    assert trainer.loaded_ckpt_path == str(tmp_path / "hpc_ckpt_10.ckpt")


def test_hpc_that_is_not_there_is_an_error_that_names_auto(tmp_path):
    with pytest.raises(ValueError, match=r"ckpt_path='hpc'.*ckpt_path='auto'"):
        _fit(tmp_path, ModelCheckpoint(tmp_path / "c"), "hpc")
