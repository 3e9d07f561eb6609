"""A siamese network with a contrastive loss on pairs, and embeddings predicted afterwards."""

import lightning as L
import torch
import torch.nn.functional as F
from torch.utils.data import DataLoader, Dataset


class Pairs(Dataset):
    def __init__(self, length):
        generator = torch.Generator().manual_seed(length)
        self.first, self.second = (torch.randn(length, 6, generator=generator) for _ in range(2))
        self.same = (torch.arange(length) % 2).float()
        self.second[1::2] = self.first[1::2] + 0.1

    def __len__(self):
        return len(self.same)

    def __getitem__(self, index):
        return (self.first[index], self.second[index]), self.same[index]


class Siamese(L.LightningModule):
    def __init__(self, margin: float = 1.0):
        super().__init__()
        self.save_hyperparameters()
        self.net = torch.nn.Sequential(torch.nn.Linear(6, 8), torch.nn.Tanh(), torch.nn.Linear(8, 2))

    def forward(self, x):
        return self.net(x)

    def contrast(self, batch):
        (one, other), same = batch
        distance = F.pairwise_distance(self(one), self(other))
        return (same * distance.pow(2) + (1 - same) * F.relu(self.hparams.margin - distance).pow(2)).mean()

    def training_step(self, batch, batch_idx):
        loss = self.contrast(batch)
        self.log("train_loss", loss, on_step=True, on_epoch=True)
        return loss

    def validation_step(self, batch, batch_idx):
        self.log("val_loss", self.contrast(batch))

    def predict_step(self, batch, batch_idx):
        (one, _), _ = batch
        return self(one)

    def configure_optimizers(self):
        optimizer = torch.optim.AdamW(self.parameters(), lr=0.01)
        return {
            "optimizer": optimizer,
            "lr_scheduler": {
                "scheduler": torch.optim.lr_scheduler.ReduceLROnPlateau(optimizer, patience=0),
                "monitor": "val_loss",
            },
        }


L.seed_everything(2)
model = Siamese()
trainer = L.Trainer(
    accelerator="cpu", max_epochs=4, logger=False, enable_checkpointing=False, enable_progress_bar=False
)
trainer.fit(model, DataLoader(Pairs(32), batch_size=8), DataLoader(Pairs(16), batch_size=8))
embeddings = torch.cat(trainer.predict(model, DataLoader(Pairs(16), batch_size=8)))
metrics = {name: round(value.item(), 4) for name, value in sorted(trainer.callback_metrics.items())}
print("embeddings", tuple(embeddings.shape), round(embeddings.abs().sum().item(), 3), metrics)
