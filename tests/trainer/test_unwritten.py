"""An error about a file of the run says what is safe and what to do, and leaves out how the file came to be written."""

from __future__ import annotations

import errno
import resource
import traceback
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from fulmen import Callback, Trainer
from fulmen.callbacks import ModelCheckpoint
from fulmen.demos.boring_classes import BoringModel


@pytest.fixture(autouse=True)
def limit_of_files() -> Iterator[None]:
    """Sizes of files are as they were when a test is over."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    yield
    resource.setrlimit(resource.RLIMIT_FSIZE, before)


class Act(Callback):
    """Does something after a batch."""

    def __init__(self, act: Callable[[Trainer], None], batch: int = 3) -> None:
        self.act, self.batch = act, batch

    def on_train_batch_end(self, trainer: Trainer, *args: Any) -> None:
        if trainer.global_step == self.batch:
            self.act(trainer)


def error_of(folder: Path, act: Callable[[Trainer], None], **policy: Any) -> OSError:
    """What ``fit`` raises."""
    trainer = Trainer(
        default_root_dir=folder,
        accelerator="cpu",
        max_steps=8,
        limit_val_batches=0,
        enable_progress_bar=False,
        enable_model_summary=False,
        callbacks=[Act(act), ModelCheckpoint(folder / "files", every_n_train_steps=2, filename="{step}", **policy)],
    )
    with pytest.raises(OSError) as caught:
        trainer.fit(BoringModel())
    return caught.value


def no_room(trainer: Trainer) -> None:
    resource.setrlimit(resource.RLIMIT_FSIZE, (400, resource.getrlimit(resource.RLIMIT_FSIZE)[1]))


def files_in(error: OSError) -> list[str]:
    return [Path(frame.filename).name for frame in traceback.extract_tb(error.__traceback__)]


def test_error_about_a_checkpoint_names_it_the_newest_whole_one_and_what_to_do(tmp_path):
    error = error_of(tmp_path, no_room)

    assert (error.errno, error.filename) == (errno.EFBIG, str(tmp_path / "files" / "step=4.ckpt"))
    assert str(error) == (
        f"[Errno 27] File too large. What was written before is whole; the newest checkpoint is "
        f"{tmp_path / 'files' / 'step=2.ckpt'}. Lift the limit on the size of files (`ulimit -f`), then run the same "
        f"command again with ckpt_path=\"auto\", to go on from it. Not written: '{error.filename}'"
    )
    assert error.__suppress_context__
    assert files_in(error) == ["test_unwritten.py", "trainer.py", "trainer.py"]


def test_traceback_shows_the_line_of_the_user_that_wanted_the_file(tmp_path):
    def save(trainer: Trainer) -> None:
        no_room(trainer)
        trainer.save_checkpoint(tmp_path / "files" / "mine.ckpt")

    error = error_of(tmp_path, save, save_top_k=0)

    assert "No checkpoint was written before." in str(error)
    assert files_in(error)[-2:] == ["test_unwritten.py", "trainer.py"]


@pytest.mark.parametrize("place", ["elsewhere/data.bin", None])
def test_error_of_the_users_own_files_stays_as_it_is(place, tmp_path):
    path = None if place is None else str(tmp_path / place)

    def fail(trainer: Trainer) -> None:
        raise OSError(errno.ENOSPC, "the user's disk", path)

    error = error_of(tmp_path, fail)

    assert (error.strerror, error.filename) == ("the user's disk", path)
    assert files_in(error)[-1] == "test_unwritten.py"
