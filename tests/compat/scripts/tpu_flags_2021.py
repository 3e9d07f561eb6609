"""The command line of 2021, with flags for machines that are not there, and a Trainer made from it."""

import os
from argparse import ArgumentParser

import pytorch_lightning as pl
import torch
from pytorch_lightning.plugins import DDPPlugin
from pytorch_lightning.utilities.seed import seed_everything
from torch.utils.data import DataLoader


class Tiny(pl.LightningModule):
    def __init__(self, **kwargs):
        super().__init__()
        self.save_hyperparameters()
        self.layer = torch.nn.Linear(2, 2)

    def training_step(self, batch, batch_idx):
        loss = self.layer(batch).pow(2).sum()
        self.log("loss", loss, on_epoch=True)
        return loss

    def configure_optimizers(self):
        if self.hparams.tpu_cores:
            raise SystemExit("no TPU is expected here")
        return torch.optim.SGD(self.parameters(), lr=0.01)

    @classmethod
    def add_model_specific_args(cls, parser):
        parser.add_argument("--width", type=int, default=2)
        return parser


def cli_main(command):
    parser = ArgumentParser()
    parser = pl.Trainer.add_argparse_args(parser)
    parser = Tiny.add_model_specific_args(parser)
    parser.add_argument("--seed", type=int, default=1234)
    args = parser.parse_args(command)
    seed_everything(args.seed)
    plugins = [DDPPlugin(find_unused_parameters=False)] if args.gpus else None
    trainer = pl.Trainer.from_argparse_args(args, plugins=plugins, logger=False, checkpoint_callback=False)
    trainer.fit(Tiny(**vars(args)), train_dataloader=DataLoader(torch.ones(8, 2), batch_size=4))
    return trainer


os.environ.pop("CUDA_VISIBLE_DEVICES", None)
trainer = cli_main("--max_epochs 3 --progress_bar_refresh_rate 0 --weights_summary top --num_processes 1".split())
print("epochs", trainer.current_epoch, sorted(trainer.callback_metrics), trainer.running_sanity_check)
