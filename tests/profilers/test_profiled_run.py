"""What a profiler hears of a real run."""

from __future__ import annotations

import pytest
from torch.optim import SGD

from fulmen import Trainer, profilers
from fulmen.demos.boring_classes import BoringDataModule, BoringModel, ManualOptimBoringModel
from fulmen.profilers.simple import SimpleProfiler
from fulmen.utilities.exceptions import MisconfigurationException
from fulmen.utilities.imports import package_available


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


def test_optimizer_that_calls_the_step_it_is_derived_from_is_measured_once_a_step(trainer_of):
    class Derived(SGD):
        def step(self, closure=None):
            return super().step(closure)

    class Model(BoringModel):
        def configure_optimizers(self):
            SGD(self.parameters(), lr=1.0)  # from now on torch announces its steps
            return Derived(self.parameters(), lr=0.1)

    profiler = SimpleProfiler()
    trainer_of(max_steps=3, profiler=profiler).fit(Model())
    assert len(profiler.recorded_durations["[Optimizer]Derived.step"]) == 3


def test_run_that_raises_is_reported_all_the_same(trainer_of, capsys):
    class Raising(BoringModel):
        def on_train_start(self):
            raise KeyError("no")

    with pytest.raises(KeyError):
        trainer_of(max_epochs=1, profiler="simple").fit(Raising())
    assert "[LightningModule]Raising.on_train_start" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("time", profilers.TimeProfiler),
        ("Simple", profilers.SimpleProfiler),
        ("advanced", profilers.AdvancedProfiler),
        ("pytorch", profilers.PyTorchProfiler),
    ],
)
def test_profiler_by_name(name, kind, trainer_of):
    assert type(trainer_of(profiler=name).profiler) is kind


def test_profiler_of_an_unknown_name_is_refused_with_the_known_ones(trainer_of):
    with pytest.raises(
        MisconfigurationException, match="'fast'`: must be 'time', 'simple', 'advanced', 'pytorch', 'xla'"
    ):
        trainer_of(profiler="fast")


@pytest.mark.skipif(package_available("torch_xla"), reason="it is there")
def test_xla_profiler_without_torch_xla_says_what_to_install(trainer_of):
    with pytest.raises(ModuleNotFoundError, match=r"XLAProfiler needs torch_xla.*pip install 'torch_xla'"):
        trainer_of(profiler="xla")
