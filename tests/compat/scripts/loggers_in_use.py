"""Two loggers at once, hyperparameters, an experiment that is written to by hand, and the table read back."""

import csv
import os
import tempfile

import pytorch_lightning as pl
import torch
from pytorch_lightning.callbacks import LearningRateMonitor
from pytorch_lightning.loggers import CSVLogger, TensorBoardLogger
from torch.utils.data import DataLoader


class Model(pl.LightningModule):
    def __init__(self, lr=0.1):
        super().__init__()
        self.save_hyperparameters()
        self.layer = torch.nn.Linear(2, 1)
        self.example_input_array = torch.zeros(1, 2)

    def forward(self, x):
        return self.layer(x)

    def training_step(self, batch, batch_idx):
        loss = self(batch).pow(2).mean()
        self.log("train/loss", loss)
        if self.trainer.is_global_zero:
            tensorboard = self.loggers[0].experiment
            tensorboard.add_histogram("weights", self.layer.weight, self.global_step)
        return loss

    def validation_step(self, batch, batch_idx):
        self.log("val/loss", self(batch).pow(2).mean())

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=self.hparams.lr)


pl.seed_everything(3)
data = DataLoader(torch.ones(16, 2), batch_size=4)
with tempfile.TemporaryDirectory() as folder:
    loggers = [TensorBoardLogger(folder, name="board"), CSVLogger(folder, name="table", flush_logs_every_n_steps=1)]
    trainer = pl.Trainer(
        accelerator="cpu",
        max_epochs=2,
        logger=loggers,
        log_every_n_steps=2,
        callbacks=[LearningRateMonitor(logging_interval="step")],
        enable_checkpointing=False,
        enable_progress_bar=False,
    )
    trainer.fit(Model(), data, data)
    with open(os.path.join(loggers[1].log_dir, "metrics.csv")) as file:
        rows = list(csv.DictReader(file))
    files = sorted(name.split(".")[0] for name in os.listdir(loggers[0].log_dir))
    losses = [round(float(row["val/loss"]), 5) for row in rows if row["val/loss"]]
print("files", files, "columns", sorted(rows[0]), "val", losses)
