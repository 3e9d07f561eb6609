"""Metric objects of torchmetrics, logged as they are: Lightning computes and resets them."""

import lightning.pytorch as pl
import torch
from torch.utils.data import DataLoader, TensorDataset
from torchmetrics import MeanMetric, MetricCollection
from torchmetrics.classification import MulticlassAccuracy, MulticlassF1Score


class Classifier(pl.LightningModule):
    def __init__(self):
        super().__init__()
        self.layer = torch.nn.Linear(4, 3)
        self.train_loss = MeanMetric()
        metrics = MetricCollection([MulticlassAccuracy(3), MulticlassF1Score(3)])
        self.val_metrics = metrics.clone(prefix="val_")

    def training_step(self, batch, batch_idx):
        x, y = batch
        loss = torch.nn.functional.cross_entropy(self.layer(x), y)
        self.train_loss(loss)
        self.log("train_loss", self.train_loss, on_step=True, on_epoch=True)
        return loss

    def validation_step(self, batch, batch_idx):
        x, y = batch
        self.val_metrics.update(self.layer(x), y)

    def on_validation_epoch_end(self):
        self.log_dict(self.val_metrics.compute())
        self.val_metrics.reset()

    def configure_optimizers(self):
        return torch.optim.Adam(self.parameters(), lr=0.1)


pl.seed_everything(5)
x = torch.randn(48, 4)
data = TensorDataset(x, x[:, :3].argmax(1))
trainer = pl.Trainer(
    accelerator="cpu", max_epochs=20, logger=False, enable_checkpointing=False, enable_progress_bar=False
)
trainer.fit(Classifier(), DataLoader(data, batch_size=16, shuffle=True), DataLoader(data, batch_size=16))
print("learned", float(trainer.callback_metrics["val_MulticlassAccuracy"]) > 0.8, sorted(trainer.callback_metrics))
