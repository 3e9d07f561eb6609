"""A Wasserstein GAN of 1.x: the critic is trained five times as often, by the `frequency` of its optimizer."""

import pytorch_lightning as pl
import torch
from torch import nn
from torch.utils.data import DataLoader


class WGAN(pl.LightningModule):
    def __init__(self, n_critic: int = 5, clip_value: float = 0.01):
        super().__init__()
        self.save_hyperparameters()
        self.generator, self.critic = nn.Linear(3, 2), nn.Sequential(nn.Linear(2, 8), nn.ReLU(), nn.Linear(8, 1))
        self.turns = []

    def training_step(self, batch, batch_idx, optimizer_idx):
        self.turns.append(int(optimizer_idx))
        fake = self.generator(torch.linspace(-1, 1, batch.numel() // 2 * 3).reshape(-1, 3))
        if optimizer_idx == 0:
            return -self.critic(fake).mean()
        loss = self.critic(fake.detach()).mean() - self.critic(batch).mean()
        self.log("critic", loss, on_step=False, on_epoch=True)
        return loss

    def optimizer_step(self, epoch, batch_idx, optimizer, optimizer_idx, optimizer_closure, **kwargs):
        super().optimizer_step(epoch, batch_idx, optimizer, optimizer_idx, optimizer_closure, **kwargs)
        if optimizer_idx == 1:
            for p in self.critic.parameters():
                p.data.clamp_(-self.hparams.clip_value, self.hparams.clip_value)

    def configure_optimizers(self):
        opt_g = torch.optim.RMSprop(self.generator.parameters(), lr=0.01)
        opt_c = torch.optim.RMSprop(self.critic.parameters(), lr=0.01)
        return (
            {"optimizer": opt_g, "frequency": 1},
            {"optimizer": opt_c, "frequency": self.hparams.n_critic},
        )


pl.seed_everything(0)
model = WGAN()
data = torch.randn(48, 2, generator=torch.Generator().manual_seed(1))
trainer = pl.Trainer(
    accelerator="cpu", max_epochs=1, logger=False, enable_checkpointing=False, enable_progress_bar=False
)
trainer.fit(model, DataLoader(data, batch_size=4))
weights = sum(p.abs().sum().item() for p in model.parameters())
print("turns", "".join(map(str, model.turns)), "weights", round(weights, 4), trainer.global_step)
