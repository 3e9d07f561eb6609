"""The handwritten digits on several workers of Ray, or a search for a learning rate by Ray Tune.

    pip install 'fulmen[ray]'
    python examples/ray_train.py --workers 2                 # train together; a worker that dies is started again
    python examples/ray_train.py --search 8                  # eight trials; bad ones are stopped early

Both start a Ray on this machine. On a cluster of Ray, the same program runs there: see `ray job submit`.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import ray.train
import ray.tune
from ray.train.torch import TorchTrainer
from ray.tune.schedulers import ASHAScheduler

from fulmen import Trainer, seed_everything
from fulmen.demos.digits import DigitsClassifier, DigitsDataModule
from fulmen.integrations.ray import (
    CHECKPOINT_NAME,
    RayDDPStrategy,
    RayTrainReportCallback,
    prepare_trainer,
    reported_checkpoint,
)


def work(config: dict[str, Any]) -> None:
    """What each worker does: as without Ray, but for the strategy, the callback and where the run goes on from."""
    fit(config, strategy=RayDDPStrategy())


def trial(config: dict[str, Any]) -> None:
    """What each trial of a search does, in one process."""
    fit(config)


def fit(config: dict[str, Any], **arguments: Any) -> None:
    """Train with the learning rate and for the epochs of ``config``."""
    seed_everything(config["seed"])
    trainer = Trainer(
        accelerator="cpu",
        max_epochs=config["epochs"],
        logger=False,
        callbacks=[RayTrainReportCallback(["val_loss", "val_acc"])],
        enable_checkpointing=False,  # Ray keeps those that the callback reports
        enable_progress_bar=False,
        enable_model_summary=False,
        **arguments,
    )
    if arguments:
        trainer = prepare_trainer(trainer)
    model = DigitsClassifier(learning_rate=config["learning_rate"])
    with reported_checkpoint() as path:
        trainer.fit(model, datamodule=DigitsDataModule(), ckpt_path=path)


def train(arguments: argparse.Namespace, config: dict[str, Any], storage: str) -> ray.train.Result:
    """Train on several workers."""
    trainer = TorchTrainer(
        work,
        train_loop_config=config,
        scaling_config=ray.train.ScalingConfig(num_workers=arguments.workers, resources_per_worker={"CPU": 0.5}),
        run_config=ray.train.RunConfig(
            name="train",
            storage_path=storage,
            failure_config=ray.train.FailureConfig(max_failures=2),
            checkpoint_config=ray.train.CheckpointConfig(num_to_keep=1),
        ),
    )
    return trainer.fit()


def search(arguments: argparse.Namespace, config: dict[str, Any], storage: str) -> ray.tune.Result:
    """Search for the learning rate; returns the best trial."""
    tuner = ray.tune.Tuner(
        trial,
        param_space={**config, "learning_rate": ray.tune.loguniform(1e-5, 1e-1)},
        tune_config=ray.tune.TuneConfig(
            metric="val_loss",
            mode="min",
            num_samples=arguments.search,
            scheduler=ASHAScheduler(max_t=arguments.epochs, grace_period=1, reduction_factor=2),
        ),
        run_config=ray.tune.RunConfig(name="search", storage_path=storage, verbose=1),
    )
    return tuner.fit().get_best_result()


def main(argv: list[str] | None = None) -> float:
    """Train or search as the command line says; returns the accuracy on the images that were kept for validation."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0] if __doc__ else None)
    parser.add_argument("--workers", type=int, default=2, help="processes that train together")
    parser.add_argument("--search", type=int, default=0, metavar="TRIALS", help="search, with so many trials")
    parser.add_argument("--epochs", type=int, default=5)
    parser.add_argument("--learning-rate", type=float, default=3e-3)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--dir", default="ray_runs", help="the folder for results and checkpoints")
    arguments = parser.parse_args(argv)
    config = {name: getattr(arguments, name) for name in ("epochs", "learning_rate", "seed")}
    run = search if arguments.search else train
    if not ray.is_initialized():
        ray.init(include_dashboard=False)
    result = run(arguments, config, str(Path(arguments.dir).resolve()))
    assert result.checkpoint is not None
    assert result.metrics is not None
    model = DigitsClassifier.load_from_checkpoint(Path(result.checkpoint.path, CHECKPOINT_NAME))
    accuracy = result.metrics["val_acc"]
    print(f"learning rate {model.hparams.learning_rate:.2g}: {accuracy:.1%} of the images kept for validation")
    return accuracy


if __name__ == "__main__":
    main()
