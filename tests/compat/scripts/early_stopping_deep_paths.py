"""Imports from as deep as code of all years reaches."""

import os
import tempfile

import torch
from lightning.fabric.utilities.cloud_io import get_filesystem
from lightning.fabric.utilities.types import _PATH
from lightning.pytorch import LightningModule, Trainer, seed_everything
from lightning.pytorch.callbacks.early_stopping import EarlyStopping
from lightning.pytorch.callbacks.model_checkpoint import ModelCheckpoint
from lightning.pytorch.core.optimizer import LightningOptimizer
from lightning.pytorch.loggers.csv_logs import CSVLogger
from lightning.pytorch.loggers.logger import Logger, rank_zero_experiment
from lightning.pytorch.trainer.states import RunningStage, TrainerFn
from lightning.pytorch.utilities.exceptions import MisconfigurationException
from lightning.pytorch.utilities.rank_zero import rank_zero_info, rank_zero_only
from torch.utils.data import DataLoader


class Plateau(LightningModule):
    def __init__(self):
        super().__init__()
        self.layer = torch.nn.Linear(3, 1)

    def training_step(self, batch, batch_idx):
        assert isinstance(self.optimizers(), LightningOptimizer)
        assert self.trainer.state.fn == TrainerFn.FITTING
        assert self.trainer.state.stage == RunningStage.TRAINING
        return self.layer(batch).mean()

    def validation_step(self, batch, batch_idx):
        self.log("val_loss", 1.0)

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=0.1)


@rank_zero_only
def newest(folder: _PATH) -> list:
    return get_filesystem(folder).glob(os.path.join(folder, "**", "*.ckpt"))


class Silent(Logger):
    name, version = "silent", 0

    @property
    @rank_zero_experiment
    def experiment(self):
        return None

    def log_metrics(self, metrics, step=None):
        pass

    def log_hyperparams(self, params, *args, **kwargs):
        pass


if __name__ == "__main__":
    seed_everything(3)
    with tempfile.TemporaryDirectory() as folder:
        stopping = EarlyStopping("val_loss", patience=2)
        trainer = Trainer(
            accelerator="cpu",
            max_epochs=20,
            callbacks=[stopping, ModelCheckpoint(monitor="val_loss", save_last=True)],
            logger=[CSVLogger(folder), Silent()],
            enable_progress_bar=False,
        )
        loader = DataLoader(torch.randn(8, 3), batch_size=4)
        trainer.fit(Plateau(), loader, loader)
        rank_zero_info(f"stopped at {stopping.stopped_epoch}")
        found = newest(folder)
    try:
        Trainer(accelerator="there is none")
    except MisconfigurationException:
        pass
    except ValueError:
        pass
    print("stopped_epoch", stopping.stopped_epoch, "checkpoints", len(found))
