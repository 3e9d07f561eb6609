"""A run ends when its loss is a spike, on all processes alike."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from tests.distributed.processes import run
from torch import Tensor, nn
from torch.utils.data import DataLoader

import fulmen.utilities.spike
from fulmen import Callback, LightningModule, Trainer
from fulmen.callbacks import SpikeDetection
from fulmen.utilities.exceptions import MisconfigurationException
from fulmen.utilities.spike import TrainingSpikeException


class Told(LightningModule):
    """Its loss is the number that the batch has."""

    def __init__(self, form: str = "loss", automatic: bool = True) -> None:
        super().__init__()
        self.layer = nn.Linear(1, 1)
        self.form, self.automatic_optimization = form, automatic

    def training_step(self, batch: Tensor, batch_idx: int) -> Any:
        loss = batch.mean() + 0 * self.layer(batch[:, None].float()).sum()
        if self.form == "sum":
            return {"loss_sum": loss * 4, "weight": 4}
        return {"dict": {"loss": loss}, "none": None}.get(self.form, loss)

    def configure_optimizers(self) -> Any:
        return torch.optim.SGD(self.parameters(), lr=0.1)


def fit(
    losses: list[float], detection: SpikeDetection, folder: Path, module: Told | None = None, **flags: Any
) -> Trainer:
    quiet = {
        "logger": False,
        "enable_progress_bar": False,
        "enable_model_summary": False,
        "enable_checkpointing": False,
    }
    path, callbacks = flags.pop("ckpt_path", None), [detection, *flags.pop("callbacks", [])]
    trainer = Trainer(
        **{**quiet, "accelerator": "cpu", "max_epochs": 1, "default_root_dir": folder, **flags}, callbacks=callbacks
    )
    trainer.fit(module or Told(), DataLoader(torch.tensor(losses)), ckpt_path=path)  # type: ignore[arg-type]
    return trainer


@pytest.mark.parametrize("form", ["loss", "dict", "sum"])
@pytest.mark.parametrize("accumulate", [1, 2, 4])
def test_run_ends_at_a_spike_and_its_batch_is_noted(form: str, accumulate: int, tmp_path: Path) -> None:
    losses = [1.0, 1.1, 0.9, 1.0, 1.0, 7.0, 1.0]
    with pytest.raises(TrainingSpikeException, match="in batch 5: the loss is 7"):
        fit(losses, SpikeDetection(), tmp_path, Told(form), accumulate_grad_batches=accumulate)
    assert json.loads((tmp_path / "skip_batches.json").read_text()) == [4, 5]


@pytest.mark.parametrize("accumulate", [1, 4])  # the last window has two batches
def test_run_without_a_spike_ends_well(accumulate: int, tmp_path: Path) -> None:
    fit([1.0, 1.2, 0.9, 1.1, 1.0, 1.0], SpikeDetection(rtol=0.5), tmp_path, accumulate_grad_batches=accumulate)
    assert list(tmp_path.iterdir()) == []


def test_batches_that_are_left_out_are_not_looked_at(tmp_path: Path) -> None:
    class LeavesOut(Told):
        def training_step(self, batch: Tensor, batch_idx: int) -> Any:
            return None if batch_idx == 2 else super().training_step(batch, batch_idx)

    fit([1.0, 1.0, 99.0, 1.0], SpikeDetection(), tmp_path, LeavesOut())


def test_callback_is_of_the_class_for_loops_of_ones_own() -> None:
    assert issubclass(SpikeDetection, fulmen.utilities.spike.SpikeDetection)


class Manual(Told):
    def training_step(self, batch: Tensor, batch_idx: int) -> Any:
        loss = super().training_step(batch, batch_idx)
        self.optimizers().step()
        return loss


def test_manual_optimization_gives_its_loss_back(tmp_path: Path) -> None:
    with pytest.raises(TrainingSpikeException):
        fit([1.0, 1.0, 7.0], SpikeDetection(), tmp_path, Manual(automatic=False))
    with pytest.raises(MisconfigurationException, match="write `return loss`"):
        fit([1.0, 1.0, 7.0], SpikeDetection(), tmp_path, Manual("none", automatic=False))


class StopAfter(Callback):
    def __init__(self, path: Path, batches: int) -> None:
        self.path, self.batches = path, batches

    def on_train_batch_end(self, trainer: Trainer, *args: Any, **more: Any) -> None:
        if trainer.progress.total_batches == self.batches:
            trainer.save_checkpoint(self.path)
            trainer.should_stop = True


@pytest.mark.parametrize("stop", [1, 3, 5])
def test_resumed_run_ends_at_the_spike_of_the_run_that_never_stopped(stop: int, tmp_path: Path) -> None:
    losses: list[float] = [4.0, 2.0, 1.0, 2.0, 1.0, 5.0, 1.0]
    settings: dict[str, Any] = {"window": 3}
    with pytest.raises(TrainingSpikeException) as expected:
        fit(losses, SpikeDetection(**settings), tmp_path)
    path = tmp_path / "state.ckpt"
    fit(losses, SpikeDetection(**settings), tmp_path, callbacks=[StopAfter(path, stop)])
    with pytest.raises(TrainingSpikeException) as caught:
        fit(losses, SpikeDetection(**settings), tmp_path, ckpt_path=path)
    assert str(caught.value) == str(expected.value)


# -- several processes ------------------------------------------------------------------------------------------------


def on_two(losses: list[float], folder: Path) -> tuple[str, Any]:
    """The batches go to two processes in turn; ends at the spike."""
    detection = SpikeDetection()
    try:
        fit(losses, detection, folder, strategy="ddp", devices=2)
    except TrainingSpikeException as error:
        noted = json.loads((folder / "skip_batches.json").read_text())
        return str(error), noted
    return "", detection.state_dict()


def test_spike_of_one_process_is_one_of_all_of_them(tmp_path: Path) -> None:
    first, second = run(2, on_two, [1.0, 30.0, 1.0, 30.0, 1.0, 99.0, 1.0, 30.0], tmp_path)
    assert first == second
    assert first[0].startswith("Training spike detected in batch 2: the loss of rank 1 is 99")
    assert first[1] == [1, 2]


def test_processes_know_the_losses_of_all_and_end_together_when_one_has_a_batch_less(tmp_path: Path) -> None:
    first, second = run(2, on_two, [1.0, 2.0, 1.0, 2.0, 1.0], tmp_path)
    assert first == second
    counts = [history["count"] for history in first[1]["histories"]]
    assert counts == [3, 2]
