"""A frozen backbone and a new head; the second half of the training thaws the backbone by a callback."""

import lightning.pytorch as pl
import torch
from lightning.pytorch.callbacks import Callback, LearningRateMonitor
from lightning.pytorch.loggers import CSVLogger
from torch import nn
from torch.utils.data import DataLoader, TensorDataset


class Backbone(pl.LightningModule):
    def __init__(self):
        super().__init__()
        self.layer = nn.Linear(4, 8)

    def forward(self, x):
        return self.layer(x).relu()


class Classifier(pl.LightningModule):
    def __init__(self):
        super().__init__()
        self.backbone = Backbone()
        self.backbone.freeze()
        self.head = nn.Linear(8, 2)

    def training_step(self, batch, batch_idx):
        x, y = batch
        return nn.functional.cross_entropy(self.head(self.backbone(x)), y)

    def configure_optimizers(self):
        optimizer = torch.optim.SGD(self.parameters(), lr=0.1)
        scheduler = torch.optim.lr_scheduler.StepLR(optimizer, 1, gamma=0.5)
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": scheduler, "interval": "epoch"}}


class Thaw(Callback):
    def on_train_epoch_start(self, trainer: "pl.Trainer", pl_module: "pl.LightningModule") -> None:
        if trainer.current_epoch == 1:
            pl_module.backbone.unfreeze()


pl.seed_everything(1)
data = TensorDataset(torch.randn(32, 4), torch.randint(2, (32,)))
model = Classifier()
before = model.backbone.layer.weight.clone()
trainer = pl.Trainer(
    accelerator="cpu",
    max_epochs=2,
    callbacks=[Thaw(), LearningRateMonitor("epoch")],
    logger=CSVLogger("transfer_logs"),
    enable_checkpointing=False,
    enable_progress_bar=False,
)
trainer.fit(model, DataLoader(data, batch_size=8))
print("thawed", not torch.equal(before, model.backbone.layer.weight))
