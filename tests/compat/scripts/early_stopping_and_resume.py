"""EarlyStopping and ModelCheckpoint together, a state that is added to the file, and training that goes on from it."""

import os
import tempfile

import lightning.pytorch as pl
import torch
from lightning.pytorch.callbacks import EarlyStopping, ModelCheckpoint
from torch.utils.data import DataLoader


class Model(pl.LightningModule):
    def __init__(self, lr: float = 0.3):
        super().__init__()
        self.save_hyperparameters()
        self.layer = torch.nn.Linear(2, 1)
        self.epochs_seen = 0

    def training_step(self, batch, batch_idx):
        return self.layer(batch).pow(2).mean()

    def on_train_epoch_end(self):
        self.epochs_seen += 1

    def validation_step(self, batch, batch_idx):
        self.log("val_loss", self.layer(batch).pow(2).mean(), prog_bar=True)

    def on_save_checkpoint(self, checkpoint):
        checkpoint["epochs_seen"] = self.epochs_seen

    def on_load_checkpoint(self, checkpoint):
        self.epochs_seen = checkpoint["epochs_seen"]

    def configure_optimizers(self):
        optimizer = torch.optim.SGD(self.parameters(), self.hparams.lr, momentum=0.9)
        return [optimizer], [torch.optim.lr_scheduler.ExponentialLR(optimizer, 0.8)]


pl.seed_everything(9)
data = DataLoader(torch.randn(32, 2, generator=torch.Generator().manual_seed(2)), batch_size=8)
with tempfile.TemporaryDirectory() as folder:

    def trainer(epochs):
        stop = EarlyStopping(monitor="val_loss", min_delta=1e-4, patience=2, mode="min")
        save = ModelCheckpoint(folder, "{epoch}-{step}", monitor="val_loss", save_top_k=2, save_last=True)
        return pl.Trainer(
            accelerator="cpu", max_epochs=epochs, callbacks=[stop, save], logger=False, enable_progress_bar=False
        )

    first = trainer(3)
    first.fit(Model(), data, data)
    model = Model()
    second = trainer(50)
    second.fit(model, data, data, ckpt_path=os.path.join(folder, "last.ckpt"))
    best = os.path.basename(second.checkpoint_callback.best_model_path)
print(
    "epochs",
    second.current_epoch,
    model.epochs_seen,
    "best",
    best,
    round(second.optimizers[0].param_groups[0]["lr"], 6),
)
