"""Packages that were written against Lightning, run on Fulmen as they are."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

import fulmen
from fulmen.utilities.imports import package_available

Python = Callable[..., "subprocess.CompletedProcess[str]"]

#: the second trial is worse from the first epoch on
_STUDY = """
import sys
import lightning.pytorch as pl
import optuna
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


def objective(trial):
    pruning = PyTorchLightningPruningCallback(trial, monitor="val_loss")
    trainer = pl.Trainer(
        accelerator="cpu", devices=int(sys.argv[2]), strategy=sys.argv[1], max_epochs=3, callbacks=[pruning],
        logger=False, enable_checkpointing=False, enable_progress_bar=False, enable_model_summary=False,
    )
    loader = DataLoader(torch.zeros(4, 1), batch_size=2)
    trainer.fit(Quadratic([1.0, 100.0][trial.number]), loader, loader)
    pruning.check_pruned()
    return trainer.callback_metrics["val_loss"].item()


if __name__ == "__main__":
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    pruner = optuna.pruners.MedianPruner(n_startup_trials=1)
    study = optuna.create_study(storage="sqlite:///study.db" or None, pruner=pruner)
    study.optimize(objective, n_trials=2)
    print([(trial.state.name, len(trial.intermediate_values)) for trial in study.trials])
"""
_PRUNED = "[('COMPLETE', 3), ('PRUNED', 1)]\n"


@pytest.mark.filterwarnings("ignore")
def test_optunas_own_callback_prunes_a_trial(
    aliases: None, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in [name for name in sys.modules if name.startswith("optuna_integration.pytorch_lightning")]:
        monkeypatch.delitem(sys.modules, name)  # it looks for Lightning once
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", ["study.py", "auto", "1"])
    exec(compile(_STUDY.replace("sqlite:///study.db", ""), "study.py", "exec"), {"__name__": "__main__"})
    assert capsys.readouterr().out == _PRUNED


@pytest.mark.slow
def test_optunas_own_callback_prunes_a_trial_of_two_processes(python: Python, tmp_path: Path) -> None:
    (tmp_path / "study.py").write_text(_STUDY)
    done = python("-W", "ignore", "-m", "fulmen.compat", "study.py", "ddp_spawn", "2")
    assert done.stdout == _PRUNED, done.stdout + done.stderr


@pytest.mark.slow
@pytest.mark.skipif(
    not package_available("fulmen.strategies.deepspeed"), reason="Ray's module has a subclass of DeepSpeedStrategy"
)
def test_rays_own_module_for_lightning_has_subclasses_of_ours(python: Python) -> None:
    program = (
        "import fulmen.strategies, ray.train.lightning as rays\n"
        "print(issubclass(rays.RayDDPStrategy, fulmen.strategies.DDPStrategy), "
        "issubclass(rays.RayTrainReportCallback, fulmen.Callback))\n"
    )
    folder = python("-m", "fulmen.compat", "--startup").stdout.strip()
    source = str(Path(fulmen.__file__).parents[1])
    done = python("-W", "ignore", "-c", program, environment={"PYTHONPATH": f"{folder}:{source}"})
    assert done.stdout == "True True\n", done.stderr
