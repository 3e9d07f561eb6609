"""LightningCLI in subclass mode: which module, which data, and a class path of Lightning in the arguments."""

from lightning.pytorch.cli import ArgsType, LightningCLI
from lightning.pytorch.demos.boring_classes import BoringDataModule, BoringModel

ARGUMENTS = [
    "fit",
    "--trainer.max_epochs=1",
    "--trainer.limit_train_batches=2",
    "--trainer.limit_val_batches=1",
    "--trainer.logger=false",
    "--trainer.enable_checkpointing=false",
    "--trainer.enable_progress_bar=false",
    "--trainer.callbacks+=lightning.pytorch.callbacks.EarlyStopping",
    "--trainer.callbacks.monitor=train_loss",
    "--trainer.callbacks.check_on_train_epoch_end=true",
    "--trainer.callbacks.strict=false",
]


def main(args: ArgsType = None):
    cli = LightningCLI(BoringModel, BoringDataModule, args=args)
    print("steps", cli.trainer.global_step, "callbacks", [type(c).__name__ for c in cli.trainer.callbacks][:1])


if __name__ == "__main__":
    main(ARGUMENTS)
