"""``fulmen fit`` and its sisters as they are typed: a module and its data from a folder, without a script."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from fulmen.__main__ import main

NETS = '''
import torch
from torch import nn
from torch.utils.data import DataLoader

from fulmen import LightningDataModule, LightningModule


class Net(LightningModule):
    """A line through points.

    Args:
        slope: where the line begins.
        lr: how fast it is turned.
    """

    def __init__(self, slope: float = 0.0, lr: float = 0.1):
        super().__init__()
        self.save_hyperparameters()
        self.slope = nn.Parameter(torch.tensor(slope))

    def training_step(self, batch, batch_idx):
        loss = (self.slope * batch - 3 * batch).square().mean()
        self.log("loss", loss)
        return loss

    def validation_step(self, batch, batch_idx):
        self.log("val_loss", (self.slope * batch - 3 * batch).square().mean())

    def test_step(self, batch, batch_idx):
        self.log("slope", self.slope)

    def predict_step(self, batch, batch_idx):
        return self.slope * batch

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=self.hparams.lr)


class Points(LightningDataModule):
    def __init__(self, count: int = 8):
        super().__init__()
        self.save_hyperparameters()
        self.count = count

    def loader(self):
        return DataLoader(torch.linspace(0, 1, self.count), batch_size=4)

    train_dataloader = val_dataloader = test_dataloader = predict_dataloader = loader
'''
QUIET = ["--trainer.enable_progress_bar=false", "--trainer.enable_model_summary=false", "--trainer.accelerator=cpu"]


@pytest.fixture
def project(tmp_path: Path) -> Path:
    (tmp_path / "nets.py").write_text(NETS)
    return tmp_path


def fulmen(project: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    command = Path(sys.executable).with_name("fulmen")
    started = [str(command)] if command.exists() else [sys.executable, "-m", "fulmen"]
    return subprocess.run(
        [*started, *arguments],
        cwd=project,
        env={**os.environ, "CUDA_VISIBLE_DEVICES": ""},
        capture_output=True,
        text=True,
        timeout=120,
    )


def test_module_of_the_working_directory_is_fitted_and_then_tested_from_its_checkpoint(project: Path) -> None:
    run = ["--model", "nets.Net", "--data", "nets.Points", *QUIET, "--trainer.logger=CSVLogger"]
    run.append("--trainer.logger.save_dir=.")
    done = fulmen(project, "fit", *run, "--trainer.max_epochs=3", "--model.slope=1", "--data.count=12")
    assert done.returncode == 0, done.stderr
    version = project / "lightning_logs" / "version_0"
    config = yaml.safe_load((version / "config.yaml").read_text())
    assert config["model"] == {"class_path": "nets.Net", "init_args": {"slope": 1.0, "lr": 0.1}}
    assert config["data"] == {"class_path": "nets.Points", "init_args": {"count": 12}}

    (checkpoint,) = (version / "checkpoints").glob("*.ckpt")
    tested = fulmen(project, "test", *run, f"--ckpt_path={checkpoint}")
    assert tested.returncode == 0, tested.stderr
    assert "slope" in tested.stdout


def test_saved_configuration_runs_again(project: Path) -> None:
    run = ["--model", "nets.Net", "--data", "nets.Points", *QUIET, "--trainer.max_epochs=2"]
    assert fulmen(project, "fit", *run).returncode == 0
    first = project / "lightning_logs" / "version_0" / "config.yaml"
    again = fulmen(project, "fit", "--config", str(first))
    assert again.returncode == 0, again.stderr
    assert (project / "lightning_logs" / "version_1" / "config.yaml").read_text() == first.read_text()


@pytest.mark.slow
def test_two_devices_start_the_command_again(project: Path) -> None:
    run = ["--model", "nets.Net", "--data", "nets.Points", *QUIET, "--trainer.max_epochs=1", "--trainer.devices=2"]
    done = fulmen(project, "fit", *run)
    assert done.returncode == 0, done.stderr
    assert (project / "lightning_logs" / "version_0" / "config.yaml").exists()
    assert not (project / "lightning_logs" / "version_1").exists()


@pytest.mark.parametrize("subcommand", ["validate", "predict"])
def test_validate_and_predict_run_the_module_that_is_named(
    subcommand: str, project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(project)
    monkeypatch.setattr(sys, "path", [str(project), *sys.path])
    monkeypatch.delitem(sys.modules, "nets", raising=False)
    assert main([subcommand, "--model=nets.Net", "--data=nets.Points", *QUIET, "--trainer.logger=false"]) == 0


def test_checkpoint_that_is_not_there_is_one_line(
    project: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(project)
    monkeypatch.setattr(sys, "path", [str(project), *sys.path])
    monkeypatch.delitem(sys.modules, "nets", raising=False)
    words = ["test", "--model=nets.Net", "--data=nets.Points", *QUIET, "--trainer.logger=false"]
    assert main([*words, "--ckpt_path=nowhere.ckpt"]) == 1
    assert "fulmen test: error: There is no checkpoint nowhere.ckpt" in capsys.readouterr().err


def test_fit_without_data_names_the_option(
    project: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(project)
    monkeypatch.setattr(sys, "path", [str(project), *sys.path])
    monkeypatch.delitem(sys.modules, "nets", raising=False)
    assert main(["test", "--model=nets.Net", *QUIET, "--trainer.logger=false"]) == 1
    assert "`--data my_module.MyData`" in capsys.readouterr().err


def test_help_names_an_option_once_and_has_no_markup(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as end:
        main(["fit", "--help"])
    assert end.value.code == 0
    text = capsys.readouterr().out
    assert text.startswith("usage: fulmen fit [options]\n")
    assert text.count("--trainer.max_epochs MAX_EPOCHS") == 1
    assert [mark for mark in ("``", ":class:", ":meth:", "<class", "Union[") if mark in text] == []


def test_help_of_the_command_imports_no_torch() -> None:
    program = (
        "import atexit, sys; atexit.register(lambda: print('torch' in sys.modules, file=sys.stderr)); "
        "from fulmen.__main__ import main; main(['--help'])"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60)
    assert done.stderr.strip() == "False"


def test_print_config_is_a_file_that_fit_takes(
    project: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(project)
    monkeypatch.setattr(sys, "path", [str(project), *sys.path])
    monkeypatch.delitem(sys.modules, "nets", raising=False)
    with pytest.raises(SystemExit):
        main(["fit", "--model=nets.Net", "--data=nets.Points", "--model.lr=0.5", "--print_config"])
    first = capsys.readouterr().out
    Path("printed.yaml").write_text(first)
    with pytest.raises(SystemExit):
        main(["fit", "--config=printed.yaml", "--print_config"])
    assert capsys.readouterr().out == first


@pytest.fixture(scope="module")
def bash_script(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("completion") / "fulmen.bash"
    done = subprocess.run([sys.executable, "-m", "fulmen", "completion", "bash"], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    path.write_text(done.stdout)
    return path


@pytest.mark.skipif(shutil.which("bash") is None, reason="there is no bash")
@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["fi"], "fit"),
        (["fit", "--trainer.max_e"], "--trainer.max_epochs"),
        (["test", "--trainer.max_e"], "--trainer.max_epochs"),
        (["fit", "--optimizer", "Adagr"], "Adagrad"),
        (["fit", "--trainer.barebones", "t"], "true"),
        (["checkpoint", "sho"], "show"),
    ],
    ids=lambda value: "-".join(value).replace("--", "") if isinstance(value, list) else value,
)
def test_bash_completes_what_is_begun(words: list[str], expected: str, bash_script: Path) -> None:
    line = ["fulmen", *words]
    program = (
        f"source {bash_script}; COMP_WORDS=({' '.join(line)}); COMP_CWORD={len(words)}; "
        '_shtab_fulmen 2>/dev/null; echo "${COMPREPLY[@]}"'
    )
    done = subprocess.run(["bash", "-c", program], capture_output=True, text=True, timeout=20)
    assert done.stdout.split() == [expected], done
