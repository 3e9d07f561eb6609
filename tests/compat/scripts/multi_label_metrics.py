"""Several labels for each sample, with metrics of torchmetrics that are logged as objects."""

import pytorch_lightning as pl
import torch
from sklearn.datasets import make_multilabel_classification
from torch.utils.data import DataLoader, TensorDataset
from torchmetrics import MetricCollection
from torchmetrics.classification import MultilabelAccuracy, MultilabelF1Score


class MultiLabel(pl.LightningModule):
    def __init__(self, labels=4):
        super().__init__()
        self.net = torch.nn.Linear(10, labels)
        self.criterion = torch.nn.BCEWithLogitsLoss()
        metrics = MetricCollection({"acc": MultilabelAccuracy(labels), "f1": MultilabelF1Score(labels)})
        self.train_metrics, self.val_metrics = metrics.clone(prefix="train_"), metrics.clone(prefix="val_")

    def forward(self, x):
        return self.net(x)

    def training_step(self, batch, batch_idx):
        x, y = batch
        logits = self(x)
        self.log_dict(self.train_metrics(logits.sigmoid(), y), on_step=False, on_epoch=True)
        return self.criterion(logits, y.float())

    def validation_step(self, batch, batch_idx):
        x, y = batch
        self.val_metrics(self(x).sigmoid(), y)
        self.log_dict(self.val_metrics, on_epoch=True)

    def configure_optimizers(self):
        return torch.optim.Adam(self.parameters(), lr=0.05)


pl.seed_everything(4)
x, y = make_multilabel_classification(160, 10, n_classes=4, random_state=0)
data = TensorDataset(torch.tensor(x, dtype=torch.float32) / 10, torch.tensor(y))
trainer = pl.Trainer(
    accelerator="cpu", max_epochs=5, logger=False, enable_checkpointing=False, enable_progress_bar=False
)
trainer.fit(MultiLabel(), DataLoader(data, batch_size=32), DataLoader(data, batch_size=64))
print({name: round(value.item(), 4) for name, value in sorted(trainer.callback_metrics.items())})
