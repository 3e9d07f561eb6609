"""A VAE with a data module, hyperparameters, and the module read back from its checkpoint."""

import tempfile

import pytorch_lightning as pl
import torch
from pytorch_lightning.callbacks.model_checkpoint import ModelCheckpoint
from pytorch_lightning.core.datamodule import LightningDataModule
from pytorch_lightning.utilities.types import EVAL_DATALOADERS, STEP_OUTPUT, TRAIN_DATALOADERS
from torch import nn
from torch.utils.data import DataLoader, TensorDataset


class Data(LightningDataModule):
    def __init__(self, batch_size: int = 8):
        super().__init__()
        self.save_hyperparameters()

    def setup(self, stage=None):
        self.data = TensorDataset(torch.rand(32, 6))

    def train_dataloader(self) -> TRAIN_DATALOADERS:
        return DataLoader(self.data, batch_size=self.hparams.batch_size, shuffle=True)

    def val_dataloader(self) -> EVAL_DATALOADERS:
        return DataLoader(self.data, batch_size=self.hparams.batch_size)


class VAE(pl.LightningModule):
    def __init__(self, latent_dim: int = 2, lr: float = 1e-2):
        super().__init__()
        self.save_hyperparameters()
        self.encoder = nn.Linear(6, 2 * latent_dim)
        self.decoder = nn.Linear(latent_dim, 6)

    def _loss(self, x):
        mean, log_var = self.encoder(x).chunk(2, dim=-1)
        z = mean + torch.randn_like(mean) * (0.5 * log_var).exp()
        kl = -0.5 * (1 + log_var - mean.pow(2) - log_var.exp()).sum(-1).mean()
        return nn.functional.mse_loss(self.decoder(z), x) + 0.01 * kl

    def training_step(self, batch, batch_idx) -> STEP_OUTPUT:
        return {"loss": self._loss(batch[0])}

    def validation_step(self, batch, batch_idx) -> STEP_OUTPUT:
        self.log("val_elbo", self._loss(batch[0]))

    def configure_optimizers(self):
        return torch.optim.Adam(self.parameters(), lr=self.hparams.lr)


if __name__ == "__main__":
    pl.seed_everything(7, workers=True)
    with tempfile.TemporaryDirectory() as folder:
        best = ModelCheckpoint(folder, monitor="val_elbo", mode="min", filename="{epoch}-{val_elbo:.2f}")
        trainer = pl.Trainer(accelerator="cpu", max_epochs=3, callbacks=[best], logger=False, enable_progress_bar=False)
        trainer.fit(VAE(latent_dim=3), datamodule=Data())
        restored = VAE.load_from_checkpoint(best.best_model_path)
    print("latent_dim", restored.hparams.latent_dim)
