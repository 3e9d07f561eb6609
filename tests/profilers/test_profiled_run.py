"""What a profiler hears of a real run."""

from __future__ import annotations

import pytest

from fulmen import Trainer
from fulmen.demos.boring_classes import BoringDataModule, BoringModel, ManualOptimBoringModel
from fulmen.profilers.simple import SimpleProfiler


@pytest.mark.parametrize("model", [BoringModel, ManualOptimBoringModel])
def test_profiled_run_measures_steps_data_and_the_optimizer(model, capsys):
    profiler = SimpleProfiler()
    trainer = Trainer(
        max_epochs=1,
        limit_train_batches=4,
        limit_val_batches=2,
        num_sanity_val_steps=0,
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        profiler=profiler,
    )
    trainer.fit(model(), datamodule=BoringDataModule())

    report = capsys.readouterr().out
    calls = {action: len(durations) for action, durations in profiler.recorded_durations.items()}
    assert calls["[Optimizer]SGD.step"] == 4
    assert calls[f"[LightningModule]{model.__name__}.training_step"] == 4
    assert calls["[Data]train_dataloader.next"] == 4
    assert calls["[Data]val_dataloader.next"] >= 2
    assert "[Optimizer]SGD.step" in report


def test_profiled_run_leaves_no_hook_on_the_optimizer():
    model = BoringModel()
    trainer = Trainer(
        max_steps=1,
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        profiler="simple",
    )
    trainer.fit(model, datamodule=BoringDataModule())

    (optimizer,) = trainer.optimizers
    assert not optimizer._optimizer_step_pre_hooks
    assert not optimizer._optimizer_step_post_hooks
