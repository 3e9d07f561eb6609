"""A callback reports a run to a trial of Optuna, and ends it where the study's pruner says so."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import optuna
import pytest
import torch
from tests.distributed.processes import run
from torch import Tensor, nn
from torch.utils.data import DataLoader

from fulmen import LightningModule, Trainer
from fulmen.integrations.optuna import MissingMonitor, PruningCallback


class Scored(LightningModule):
    """Logs ``score``, ``worth`` + the epoch, while training or while validating."""

    def __init__(self, worth: float = 0.0, validates: bool = False) -> None:
        super().__init__()
        self.worth, self.validates = worth, validates
        self.layer = nn.Linear(1, 1)

    def training_step(self, batch: Tensor, batch_idx: int) -> Tensor:
        return self.layer(batch).mean()

    def on_train_epoch_end(self) -> None:
        if not self.validates:
            self.log("score", self.worth + self.current_epoch)

    def validation_step(self, batch: Tensor, batch_idx: int) -> None:
        if self.validates:
            self.log("score", self.worth + self.global_step)

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.SGD(self.parameters(), lr=0.01)


def loader() -> DataLoader:
    return DataLoader(torch.ones(4, 1))


def fit(trial: Any, module: LightningModule, monitor: str = "score", **arguments: Any) -> Trainer:
    """Fit with the callback, and give the trainer also if the trial was pruned."""
    quiet = {
        "logger": False,
        "enable_checkpointing": False,
        "enable_progress_bar": False,
        "enable_model_summary": False,
    }
    trainer = Trainer(
        callbacks=[PruningCallback(trial, monitor)], accelerator="cpu", **{"max_epochs": 3, **quiet, **arguments}
    )
    trainer.fit(module, loader(), loader())
    return trainer


def study(pruner: Any = None) -> optuna.Study:
    return optuna.create_study(direction="maximize", pruner=pruner or optuna.pruners.NopPruner())


def reported(of: optuna.Study, number: int = -1) -> dict[int, float]:
    return of.trials[number].intermediate_values


def test_the_metric_is_reported_once_per_epoch_also_what_the_module_logs_at_its_end() -> None:
    kept = study()

    fit(kept.ask(), Scored(10))

    assert reported(kept) == {0: 10, 1: 11, 2: 12}


def test_the_metric_of_the_validation_is_reported_by_epochs_and_not_of_the_sanity_check() -> None:
    kept = study()

    fit(kept.ask(), Scored(validates=True))

    assert reported(kept) == {0: 4, 1: 8, 2: 12}


def test_a_validation_every_second_epoch_is_reported_in_that_epoch() -> None:
    kept = study()

    fit(kept.ask(), Scored(validates=True), max_epochs=4, check_val_every_n_epoch=2)

    assert reported(kept) == {1: 8, 3: 16}


def test_validations_within_an_epoch_are_reported_by_steps() -> None:
    kept = study()

    fit(kept.ask(), Scored(validates=True), max_epochs=2, val_check_interval=2)

    assert reported(kept) == {2: 2, 4: 4, 6: 6, 8: 8}


def test_a_trial_that_is_worse_than_the_others_is_pruned() -> None:
    kept = study(optuna.pruners.MedianPruner(n_startup_trials=1))

    def objective(trial: optuna.Trial) -> float:
        return fit(trial, Scored(10 - trial.number)).callback_metrics["score"].item()

    kept.optimize(objective, n_trials=2)

    assert [trial.state.name for trial in kept.trials] == ["COMPLETE", "PRUNED"]
    assert reported(kept, 1) == {0: 9}


def test_a_metric_that_is_never_logged_ends_the_run_and_names_those_that_were() -> None:
    with pytest.raises(MissingMonitor, match=r"monitor='scores'\) found no metric of that name. There are: 'score'"):
        fit(study().ask(), Scored(), monitor="scores")


def test_a_value_that_was_reported_before_a_run_was_continued_is_kept_in_silence() -> None:
    kept = study()
    trial = kept.ask()
    trial.report(99, 0)

    fit(trial, Scored(10))

    assert reported(kept) == {0: 99, 1: 11, 2: 12}


def test_a_value_that_is_nan_is_reported_and_does_not_prune() -> None:
    kept = study(optuna.pruners.ThresholdPruner(lower=0))

    fit(kept.ask(), Scored(float("nan")))

    assert len(reported(kept)) == 3


# -- several processes ------------------------------------------------------------------------------------------------


def rank_of_a_job(database: str) -> tuple[str, float]:
    """Fit in one of two processes; what ended it, and its weight."""
    import os

    rank = int(os.environ["LOCAL_RANK"])
    trial = None
    if rank == 0:
        kept = optuna.load_study(
            study_name="pruned", storage=database, pruner=optuna.pruners.MedianPruner(n_startup_trials=1)
        )
        trial = kept.ask()
    module = Scored(5)
    try:
        fit(trial, module, strategy="ddp", devices=2)
    except optuna.TrialPruned as pruned:
        if trial is not None:
            kept.tell(trial, state=optuna.trial.TrialState.PRUNED)
        return str(pruned), module.layer.weight.item()
    return "not pruned", module.layer.weight.item()


def test_of_two_processes_rank_0_reports_and_both_are_pruned_at_the_same_step(tmp_path: Path) -> None:
    database = f"sqlite:///{tmp_path / 'study.db'}"
    kept = optuna.create_study(study_name="pruned", storage=database, direction="maximize")
    better = kept.ask()
    better.report(100, 0)
    kept.tell(better, 100)

    first, second = run(2, rank_of_a_job, database)

    assert first == second
    assert first[0] == "pruned at step 0 of the trial, by score"
    assert [trial.state.name for trial in kept.trials] == ["COMPLETE", "PRUNED"]
    assert reported(kept, 1) == {0: 5}
