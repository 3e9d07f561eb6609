"""The callback that prunes, as its documentation shows it, and what it checks of the Trainer."""

import lightning.pytorch as pl
import optuna
import pytest
import torch
from optuna_integration import PyTorchLightningPruningCallback
from torch.utils.data import DataLoader


class Quadratic(pl.LightningModule):
    def __init__(self, start):
        super().__init__()
        self.weight = torch.nn.Parameter(torch.tensor(start))

    def training_step(self, batch, batch_idx):
        return self.weight.pow(2) + 0 * batch.sum()

    def validation_step(self, batch, batch_idx):
        self.log("val_loss", self.weight.detach().abs(), sync_dist=True)

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=0.1)


def trainer(callback, **options):
    return pl.Trainer(
        accelerator="cpu",
        devices=options.pop("devices", 1),
        max_epochs=3,
        callbacks=[callback],
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        **options,
    )


def loader():
    return DataLoader(torch.zeros(4, 1), batch_size=2)


def study(**options):
    return optuna.create_study(pruner=optuna.pruners.MedianPruner(n_startup_trials=1), **options)


def test_worse_trial_is_pruned():
    def objective(trial):
        callback = PyTorchLightningPruningCallback(trial, monitor="val_loss")
        run = trainer(callback)
        run.fit(Quadratic([1.0, 100.0][trial.number]), loader(), loader())
        return run.callback_metrics["val_loss"].item()

    done = study()
    done.optimize(objective, n_trials=2)
    found = [(trial.state.name, len(trial.intermediate_values)) for trial in done.trials]
    assert found == [("COMPLETE", 3), ("PRUNED", 1)]


def test_values_reported_are_those_of_validation():
    def objective(trial):
        run = trainer(PyTorchLightningPruningCallback(trial, monitor="val_loss"))
        run.fit(Quadratic(1.0), loader(), loader())
        return run.callback_metrics["val_loss"].item()

    done = study()
    done.optimize(objective, n_trials=1)
    assert list(done.trials[0].intermediate_values.values()) == pytest.approx([0.64, 0.4096, 0.262144])


def test_metric_that_nobody_logs_is_warned_of():
    trial = study().ask()
    run = trainer(PyTorchLightningPruningCallback(trial, monitor="nobody"))
    with pytest.warns(UserWarning, match="not in the evaluation logs"):
        run.fit(Quadratic(1.0), loader(), loader())


def test_trial_of_two_processes_needs_a_database():
    trial = study().ask()
    callback = PyTorchLightningPruningCallback(trial, monitor="val_loss")
    run = trainer(callback, strategy="ddp_spawn", devices=2)
    with pytest.raises(Exception, match="RDBStorage"):
        run.fit(Quadratic(1.0), loader(), loader())


def test_trial_of_two_processes_is_pruned(tmp_path):
    done = study(storage=f"sqlite:///{tmp_path / 'study.db'}")

    def objective(trial):
        callback = PyTorchLightningPruningCallback(trial, monitor="val_loss")
        run = trainer(callback, strategy="ddp_spawn", devices=2)
        run.fit(Quadratic([1.0, 100.0][trial.number]), loader(), loader())
        callback.check_pruned()
        return run.callback_metrics["val_loss"].item()

    done.optimize(objective, n_trials=2)
    assert [trial.state.name for trial in done.trials] == ["COMPLETE", "PRUNED"]
