"""Twenty steps on two processes, slow enough to be interrupted: ``python train.py FOLDER``."""

from __future__ import annotations

import json
import os
import sys
import time
from pathlib import Path
from typing import Any

import torch
from torch.utils.data import DataLoader

from fulmen import Callback, LightningModule, Trainer, seed_everything


class Module(LightningModule):
    def __init__(self) -> None:
        super().__init__()
        self.layers = torch.nn.Sequential(torch.nn.Linear(4, 8), torch.nn.Dropout(0.2), torch.nn.Linear(8, 1))

    def training_step(self, batch: torch.Tensor, batch_idx: int) -> torch.Tensor:
        return (self.layers(batch) - batch.sum(1, keepdim=True)).square().mean()

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.Adam(self.parameters(), 0.01)


class Slow(Callback):
    """Takes its time, and tells where the run is."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def on_train_batch_end(self, trainer: Trainer, pl_module: LightningModule, *rest: Any) -> None:
        time.sleep(0.2)
        if trainer.is_global_zero:
            (self.folder / "step").write_text(str(trainer.global_step))


folder = Path(sys.argv[1])
folder.mkdir(parents=True, exist_ok=True)
seed_everything(1, verbose=False)
module = Module()
data = DataLoader(torch.arange(160.0).sin().reshape(40, 4), batch_size=4, shuffle=True)
trainer = Trainer(
    accelerator="cpu",
    devices=2,
    max_epochs=4,
    logger=False,
    callbacks=[Slow(folder)],
    default_root_dir=folder,
    enable_progress_bar=False,
    enable_model_summary=False,
)
trainer.fit(module, data)
result = {
    "world": trainer.world_size,
    "steps": trainer.global_step,
    "restarts": int(os.environ.get("SLURM_RESTART_COUNT", "0")),
    "weights": torch.cat([parameter.detach().flatten() for parameter in module.parameters()]).tolist(),
}
(folder / f"rank{trainer.global_rank}.json").write_text(json.dumps(result))
