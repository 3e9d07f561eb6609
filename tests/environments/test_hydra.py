"""Programs of Hydra, which start their processes by themselves, also in a sweep."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

PROGRAM = """
import json, os, warnings
import hydra
import torch
from omegaconf import DictConfig
from torch.utils.data import DataLoader
from fulmen import LightningModule, Trainer

warnings.simplefilter("ignore")
RESULTS = os.path.abspath("results")

class Module(LightningModule):
    def __init__(self, lr):
        super().__init__()
        self.layer, self.lr = torch.nn.Linear(4, 1), lr

    def training_step(self, batch, batch_idx):
        return self.layer(batch).square().mean()

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), self.lr)

@hydra.main(version_base=None, config_path="conf", config_name="config")
def main(config: DictConfig) -> None:
    from hydra.core.hydra_config import HydraConfig
    module = Module(config.lr)
    trainer = Trainer(accelerator="cpu", devices=2, max_epochs=1, logger=False, enable_progress_bar=False,
                      enable_model_summary=False)
    trainer.fit(module, DataLoader(torch.ones(8, 4), batch_size=2))
    job = HydraConfig.get()
    seen = dict(rank=trainer.global_rank, world=trainer.world_size, lr=config.lr, name=config.name, cwd=os.getcwd(),
                folder=job.runtime.output_dir, number=job.job.get("num"), weights=module.layer.weight.tolist())
    os.makedirs(RESULTS, exist_ok=True)
    with open(f"{RESULTS}/lr{config.lr}-rank{trainer.global_rank}.json", "w") as file:
        json.dump(seen, file)

main()
"""


@pytest.fixture
def program(tmp_path: Path) -> Path:
    pytest.importorskip("hydra")
    (tmp_path / "conf").mkdir()
    (tmp_path / "conf" / "config.yaml").write_text("lr: 0.5\nname: none\n")
    (tmp_path / "train.py").write_text(PROGRAM)
    return tmp_path


def run(program: Path, *arguments: str) -> None:
    done = subprocess.run(
        [sys.executable, "train.py", *arguments],
        cwd=program,
        capture_output=True,
        text=True,
        timeout=280,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.slow
@pytest.mark.parametrize("changes_directory", [True, False])
def test_sweep_makes_one_folder_for_each_job(changes_directory: bool, program: Path) -> None:
    run(program, "-m", "lr=0.1,0.2", "name='a b=c'", f"hydra.job.chdir={changes_directory}", "hydra.sweep.dir=sweep")
    assert sorted(path.name for path in (program / "sweep").iterdir()) == ["0", "1", "multirun.yaml"]
    assert not (program / "outputs").exists()
    assert not (program / "multirun").exists()
    for number, lr in enumerate((0.1, 0.2)):
        folder = program / "sweep" / str(number)
        ranks = [json.loads((program / "results" / f"lr{lr}-rank{rank}.json").read_text()) for rank in (0, 1)]
        assert [one["rank"] for one in ranks] == [0, 1]
        for one in ranks:
            assert (one["world"], one["lr"], one["name"], one["number"]) == (2, lr, "a b=c", number)
            assert one["folder"] == str(folder)
            assert one["cwd"] == str(folder if changes_directory else program)
            assert one["weights"] == ranks[0]["weights"]
        kept = (folder / ".hydra" / "overrides.yaml").read_text()
        assert f"lr={lr}" in kept
        assert "hydra" not in kept  # those of the job, not of the process that was started for it


@pytest.mark.slow
def test_single_run_makes_one_folder(program: Path) -> None:
    (program / "other").mkdir()
    (program / "other" / "changed.yaml").write_text("lr: 0.3\nname: other\n")
    run(program, "--config-path=other", "-cn", "changed", "hydra.run.dir=one/run", "+more=1")
    assert [path.name for path in (program / "one").iterdir()] == ["run"]
    assert not (program / "outputs").exists()
    ranks = [json.loads((program / "results" / f"lr0.3-rank{rank}.json").read_text()) for rank in (0, 1)]
    assert [one["name"] for one in ranks] == ["other", "other"]
    assert {one["folder"] for one in ranks} == {str(program / "one" / "run")}
