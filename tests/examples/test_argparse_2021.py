from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
import torch

from .load import EXAMPLES, load_example

argparse_2021 = load_example("argparse_2021")

SMALL = "--max_epochs 2 --accelerator cpu --enable_progress_bar False --enable_model_summary False"
OF_2021 = (
    "--gpus 0 --max_epochs 2 --progress_bar_refresh_rate 0 --precision 32 --accumulate_grad_batches 2"
    " --weights_summary None"
)


def test_options_reach_the_data_the_model_and_the_trainer(tmp_path: Path) -> None:
    line = f"{SMALL} --hidden_dim 16 --learning_rate 1e-2 --batch_size 64 --default_root_dir {tmp_path}"
    accuracy = argparse_2021.cli_main(line.split())

    assert accuracy > 0.7
    [path] = tmp_path.rglob("*.ckpt")
    model = argparse_2021.LitClassifier.load_from_checkpoint(path)
    assert dict(model.hparams) == {"hidden_dim": 16, "learning_rate": 0.01}
    state = torch.load(path, weights_only=True)
    assert state["epoch"] in (0, 1)
    assert state["global_step"] in (20, 40)  # 1259 images to train on, 64 per batch


def test_program_of_2021_runs_from_the_shell_with_one_warning(tmp_path: Path) -> None:
    command = [
        sys.executable,
        str(EXAMPLES / "argparse_2021.py"),
        *OF_2021.split(),
        "--default_root_dir",
        str(tmp_path),
    ]
    done = subprocess.run(command, capture_output=True, text=True)

    assert done.returncode == 0, done.stderr
    assert "test_acc" in done.stdout
    assert list(tmp_path.rglob("*.ckpt"))
    assert done.stderr.count("Warning:") == 1
    line = "Trainer(accelerator='cpu', enable_progress_bar=False, enable_model_summary=False)"
    assert f"is the way of Lightning 1. Write `{line}`." in done.stderr


def test_trial_run_writes_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    argparse_2021.cli_main(f"{SMALL} --fast_dev_run".split())

    assert not list(tmp_path.iterdir())


def test_help_names_what_can_be_said(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        argparse_2021.cli_main(["--help"])

    shown = capsys.readouterr().out
    for text in ("--hidden_dim", "--batch_size INT", "--max_epochs INT", "DigitsDataModule:", "fulmen.Trainer:"):
        assert text in shown
    assert "--gpus" not in shown
