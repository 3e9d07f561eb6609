"""What callbacks remember of a training: the next one goes on with it, or begins anew, by one rule for all of them."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import pytest
import torch

from fulmen import Callback, Trainer
from fulmen.callbacks import EarlyStopping, ModelCheckpoint, Timer
from fulmen.demos.boring_classes import BoringModel

pytestmark = pytest.mark.filterwarnings("ignore:.*is not empty", "ignore:.*nothing to train")


class Scored(BoringModel):
    """Logs the given values as ``v``, one for each epoch."""

    def __init__(self, *values: float) -> None:
        super().__init__()
        self.values = list(values)

    def on_train_epoch_end(self) -> None:
        self.log("v", self.values.pop(0))


class Remembering:
    """One of each callback, and what they know."""

    def __init__(self, folder: Path) -> None:
        self.stop = EarlyStopping("v", patience=100)
        self.best = ModelCheckpoint(folder, monitor="v", filename="{v:.0f}", save_last=True)
        self.timer = Timer()

    def copied(self) -> Remembering:
        return copy.deepcopy(self)

    @property
    def callbacks(self) -> list[Callback]:
        return [self.stop, self.best, self.timer]

    @property
    def known(self) -> tuple[float, int, str]:
        return float(self.stop.best_score), self.stop.wait_count, Path(self.best.best_model_path).stem


def trainer_of(folder: Path, callbacks: list[Callback], epochs: int) -> Trainer:
    return Trainer(
        default_root_dir=folder,
        accelerator="cpu",
        max_epochs=epochs,
        limit_train_batches=2,
        limit_val_batches=0,
        logger=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        callbacks=callbacks,
    )


@pytest.fixture
def trained(tmp_path) -> tuple[Remembering, Trainer, Scored]:
    """After two epochs, of which the first was the better one."""
    memory, model = Remembering(tmp_path / "files"), Scored(2.0, 3.0, 4.0)
    trainer = trainer_of(tmp_path, memory.callbacks, 2)
    trainer.fit(model)
    assert memory.known == (2.0, 1, "v=2")
    memory.timer._train_time_before = 1000.0
    return memory, trainer, model


def test_second_fit_of_the_same_model_goes_on(trained):
    memory, trainer, model = trained
    trainer.max_epochs = 3

    trainer.fit(model)

    assert memory.known == (2.0, 2, "v=2")
    assert memory.timer.time_elapsed() > 1000


def test_another_model_begins_anew(trained):
    memory, trainer, _ = trained

    trainer.fit(Scored(9.0, 8.0))

    assert memory.known == (8.0, 0, "v=8")
    assert memory.timer.time_elapsed() < 1000


@pytest.mark.parametrize("used", [False, True])
def test_checkpoint_gives_the_memory_back(used, trained, tmp_path):
    """Also to callbacks that have trained another model meanwhile."""
    memory, trainer, _ = trained
    last = tmp_path / "kept.ckpt"
    last.write_bytes(Path(memory.best.last_model_path).read_bytes())
    if used:
        trainer.fit(Scored(1.0, 0.0))
    else:
        memory = Remembering(tmp_path / "files")
    trainer = trainer_of(tmp_path, memory.callbacks, 3)
    (tmp_path / "files" / "v=2.ckpt").write_bytes(last.read_bytes())

    trainer.fit(Scored(4.0), ckpt_path=last)

    assert memory.known == (2.0, 2, "v=2")
    assert memory.timer.time_elapsed() < 1000


def test_another_model_begins_anew_after_a_fit_that_had_nothing_left_to_do(trained, tmp_path):
    memory, trainer, _ = trained
    trainer.fit(Scored(), ckpt_path=memory.best.last_model_path)
    assert memory.known == (2.0, 1, "v=2")

    trainer.fit(Scored(9.0, 8.0))

    assert memory.known == (8.0, 0, "v=8")


class Touch(Callback):
    """Changes at the start of training what a checkpoint has given back, so that it is given back once more."""

    def on_train_start(self, trainer: Trainer, *args: Any) -> None:
        trainer.early_stopping_callback.wait_count += 1


def test_another_model_begins_anew_after_a_memory_that_was_given_back_twice(trained, tmp_path):
    memory, _, _ = trained
    trainer = trainer_of(tmp_path, [Touch(), *memory.callbacks], 3)
    trainer.fit(Scored(4.0), ckpt_path=memory.best.last_model_path)
    assert memory.known == (2.0, 2, "v=2")

    trainer.callbacks.pop(0)
    trainer.fit(Scored(9.0, 8.0, 7.0))

    assert memory.known == (7.0, 0, "v=7")


def test_copy_begins_anew_with_another_trainer_and_leaves_the_original_alone(trained, tmp_path):
    memory, _, _ = trained
    copied = memory.copied()

    trainer_of(tmp_path, copied.callbacks, 2).fit(Scored(9.0, 8.0))

    assert copied.known == (8.0, 0, "v=8")
    assert copied.timer.time_elapsed() < 1000
    assert memory.known == (2.0, 1, "v=2")


def test_copy_goes_on_in_the_place_of_the_original(trained):
    memory, trainer, model = trained
    copied = memory.copied()
    trainer.callbacks[:] = [*copied.callbacks]
    trainer.max_epochs = 3

    trainer.fit(model)

    assert copied.known == (2.0, 2, "v=2")


def test_checkpoint_of_a_run_without_the_callbacks_gives_them_no_memory(trained, tmp_path):
    memory, _, _ = trained
    plain = trainer_of(tmp_path, [ModelCheckpoint(tmp_path / "others")], 1)
    plain.fit(Scored(5.0))
    trainer = trainer_of(tmp_path, memory.callbacks, 2)

    with pytest.warns(UserWarning, match="does not have"):
        trainer.fit(Scored(6.0), ckpt_path=plain.checkpoint_callback.best_model_path)

    assert memory.known == (6.0, 0, "v=6")
    assert memory.timer.time_elapsed() < 1000


def test_memory_given_by_hand_is_kept_by_the_first_training(tmp_path):
    memory = Remembering(tmp_path / "files")
    memory.stop.load_state_dict({"wait_count": 7, "best_score": torch.tensor(1.0)})

    trainer_of(tmp_path, memory.callbacks, 1).fit(Scored(5.0))

    assert memory.stop.wait_count == 8
