"""Profilers: one by name, one that writes a file, and sections of one's own."""

import os
import tempfile

import lightning.pytorch as pl
import torch
from lightning.pytorch.demos.boring_classes import BoringModel
from lightning.pytorch.profilers import AdvancedProfiler, PassThroughProfiler, SimpleProfiler


class Profiled(BoringModel):
    def __init__(self, profiler=None):
        super().__init__()
        self.profiler = profiler or PassThroughProfiler()

    def training_step(self, batch, batch_idx):
        with self.profiler.profile("my_section"):
            return super().training_step(batch, batch_idx)


pl.seed_everything(0)
with tempfile.TemporaryDirectory() as folder:
    for profiler in (
        SimpleProfiler(dirpath=folder, filename="simple"),
        AdvancedProfiler(dirpath=folder, filename="advanced", line_count_restriction=5),
        "simple",
    ):
        trainer = pl.Trainer(
            accelerator="cpu",
            max_epochs=1,
            limit_train_batches=3,
            limit_val_batches=1,
            profiler=profiler,
            logger=False,
            enable_checkpointing=False,
            enable_progress_bar=False,
        )
        trainer.fit(Profiled(profiler if not isinstance(profiler, str) else None))
    found = {}
    for name in sorted(os.listdir(folder)):
        with open(os.path.join(folder, name)) as file:
            found[name] = "my_section" in file.read()
print("files", found, torch.is_grad_enabled())
