"""Contrastive pre-training with two views, and a callback that trains a classifier beside it."""

import lightning.pytorch as pl
import torch
import torch.nn.functional as F
from lightning.pytorch.callbacks import Callback
from sklearn.datasets import load_digits
from torch.utils.data import DataLoader, TensorDataset


class OnlineEvaluator(Callback):
    def setup(self, trainer, pl_module, stage):
        self.probe = torch.nn.Linear(16, 10)
        self.optimizer = torch.optim.SGD(self.probe.parameters(), lr=0.5)

    def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx):
        x, y = batch
        with torch.no_grad():
            features = pl_module.backbone(x)
        loss = F.cross_entropy(self.probe(features), y)
        loss.backward()
        self.optimizer.step()
        self.optimizer.zero_grad()
        pl_module.log("online_loss", loss, on_step=False, on_epoch=True)


class SimCLR(pl.LightningModule):
    def __init__(self, temperature: float = 0.5):
        super().__init__()
        self.save_hyperparameters()
        self.backbone = torch.nn.Sequential(torch.nn.Linear(64, 16), torch.nn.ReLU())
        self.projection = torch.nn.Linear(16, 8)
        self.noise = torch.Generator().manual_seed(0)

    def view(self, x):
        return x + 0.1 * torch.randn(x.shape, generator=self.noise)

    def training_step(self, batch, batch_idx):
        x, _ = batch
        z = F.normalize(self.projection(self.backbone(torch.cat([self.view(x), self.view(x)]))), dim=1)
        similar = z @ z.T / self.hparams.temperature
        similar.fill_diagonal_(float("-inf"))
        target = torch.arange(len(z)).roll(len(x))
        loss = F.cross_entropy(similar, target)
        self.log("loss", loss, on_step=False, on_epoch=True)
        return loss

    def configure_optimizers(self):
        return torch.optim.Adam(self.parameters(), lr=1e-2)


pl.seed_everything(6)
x, y = load_digits(return_X_y=True)
data = TensorDataset(torch.tensor(x[:256], dtype=torch.float32) / 16, torch.tensor(y[:256]))
trainer = pl.Trainer(
    accelerator="cpu",
    max_epochs=3,
    callbacks=[OnlineEvaluator()],
    logger=False,
    enable_checkpointing=False,
    enable_progress_bar=False,
)
trainer.fit(SimCLR(), DataLoader(data, batch_size=64, drop_last=True))
print({name: round(value.item(), 3) for name, value in sorted(trainer.callback_metrics.items())})
