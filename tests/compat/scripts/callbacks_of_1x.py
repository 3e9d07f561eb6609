"""Callbacks with the signatures of 1.x: more arguments, hooks that went, and a state that is returned."""

import os
import tempfile

import pytorch_lightning as pl
import torch
from pytorch_lightning.callbacks.base import Callback
from torch.utils.data import DataLoader


class Printing(Callback):
    def __init__(self):
        self.events, self.batches = [], 0

    def on_init_end(self, trainer):
        self.events.append("init")

    def on_pretrain_routine_start(self, trainer, pl_module):
        self.events.append("routine")

    def on_epoch_start(self, trainer, pl_module):
        self.events.append("epoch")

    def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx, dataloader_idx):
        self.batches += 1

    def on_validation_batch_end(self, trainer, pl_module, outputs, batch, batch_idx, dataloader_idx):
        self.events.append(f"val{batch_idx}{dataloader_idx}{outputs}")

    def on_train_epoch_end(self, trainer, pl_module, outputs=None):
        self.events.append("end")

    def on_save_checkpoint(self, trainer, pl_module, checkpoint):
        return {"batches": self.batches}

    def on_load_checkpoint(self, trainer, pl_module, callback_state):
        self.batches = callback_state["batches"]


class Model(pl.LightningModule):
    def __init__(self):
        super().__init__()
        self.layer = torch.nn.Linear(1, 1)

    def on_epoch_end(self):
        self.ended = getattr(self, "ended", 0) + 1

    def training_step(self, batch, batch_idx):
        return self.layer(batch).mean()

    def validation_step(self, batch, batch_idx):
        return batch_idx

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=0.1)


data = DataLoader(torch.ones(3, 1))
with tempfile.TemporaryDirectory() as folder:
    path = os.path.join(folder, "file.ckpt")
    quiet = dict(logger=False, enable_progress_bar=False, num_sanity_val_steps=0, default_root_dir=folder, gpus=0)
    save = pl.callbacks.ModelCheckpoint(folder, filename="file")
    first, model = Printing(), Model()
    pl.Trainer(max_epochs=1, callbacks=[first, save], **quiet).fit(model, data, DataLoader(torch.ones(1, 1)))
    second = Printing()
    trainer = pl.Trainer(max_epochs=2, callbacks=[second], enable_checkpointing=False, **quiet)
    trainer.fit(Model(), data, ckpt_path=path)
print(first.events, first.batches, second.batches, model.ended)
