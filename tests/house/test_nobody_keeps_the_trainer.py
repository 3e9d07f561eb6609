"""After a run only the module, the datamodule and the caller refer to the trainer."""

from __future__ import annotations

import gc
import inspect
import weakref
from pathlib import Path

import pytest
from torch import Tensor

import fulmen.callbacks
from fulmen import Callback, LightningDataModule, Trainer
from fulmen.loggers import CSVLogger

from .toys import Toy, loader


class Data(LightningDataModule):
    def train_dataloader(self) -> object:
        return loader(4)

    def val_dataloader(self) -> object:
        return loader(2)

    test_dataloader = predict_dataloader = val_dataloader


class Evaluated(Toy):
    def training_step(self, batch: Tensor, batch_idx: int) -> Tensor:
        loss = super().training_step(batch, batch_idx)
        self.log("train_loss", loss, prog_bar=True)
        return loss

    def validation_step(self, batch: Tensor, batch_idx: int) -> None:
        self.log("val_loss", super().training_step(batch, batch_idx))

    def test_step(self, batch: Tensor, batch_idx: int) -> None:
        self.log("test_loss", super().training_step(batch, batch_idx))


NEEDED_ARGUMENTS = {"monitor": "val_loss", "scheduling": {0: 1}, "swa_lrs": 0.01, "write_interval": "batch"}
OF_NO_USE_HERE = {
    "BaseFinetuning",  # to be derived from, as the next one
    "BasePredictionWriter",
    "OnExceptionCheckpoint",
    "BackboneFinetuning",
    "BatchSizeFinder",
    "LearningRateFinder",
    "ModelPruning",
    "DeviceStatsMonitor",
}


def every_callback() -> list[Callback]:
    """One of each class in ``fulmen.callbacks`` that can be made with few arguments; of the progress bars, one."""
    made = []
    for name in fulmen.callbacks.__all__:
        cls = getattr(fulmen.callbacks, name)
        if inspect.isabstract(cls) or name in OF_NO_USE_HERE or "Progress" in name or "Summary" in name:
            continue
        needed = {
            parameter.name: NEEDED_ARGUMENTS.get(parameter.name)
            for parameter in inspect.signature(cls).parameters.values()
            if parameter.default is parameter.empty
            and parameter.kind not in (parameter.VAR_KEYWORD, parameter.VAR_POSITIONAL)
        }
        if None not in needed.values():
            made.append(cls(**needed))
    return made


@pytest.mark.filterwarnings("ignore")  # some callbacks have nothing to do here, and say so
def test_nothing_but_module_and_datamodule_keeps_the_trainer(tmp_path: Path) -> None:
    callbacks, logger, data = every_callback(), CSVLogger(tmp_path), Data()
    trainer = Trainer(
        max_epochs=2,
        accelerator="cpu",
        default_root_dir=tmp_path,
        logger=logger,
        callbacks=callbacks,
        log_every_n_steps=1,
    )
    model = Evaluated()
    trainer.fit(model, datamodule=data)
    trainer.test(model, datamodule=data)
    trainer.predict(model, datamodule=data)
    kept = [trainer.callbacks, trainer.loggers, trainer.strategy, trainer.profiler, trainer.optimizers, logger]
    assert len(callbacks) >= 5

    gone = weakref.ref(trainer)
    model.trainer = data.trainer = None  # type: ignore[assignment]
    del trainer
    gc.collect()
    assert gone() is None, gc.get_referrers(gone())
    assert kept


def test_trainer_goes_with_its_module(tmp_path: Path) -> None:
    trainer = Trainer(
        max_epochs=1, accelerator="cpu", default_root_dir=tmp_path, logger=False, enable_progress_bar=False
    )
    model = Toy()
    trainer.fit(model, loader(2))
    gone = weakref.ref(trainer)
    del trainer, model
    gc.collect()
    assert gone() is None
