"""Several loaders at once, as a dict, as a CombinedLoader, and several for validation."""

import lightning as L
import torch
from lightning.pytorch.utilities import CombinedLoader
from torch.utils.data import DataLoader


class Multi(L.LightningModule):
    def __init__(self):
        super().__init__()
        self.layer = torch.nn.Linear(2, 1)
        self.seen = []

    def training_step(self, batch, batch_idx):
        self.seen.append(sorted(batch))
        return self.layer(batch["a"]).mean() + self.layer(batch["b"]).mean()

    def validation_step(self, batch, batch_idx, dataloader_idx=0):
        self.log("val", self.layer(batch).mean())

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=0.1)


def loader(size):
    return DataLoader(torch.randn(size, 2), batch_size=4)


model = Multi()
trainer = L.Trainer(
    accelerator="cpu", max_epochs=1, logger=False, enable_checkpointing=False, enable_progress_bar=False
)
trainer.fit(model, CombinedLoader({"a": loader(8), "b": loader(16)}, mode="max_size_cycle"), [loader(4), loader(8)])
print("batches", len(model.seen), "metrics", sorted(trainer.callback_metrics))
