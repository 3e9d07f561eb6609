"""Classes of other packages that override the inside of Lightning's ModelCheckpoint and EarlyStopping."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader

from fulmen import LightningModule, Trainer
from fulmen.callbacks import EarlyStopping, ModelCheckpoint


class Model(LightningModule):
    """Its ``score`` is what ``scores`` say, epoch by epoch."""

    scores = (3.0, 1.0, 2.0)

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(2, 1)

    def training_step(self, batch: Any, batch_idx: int) -> Any:
        self.log("score", self.scores[self.current_epoch], on_step=False, on_epoch=True)
        return self.layer(batch).sum()

    def configure_optimizers(self) -> Any:
        return torch.optim.SGD(self.parameters(), lr=0.1)

    def train_dataloader(self) -> Any:
        return DataLoader(torch.ones(4, 2), batch_size=2)  # type: ignore[arg-type]


def fit(*callbacks: Any, epochs: int = 3) -> Trainer:
    trainer = Trainer(
        max_epochs=epochs,
        logger=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        enable_checkpointing=any(isinstance(callback, ModelCheckpoint) for callback in callbacks),
        callbacks=[*callbacks],
    )
    trainer.fit(Model())
    return trainer


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir() if path.name != "checkpoints.json")


def test_a_class_that_sends_each_file_somewhere_is_called_for_each_with_the_file_there(tmp_path: Path) -> None:
    sent: list[tuple[str, bool]] = []
    removed: list[str] = []

    class Sends(ModelCheckpoint):
        def _save_checkpoint(self, trainer: Trainer, filepath: str) -> None:
            super()._save_checkpoint(trainer, filepath)
            sent.append((Path(filepath).name, Path(filepath).is_file()))

        def _remove_checkpoint(self, trainer: Trainer, filepath: str) -> None:
            super()._remove_checkpoint(trainer, filepath)
            removed.append(Path(filepath).name)

    fit(Sends(tmp_path, monitor="score", filename="{epoch}", save_last=True))
    assert sent == [(name, True) for name in ("epoch=0.ckpt", "last.ckpt", "epoch=1.ckpt", *["last.ckpt"] * 3)]
    assert removed == ["epoch=0.ckpt"]
    assert names(tmp_path) == ["epoch=1.ckpt", "last.ckpt"]


def test_a_class_that_writes_a_folder_in_the_place_of_the_file_keeps_the_best_folder(tmp_path: Path) -> None:
    class Folders(ModelCheckpoint):
        def _save_checkpoint(self, trainer: Trainer, filepath: str) -> None:
            folder = Path(filepath.removesuffix(".ckpt"))
            folder.mkdir()
            torch.save(trainer.lightning_module.state_dict(), folder / "weights.pt")
            self._last_global_step_saved = trainer.global_step
            self._last_checkpoint_saved = str(folder)

        def _remove_checkpoint(self, trainer: Trainer, filepath: str) -> None:
            shutil.rmtree(filepath.removesuffix(".ckpt"))

    checkpoint = Folders(tmp_path, monitor="score", filename="{epoch}", save_last=False)
    fit(checkpoint)
    assert names(tmp_path) == ["epoch=1"]
    assert checkpoint.best_model_path == str(tmp_path / "epoch=1.ckpt")


def test_a_class_that_takes_the_file_away_after_each_save_is_not_warned_of_it(tmp_path: Path) -> None:
    class Replaces(ModelCheckpoint):
        def _update_best_and_save(self, current: Tensor, trainer: Trainer, monitor_candidates: Any) -> None:
            super()._update_best_and_save(current, trainer, monitor_candidates)
            seen.append((current.item(), self.best_model_score.item()))  # type: ignore[union-attr]
            path = Path(self.best_model_path)
            if path.is_file():
                path.rename(path.with_suffix(".moved"))

    seen: list[tuple[float, float]] = []
    fit(Replaces(tmp_path, monitor="score", filename="{epoch}", save_top_k=2, save_last=False))
    assert seen == [(3.0, 3.0), (1.0, 1.0), (2.0, 1.0)]
    assert [name for name in names(tmp_path) if name.endswith(".moved")] == ["epoch=0.moved", "epoch=1.moved"]


def test_a_metric_that_a_class_adds_to_the_candidates_is_monitored(tmp_path: Path) -> None:
    class Negated(ModelCheckpoint):
        def _monitor_candidates(self, trainer: Trainer) -> dict[str, Tensor]:
            candidates = super()._monitor_candidates(trainer)
            return {**candidates, "negated": -candidates["score"]}

    checkpoint = Negated(tmp_path, monitor="negated", filename="{epoch}-{negated:.0f}")
    fit(checkpoint)
    assert Path(checkpoint.best_model_path).name == "epoch=0-negated=-3.ckpt"


def test_what_a_class_saves_in_the_place_of_the_best_and_the_last_is_its_own(tmp_path: Path) -> None:
    class Local(ModelCheckpoint):
        def _save_topk_checkpoint(self, trainer: Trainer, monitor_candidates: dict[str, Tensor]) -> None:
            called.append(("topk", trainer.global_step))

        def _save_last_checkpoint(self, trainer: Trainer, monitor_candidates: dict[str, Tensor]) -> None:
            called.append(("last", trainer.global_step))

    called: list[tuple[str, int]] = []
    fit(Local(tmp_path, every_n_train_steps=3, save_last=False))
    assert called == [("topk", 3), ("last", 3), ("topk", 6), ("last", 6)]


def test_a_class_decides_when_it_saves_and_when_it_does_not(tmp_path: Path) -> None:
    class Decides(ModelCheckpoint):
        def _should_save_on_train_epoch_end(self, trainer: Trainer) -> bool:
            asked.append(self._save_on_train_epoch_end)
            return True

        def _should_skip_saving_checkpoint(self, trainer: Trainer) -> bool:
            return super()._should_skip_saving_checkpoint(trainer) or self._last_global_step_saved == 4

    asked: list[Any] = []
    fit(Decides(tmp_path, filename="{epoch}", save_top_k=-1, save_last=False))
    assert asked
    assert names(tmp_path) == ["epoch=0.ckpt", "epoch=1.ckpt"]


def test_private_names_of_the_class_are_windows_onto_its_parts(tmp_path: Path) -> None:
    checkpoint = ModelCheckpoint(tmp_path, every_n_train_steps=4, save_on_train_epoch_end=True)
    assert (checkpoint._every_n_train_steps, checkpoint._every_n_epochs, checkpoint._train_time_interval) == (
        4,
        0,
        None,
    )
    assert (checkpoint._save_on_train_epoch_end, checkpoint._enable_version_counter) == (True, True)
    assert (checkpoint._last_global_step_saved, checkpoint._last_checkpoint_saved) == (0, "")
    fit(checkpoint)
    assert checkpoint._last_checkpoint_saved == checkpoint.best_model_path
    assert checkpoint._fs.exists(checkpoint.best_model_path)


@pytest.mark.parametrize(
    ("name", "instead"), [("_link_checkpoint", "save_last='link'"), ("_should_remove_checkpoint", "_remove_checkpoint")]
)
def test_a_class_with_an_override_that_is_not_called_is_told_so_when_it_is_defined(name: str, instead: str) -> None:
    with pytest.warns(UserWarning, match=rf"Own\.{name}` is not called.*{instead}"):
        type("Own", (ModelCheckpoint,), {name: lambda *args: None})


# -- early stopping ---------------------------------------------------------------------------------------------------


def test_a_class_that_waits_with_its_criteria_stops_after_that_and_hears_the_reason() -> None:
    class Warm(EarlyStopping):
        checks = 0

        def _evaluate_stopping_criteria(self, current: Tensor) -> tuple[bool, str | None]:
            self.checks += 1
            if self.checks <= 2:
                return False, "too early"
            stops, reason = super()._evaluate_stopping_criteria(current)
            heard.append((stops, reason))
            return stops, reason

    heard: list[Any] = []
    stopping = Warm("score", stopping_threshold=2.5)
    trainer = fit(stopping)
    assert trainer.current_epoch == 3
    assert stopping.stopped_epoch == 2
    assert heard[0][0] is True
    assert "score = 2" in heard[0][1]


def test_a_class_that_stops_for_a_reason_of_its_own_stops_the_training() -> None:
    class Own(EarlyStopping):
        def _evaluate_stopping_criteria(self, current: Tensor) -> tuple[bool, str | None]:
            return current < 2, "small enough"

    stopping = Own("score")
    assert fit(stopping).current_epoch == 2
    assert stopping.stopping_reason_message == "small enough"
