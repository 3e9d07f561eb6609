"""A GAN with two optimizers in manual optimization, as the docs of 2.x teach it."""

import lightning as L
import torch
import torch.nn.functional as F
from torch import nn
from torch.utils.data import DataLoader


class GAN(L.LightningModule):
    def __init__(self, latent_dim: int = 4, lr: float = 2e-3):
        super().__init__()
        self.save_hyperparameters()
        self.automatic_optimization = False
        self.generator = nn.Sequential(nn.Linear(latent_dim, 16), nn.ReLU(), nn.Linear(16, 2))
        self.discriminator = nn.Sequential(nn.Linear(2, 16), nn.ReLU(), nn.Linear(16, 1))

    def training_step(self, batch):
        optimizer_g, optimizer_d = self.optimizers()
        z = torch.randn(batch.shape[0], self.hparams.latent_dim).type_as(batch)

        self.toggle_optimizer(optimizer_g)
        loss = F.softplus(-self.discriminator(self.generator(z))).mean()
        self.log("g_loss", loss, prog_bar=True)
        self.manual_backward(loss)
        optimizer_g.step()
        optimizer_g.zero_grad()
        self.untoggle_optimizer(optimizer_g)

        self.toggle_optimizer(optimizer_d)
        fake = self.generator(z).detach()
        loss = F.softplus(-self.discriminator(batch)).mean() + F.softplus(self.discriminator(fake)).mean()
        self.log("d_loss", loss, prog_bar=True)
        self.manual_backward(loss)
        optimizer_d.step()
        optimizer_d.zero_grad()
        self.untoggle_optimizer(optimizer_d)

    def configure_optimizers(self):
        lr = self.hparams.lr
        return [
            torch.optim.Adam(self.generator.parameters(), lr=lr),
            torch.optim.Adam(self.discriminator.parameters(), lr=lr),
        ], []


L.seed_everything(0)
trainer = L.Trainer(
    accelerator="cpu", max_epochs=2, logger=False, enable_checkpointing=False, enable_progress_bar=False
)
trainer.fit(GAN(), DataLoader(torch.randn(64, 2), batch_size=16))
print("steps", trainer.global_step)
