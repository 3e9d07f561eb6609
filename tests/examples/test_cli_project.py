from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from .load import EXAMPLES, load_example

PROJECT = EXAMPLES / "cli_project"
CONFIGS = PROJECT / "configs"


@pytest.fixture
def project(monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    monkeypatch.setattr("sys.argv", ["main.py"])
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("PL_GLOBAL_SEED", raising=False)
    monkeypatch.setenv("PL_SEED_WORKERS", "0")
    return load_example("cli_project/main")


def test_cli_project_trains_by_its_files_and_tests_its_checkpoint(project) -> None:
    base = f"--config={CONFIGS / 'base.yaml'}"
    quiet = ["--trainer.enable_progress_bar=false", "--trainer.enable_model_summary=false"]

    cli = project.main(["fit", base, f"--config={CONFIGS / 'wide.yaml'}", "--trainer.max_epochs=4", *quiet])

    assert cli.model.hparams.width == 128
    assert cli.trainer.callback_metrics["val_accuracy"] > 0.9
    saved = yaml.safe_load(Path(cli.trainer.log_dir, "config.yaml").read_text())
    assert [entry["class_path"].rpartition(".")[2] for entry in saved["trainer"]["callbacks"]] == [
        "ModelCheckpoint",
        "EarlyStopping",
    ]
    last = Path(cli.trainer.log_dir, "checkpoints", "last.ckpt")
    callbacks = "--trainer.callbacks+={class_path: EarlyStopping, init_args: {monitor: val_accuracy, mode: max}}"
    tested = project.main(["test", base, f"--ckpt_path={last}", callbacks, *quiet])
    assert tested.model.hparams.width == 128
    assert tested.trainer.callback_metrics["test_accuracy"] > 0.88


def test_cli_project_takes_an_optimizer_from_a_file(project) -> None:
    adam = f"--optimizer={CONFIGS / 'adam.yaml'}"

    cli = project.main(["fit", f"--config={CONFIGS / 'base.yaml'}", adam, "--trainer.fast_dev_run=true"])

    assert type(cli.trainer.optimizers[0]).__name__ == "Adam"
    assert cli.trainer.lr_scheduler_configs[0].scheduler.T_max == 5
