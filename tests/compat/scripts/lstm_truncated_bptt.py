"""Truncated backpropagation through time by `truncated_bptt_steps`, with hidden states that are carried on."""

import pytorch_lightning as pl
import torch
from torch import nn
from torch.utils.data import DataLoader, Dataset


class AvgDataset(Dataset):
    """Predict the mean of the last five values."""

    def __init__(self, num_points=16, seq_len=20):
        series = torch.randn(num_points, seq_len + 5, generator=torch.Generator().manual_seed(4))
        self.x = series[:, 5:].unsqueeze(-1)
        self.y = series.unfold(1, 5, 1).mean(-1)[:, 1:].unsqueeze(-1)

    def __len__(self):
        return len(self.x)

    def __getitem__(self, item):
        return self.x[item], self.y[item]


class LSTM(pl.LightningModule):
    def __init__(self):
        super().__init__()
        self.truncated_bptt_steps = 5
        self.lstm = nn.LSTM(1, 10, num_layers=2, batch_first=True)
        self.out = nn.Linear(10, 1)

    def training_step(self, batch, batch_idx, hiddens):
        x, y = batch
        h, hiddens = self.lstm(x, hiddens)
        loss = nn.functional.mse_loss(self.out(h), y)
        self.log("train_loss", loss)
        return {"loss": loss, "hiddens": hiddens}

    def configure_optimizers(self):
        optimizer = torch.optim.Adam(self.parameters(), lr=0.01)
        return [optimizer], [torch.optim.lr_scheduler.ExponentialLR(optimizer, 0.9)]


pl.seed_everything(1)
model = LSTM()
trainer = pl.Trainer(
    accelerator="cpu", max_epochs=3, logger=False, enable_checkpointing=False, enable_progress_bar=False
)
trainer.fit(model, DataLoader(AvgDataset(), batch_size=4))
print("steps", trainer.global_step, "loss", round(trainer.callback_metrics["train_loss"].item(), 5))
