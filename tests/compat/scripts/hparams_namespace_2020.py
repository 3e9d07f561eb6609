"""A script of 2020: `self.hparams = hparams`, the arguments of the Trainer of that year, a parser for them."""

import os
import tempfile
from argparse import ArgumentParser

import pytorch_lightning as pl
import torch
from pytorch_lightning.callbacks import ModelCheckpoint
from pytorch_lightning.core.lightning import LightningModule
from pytorch_lightning.loggers.base import LightningLoggerBase
from torch import nn
from torch.utils.data import DataLoader, TensorDataset


class CoolSystem(LightningModule):
    def __init__(self, hparams):
        super().__init__()
        self.hparams = hparams
        self.l1 = nn.Linear(4, hparams.hidden_dim)
        self.l2 = nn.Linear(self.hparams.hidden_dim, 1)

    def forward(self, x):
        return self.l2(torch.relu(self.l1(x)))

    def training_step(self, batch, batch_nb):
        x, y = batch
        return {"loss": nn.functional.mse_loss(self(x), y)}

    def validation_step(self, batch, batch_nb):
        x, y = batch
        return {"val_loss": nn.functional.mse_loss(self(x), y)}

    def validation_epoch_end(self, outputs):
        self.log("val_loss", torch.stack([x["val_loss"] for x in outputs]).mean(), prog_bar=True)

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=self.hparams.learning_rate)

    @staticmethod
    def add_model_specific_args(parent_parser):
        parser = ArgumentParser(parents=[parent_parser], add_help=False)
        parser.add_argument("--learning_rate", default=0.05, type=float)
        parser.add_argument("--hidden_dim", default=8, type=int)
        return parser


if __name__ == "__main__":
    parser = CoolSystem.add_model_specific_args(ArgumentParser(add_help=False))
    parser = pl.Trainer.add_argparse_args(parser)
    folder = tempfile.mkdtemp()
    hparams = parser.parse_args(["--gpus", "0", "--max_epochs", "4", "--default_root_dir", folder])
    pl.seed_everything(11)
    x = torch.randn(32, 4, generator=torch.Generator().manual_seed(0))
    data = DataLoader(TensorDataset(x, x.sum(1, keepdim=True)), batch_size=8)
    best = ModelCheckpoint(dirpath=folder, monitor="val_loss", save_top_k=1, filename="{epoch}")
    trainer = pl.Trainer.from_argparse_args(
        hparams, callbacks=[best], progress_bar_refresh_rate=0, weights_summary=None, logger=False
    )
    model = CoolSystem(hparams)
    trainer.fit(model, train_dataloader=data, val_dataloaders=data)
    restored = CoolSystem.load_from_checkpoint(best.best_model_path)
    assert isinstance(trainer.logger, (LightningLoggerBase, type(None)))
    same = torch.equal(restored(x), model(x))
    print(
        os.path.basename(best.best_model_path),
        round(best.best_model_score.item(), 4),
        restored.hparams.hidden_dim,
        same,
    )
