"""A script of 2019: what is logged is returned in dicts, decorated loaders, and the arguments of 0.5."""

from collections import OrderedDict

import pytorch_lightning as pl
import torch
from pytorch_lightning.callbacks import EarlyStopping
from torch import nn
from torch.utils.data import DataLoader


class Net(pl.LightningModule):
    def __init__(self):
        super().__init__()
        self.fc = nn.Linear(3, 1)
        self.ended = []

    def forward(self, x):
        return self.fc(x)

    def loss(self, x):
        return (self.forward(x) - x.sum(1, keepdim=True)).pow(2).mean()

    def training_step(self, batch, batch_nb):
        loss_val = self.loss(batch)
        return OrderedDict(
            {"loss": loss_val, "progress_bar": {"train_loss": loss_val}, "log": {"train_loss": loss_val}}
        )

    def validation_step(self, batch, batch_nb):
        return OrderedDict({"val_loss": self.loss(batch)})

    def validation_end(self, outputs):
        val_loss_mean = torch.stack([output["val_loss"] for output in outputs]).mean()
        self.ended.append(round(val_loss_mean.item(), 4))
        return {"val_loss": val_loss_mean, "log": {"val_loss": val_loss_mean}, "progress_bar": {"v": val_loss_mean}}

    def configure_optimizers(self):
        return [torch.optim.SGD(self.parameters(), lr=0.1)]

    @pl.data_loader
    def train_dataloader(self):
        return DataLoader(torch.linspace(-1, 1, 48).reshape(16, 3), batch_size=4)

    @pl.data_loader
    def val_dataloader(self):
        return DataLoader(torch.linspace(-2, 2, 24).reshape(8, 3), batch_size=4)


torch.manual_seed(3)
model = Net()
trainer = pl.Trainer(
    max_nb_epochs=30,
    nb_sanity_val_steps=0,
    early_stop_callback=EarlyStopping(monitor="val_loss", patience=2, min_delta=0.05),
    checkpoint_callback=False,
    show_progress_bar=False,
    train_percent_check=0.5,
    logger=False,
)
trainer.fit(model)
print(
    "epochs", len(model.ended), "stopped early", trainer.current_epoch < 30, "falls", model.ended[0] > model.ended[-1]
)
