"""Several loggers in one Trainer: each hears everything, and one that fails says its name."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from fulmen.callbacks import ModelCheckpoint
from fulmen.demos.boring_classes import BoringModel
from fulmen.loggers import CSVLogger, Logger


class Heard(Logger):
    """Keeps what it is told, and spoils it for others as far as it can."""

    name, version = "heard", "0"  # type: ignore[assignment]

    def __init__(self, fails_at: str = "") -> None:
        self.fails_at = fails_at
        self.told: list[tuple[Any, ...]] = []

    def tell(self, what: str, *values: Any) -> None:
        self.told.append((what, *values))
        if what == self.fails_at:
            self.fails_at = ""
            raise ConnectionError(f"no way to {what}")

    def log_metrics(self, metrics, step=None):
        self.tell("log_metrics", dict(metrics), step)
        metrics.clear()

    def log_hyperparams(self, params, *args, **kwargs):
        self.tell("log_hyperparams", dict(params))

    def after_save_checkpoint(self, checkpoint_callback):
        self.tell("after_save_checkpoint", Path(checkpoint_callback.best_model_path).name)

    def finalize(self, status):
        self.tell("finalize", status)


class Other(Heard):
    pass


class Model(BoringModel):
    def __init__(self, lr: float = 0.1) -> None:
        super().__init__()
        self.save_hyperparameters()

    def training_step(self, batch, batch_idx):
        loss = super().training_step(batch, batch_idx)["loss"]
        self.log("loss", loss)
        return loss


def fit(trainer_of: Any, *loggers: Logger) -> None:
    trainer_of(
        logger=list(loggers),
        callbacks=[ModelCheckpoint(every_n_train_steps=2)],
        enable_checkpointing=True,
        max_epochs=1,
        limit_train_batches=2,
        limit_val_batches=0,
        log_every_n_steps=1,
    ).fit(Model())


def test_each_logger_hears_the_same(trainer_of, tmp_path):
    first, second, csv = Heard(), Other(), CSVLogger(tmp_path, name="", version="csv")
    fit(trainer_of, first, second, csv)
    assert first.told == second.told
    kinds = [what for what, *_ in first.told]
    assert kinds == ["log_hyperparams", "log_metrics", "log_metrics", "after_save_checkpoint", "finalize"]
    rows = (tmp_path / "csv/metrics.csv").read_text().splitlines()
    assert rows[1:] == [f"{row['epoch']},{row['loss']},{step}" for _, row, step in first.told[1:3]]


@pytest.mark.parametrize("moment", ["log_hyperparams", "log_metrics", "after_save_checkpoint", "finalize"])
def test_a_logger_that_fails_says_its_name_and_keeps_none_from_hearing(trainer_of, moment):
    fails, after = Other(fails_at=moment), Heard()
    with pytest.raises(ConnectionError, match=f"no way to {moment}") as failure:
        fit(trainer_of, fails, after)
    assert failure.value.__notes__[0] == "This comes from Other, one of the Trainer's 2 loggers."
    assert after.told[: len(fails.told)] == fails.told[: len(after.told)]
    assert moment in {what for what, *_ in after.told}
