"""Predictions written by a callback, one file for each batch, from a module trained before."""

import os
import tempfile

import lightning as L
import torch
from lightning.pytorch.callbacks import BasePredictionWriter
from lightning.pytorch.demos.boring_classes import BoringModel, RandomDataset


class Writer(BasePredictionWriter):
    def __init__(self, output_dir, write_interval):
        super().__init__(write_interval)
        self.output_dir = output_dir

    def write_on_batch_end(self, trainer, pl_module, prediction, batch_indices, batch, batch_idx, dataloader_idx):
        torch.save(prediction, os.path.join(self.output_dir, f"{dataloader_idx}_{batch_idx}.pt"))


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as folder:
        trainer = L.Trainer(
            accelerator="cpu", callbacks=[Writer(folder, "batch")], logger=False, enable_progress_bar=False
        )
        loader = torch.utils.data.DataLoader(RandomDataset(32, 8), batch_size=2)
        trainer.predict(BoringModel(), loader, return_predictions=False)
        print("files", sorted(os.listdir(folder)))
