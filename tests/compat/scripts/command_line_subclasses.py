"""LightningCLI with classes by their paths, linked arguments, optimizers from the command line, and a file for all."""

import os
import sys
import tempfile

import torch
from lightning.pytorch import LightningDataModule, LightningModule
from lightning.pytorch.cli import LightningCLI
from torch.utils.data import DataLoader

CONFIG = """
seed_everything: 5
trainer:
  accelerator: cpu
  max_epochs: 2
  logger: false
  enable_progress_bar: false
  enable_checkpointing: false
model:
  class_path: __main__.Wide
  init_args: {extra: 3}
data: {batch_size: 4}
optimizer: {class_path: torch.optim.SGD, init_args: {lr: 0.1}}
"""


class Narrow(LightningModule):
    def __init__(self, features: int = 2):
        super().__init__()
        self.layer = torch.nn.Linear(features, 1)

    def training_step(self, batch, batch_idx):
        loss = self.layer(batch).pow(2).mean()
        self.log("loss", loss)
        return loss


class Wide(Narrow):
    def __init__(self, extra: int, features: int = 2):
        super().__init__(features)
        self.extra = extra


class Data(LightningDataModule):
    def __init__(self, batch_size: int = 2, features: int = 4):
        super().__init__()
        self.batch_size, self.features = batch_size, features

    def train_dataloader(self):
        data = torch.linspace(-1, 1, 16 * self.features).reshape(16, self.features)
        return DataLoader(data, batch_size=self.batch_size)


class CLI(LightningCLI):
    def add_arguments_to_parser(self, parser):
        parser.link_arguments("data.features", "model.init_args.features")


if __name__ == "__main__":
    sys.modules.setdefault("__main__", sys.modules[__name__])
    with tempfile.TemporaryDirectory() as folder:
        path = os.path.join(folder, "config.yaml")
        with open(path, "w") as file:
            file.write(CONFIG)
        cli = CLI(Narrow, Data, subclass_mode_model=True, args=["fit", f"--config={path}", "--trainer.max_epochs=3"])
    print(type(cli.model).__name__, cli.model.extra, cli.model.layer.in_features, cli.trainer.global_step)
