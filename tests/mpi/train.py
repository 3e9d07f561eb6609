"""The digits on the processes that there are: ``python train.py FOLDER``; leaves what each process found in FOLDER."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import torch

from fulmen import Trainer, seed_everything
from fulmen.demos.digits import DigitsClassifier, DigitsDataModule

folder = Path(sys.argv[1])
folder.mkdir(parents=True, exist_ok=True)
seed_everything(1, verbose=False)
module = DigitsClassifier()
trainer = Trainer(
    accelerator="cpu",
    devices=2,
    strategy="ddp",
    max_epochs=1,
    logger=False,
    default_root_dir=folder,
    enable_progress_bar=False,
    enable_model_summary=False,
)
trainer.fit(module, datamodule=DigitsDataModule())
result = {
    "environment": type(trainer.strategy.cluster_environment).__name__,  # type: ignore[attr-defined]
    "ranks": [trainer.global_rank, trainer.local_rank, trainer.node_rank, trainer.world_size],
    "steps": trainer.global_step,
    "metrics": {name: float(value) for name, value in trainer.callback_metrics.items()},
    "weights": torch.cat([parameter.detach().flatten() for parameter in module.parameters()]).tolist(),
}
(folder / f"rank{trainer.global_rank}.json").write_text(json.dumps(result))
