"""Metrics over an epoch as they were computed until 2022: from the outputs of all steps."""

import pytorch_lightning as pl
import torch
import torch.nn.functional as F
from pytorch_lightning.metrics.functional import accuracy
from pytorch_lightning.utilities.types import EPOCH_OUTPUT, STEP_OUTPUT
from sklearn.datasets import load_digits
from torch.utils.data import DataLoader, TensorDataset


class Digits(pl.LightningModule):
    def __init__(self):
        super().__init__()
        self.layers = torch.nn.Sequential(torch.nn.Linear(64, 32), torch.nn.ReLU(), torch.nn.Linear(32, 10))

    def forward(self, x):
        return self.layers(x)

    def training_step(self, batch, batch_idx) -> STEP_OUTPUT:
        x, y = batch
        logits = self(x)
        return {"loss": F.cross_entropy(logits, y), "acc": accuracy(logits, y)}

    def training_epoch_end(self, outputs: EPOCH_OUTPUT) -> None:
        self.log("train_acc", torch.stack([o["acc"] for o in outputs]).mean(), prog_bar=True)

    def evaluate(self, batch):
        x, y = batch
        logits = self(x)
        return {"loss": F.cross_entropy(logits, y), "preds": logits.argmax(-1), "target": y}

    def validation_step(self, batch, batch_idx):
        return self.evaluate(batch)

    def validation_epoch_end(self, outputs):
        self._log("val", outputs)

    def test_step(self, batch, batch_idx):
        return self.evaluate(batch)

    def test_epoch_end(self, outputs):
        self._log("test", outputs)

    def _log(self, stage, outputs):
        preds, target = (torch.cat([o[key] for o in outputs]) for key in ("preds", "target"))
        self.log(f"{stage}_loss", torch.stack([o["loss"] for o in outputs]).mean())
        self.log(f"{stage}_acc", (preds == target).float().mean())

    def configure_optimizers(self):
        return torch.optim.Adam(self.parameters(), lr=1e-2)


pl.seed_everything(7)
x, y = load_digits(return_X_y=True)
data = TensorDataset(torch.tensor(x[:600], dtype=torch.float32) / 16, torch.tensor(y[:600]))
train, rest = torch.utils.data.random_split(data, [400, 200], generator=torch.Generator().manual_seed(0))
trainer = pl.Trainer(
    accelerator="cpu", max_epochs=3, logger=False, enable_checkpointing=False, enable_progress_bar=False
)
model = Digits()
trainer.fit(model, DataLoader(train, batch_size=50), DataLoader(rest, batch_size=64))
metrics = {name: round(value.item(), 4) for name, value in sorted(trainer.callback_metrics.items())}
print("fit", metrics, "test", trainer.test(model, DataLoader(rest, batch_size=64), verbose=False)[0]["test_acc"])
