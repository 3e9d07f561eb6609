"""A parser of the program's own, a profiler, a timer, and the utilities that scripts of 2022 used."""

from argparse import ArgumentParser

import pytorch_lightning as pl
import torch
from packaging import version
from pytorch_lightning.callbacks import GradientAccumulationScheduler, ModelSummary, Timer
from pytorch_lightning.profilers import SimpleProfiler
from pytorch_lightning.strategies import DDPStrategy
from pytorch_lightning.utilities.model_helpers import is_overridden
from pytorch_lightning.utilities.seed import isolate_rng
from torch.utils.data import DataLoader, TensorDataset

STRATEGIES = {"ddp": DDPStrategy(find_unused_parameters=False), "auto": "auto"}


class Regression(pl.LightningModule):
    @staticmethod
    def add_model_specific_args(parent_parser):
        parser = parent_parser.add_argument_group("Regression")
        parser.add_argument("--learning_rate", type=float, default=0.1)
        return parent_parser

    def __init__(self, learning_rate, **kwargs):
        super().__init__()
        self.save_hyperparameters()
        self.layer = torch.nn.Linear(1, 1)

    def training_step(self, batch, batch_idx):
        x, y = batch
        return torch.nn.functional.mse_loss(self.layer(x), y)

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), self.hparams.learning_rate)


def main():
    parser = ArgumentParser()
    parser = Regression.add_model_specific_args(parser)
    parser.add_argument("--max_epochs", type=int, default=4)
    parser.add_argument("--strategy", default="auto")
    args = parser.parse_args()

    assert version.parse(pl.__version__) >= version.parse("1.6")
    with isolate_rng():
        x = torch.linspace(-1, 1, 32).unsqueeze(1)
    model = Regression(**vars(args))
    assert is_overridden("training_step", model)
    assert not is_overridden("test_step", model)
    timer = Timer(duration="00:00:10:00")
    trainer = pl.Trainer(
        accelerator="cpu",
        devices=1,
        max_epochs=args.max_epochs,
        strategy=STRATEGIES[args.strategy],
        profiler=SimpleProfiler(),
        callbacks=[timer, GradientAccumulationScheduler({2: 2}), ModelSummary(max_depth=2)],
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
    )
    trainer.fit(model, DataLoader(TensorDataset(x, 2 * x), batch_size=8))
    print("lr", model.hparams.learning_rate, "steps", trainer.global_step, "timed", timer.time_elapsed("train") > 0)


if __name__ == "__main__":
    main()
