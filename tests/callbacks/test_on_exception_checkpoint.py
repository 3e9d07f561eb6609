"""OnExceptionCheckpoint: what a run that breaks off leaves, and who takes it up."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from fulmen import Trainer
from fulmen.callbacks.on_exception_checkpoint import OnExceptionCheckpoint
from fulmen.demos.boring_classes import BoringModel


class Breaks(BoringModel):
    """Raises in the given training step; never, if it is None."""

    def __init__(self, at: int | None) -> None:
        super().__init__()
        self.at = at

    def training_step(self, batch: Any, batch_idx: int) -> Any:
        if self.trainer.global_step == self.at:
            raise RuntimeError("broken")
        return super().training_step(batch, batch_idx)


def _trainer(callback: OnExceptionCheckpoint) -> Trainer:
    return Trainer(
        accelerator="cpu",
        max_epochs=2,
        limit_train_batches=3,
        limit_val_batches=1,
        logger=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        callbacks=[callback],
    )


def test_run_that_breaks_off_leaves_a_file(tmp_path):
    callback = OnExceptionCheckpoint(tmp_path, "rescue")
    with pytest.raises(RuntimeError, match="broken"):
        _trainer(callback).fit(Breaks(at=4))

    assert callback.ckpt_path == str(tmp_path / "rescue.ckpt")
    assert torch.load(callback.ckpt_path, weights_only=True)["global_step"] == 4


def test_next_run_goes_on_from_the_file_and_removes_it_when_it_ends_well(tmp_path):
    callback = OnExceptionCheckpoint(tmp_path)
    with pytest.raises(RuntimeError, match="broken"):
        _trainer(callback).fit(Breaks(at=4))
    trainer = _trainer(OnExceptionCheckpoint(tmp_path))
    with pytest.warns(UserWarning, match="on_exception"):
        trainer.fit(Breaks(at=None))

    assert trainer.global_step == 6
    assert list(tmp_path.iterdir()) == []


def test_run_that_ends_well_leaves_no_file(tmp_path):
    _trainer(OnExceptionCheckpoint(tmp_path)).fit(Breaks(at=None))

    assert list(tmp_path.iterdir()) == []


def test_another_verb_leaves_the_file_where_it_is(tmp_path):
    callback = OnExceptionCheckpoint(tmp_path)
    with pytest.raises(RuntimeError, match="broken"):
        _trainer(callback).fit(Breaks(at=4))
    _trainer(callback).validate(Breaks(at=None), verbose=False)

    assert sorted(path.name for path in tmp_path.glob("*.ckpt")) == ["on_exception.ckpt"]


def test_error_while_validating_alone_leaves_no_file(tmp_path):
    class Invalid(BoringModel):
        def validation_step(self, batch: Any, batch_idx: int) -> Any:
            raise RuntimeError("broken")

    with pytest.raises(RuntimeError, match="broken"):
        _trainer(OnExceptionCheckpoint(tmp_path)).validate(Invalid())

    assert list(tmp_path.iterdir()) == []


def test_empty_name_is_refused(tmp_path):
    with pytest.raises(ValueError, match="filename=''"):
        OnExceptionCheckpoint(tmp_path, "")


def test_folder_in_the_home_directory_is_found_again_and_left_empty(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.chdir(tmp_path)
    with pytest.raises(RuntimeError, match="broken"):
        _trainer(OnExceptionCheckpoint("~/rescued")).fit(Breaks(at=4))
    assert (tmp_path / "home" / "rescued" / "on_exception.ckpt").exists()
    trainer = _trainer(OnExceptionCheckpoint("~/rescued"))
    with pytest.warns(UserWarning, match="on_exception"):
        trainer.fit(Breaks(at=None))

    assert trainer.global_step == 6
    assert [path.name for path in tmp_path.rglob("*")] == ["home", "rescued"]
