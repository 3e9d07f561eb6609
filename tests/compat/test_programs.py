"""Programs that say Lightning, run unmodified by ``python -m fulmen.compat``: in one process, and in several."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from fulmen.compat.__main__ import main

SCRIPTS = Path(__file__).parent / "scripts"
Python = Callable[..., "subprocess.CompletedProcess[str]"]

#: what each program prints at its end; on Lightning 2.6.6 it prints the same
LAST_LINES = {
    "argparse_2022": "lr 0.1 steps 12 timed True",
    "autoencoder_2020": "val_loss tensor(True)",
    "bug_report": "tested ['test_loss'] epochs 1",
    "command_line": "steps 2 callbacks ['EarlyStopping']",
    "custom_sampler_and_bar": "order [11, 7, 3]",
    "early_stopping_deep_paths": "stopped_epoch 2 checkpoints 2",
    "gan_manual_optimization": "steps 16",
    "metrics_of_torchmetrics": "learned True ['train_loss', 'train_loss_epoch', 'train_loss_step', "
    "'val_MulticlassAccuracy', 'val_MulticlassF1Score']",
    "prediction_writer": "files ['0_0.pt', '0_1.pt', '0_2.pt', '0_3.pt']",
    "reinforcement_learning": "steps 6 memory 16",
    "several_loaders": "batches 4 metrics ['val/dataloader_idx_0', 'val/dataloader_idx_1']",
    "transfer_learning": "thawed True",
    "vae_datamodule": "latent_dim 3",
}


def test_every_program_has_its_last_line_here() -> None:
    assert {path.stem for path in SCRIPTS.glob("*.py")} == LAST_LINES.keys()


@pytest.mark.filterwarnings("ignore")  # what a program is warned of is its own affair
@pytest.mark.parametrize("name", sorted(LAST_LINES))
def test_a_program_of_lightning_runs_unmodified(
    name: str, aliases: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", sys.argv)
    monkeypatch.setattr(sys, "path", [*sys.path])
    monkeypatch.setitem(sys.modules, "__main__", sys.modules["__main__"])
    main([str(SCRIPTS / f"{name}.py")])
    assert capsys.readouterr().out.splitlines()[-1] == LAST_LINES[name]


def test_a_program_sees_what_python_would_show_it(python: Python, tmp_path: Path) -> None:
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder" / "beside.py").write_text("")
    (tmp_path / "folder" / "program.py").write_text(
        "import beside, os, sys\n"
        "import __main__\n"
        "print(__name__, __file__, sys.argv, os.getcwd(), sys.path[0], __main__.sys is sys)\n"
        "print(__package__, __spec__, __doc__)\n"
        "sys.exit(7)\n"
    )
    script = os.path.join("folder", "program.py")
    alias, plain = python("-m", "fulmen.compat", script, "-m", "--x"), python(script, "-m", "--x")
    assert plain.returncode == 7
    assert (alias.stdout, alias.returncode) == (plain.stdout, plain.returncode), alias.stderr


@pytest.mark.parametrize("module", ["package", "package.inner"])
def test_a_module_sees_what_python_would_show_it(python: Python, tmp_path: Path, module: str) -> None:
    (tmp_path / "package").mkdir()
    text = "import sys\nprint(__name__, __package__, __spec__.name, __file__, sys.argv, sys.path[0])\n"
    for name in ("__main__", "inner"):
        (tmp_path / "package" / f"{name}.py").write_text(text)
    alias, plain = python("-m", "fulmen.compat", "-m", module, "a"), python("-m", module, "a")
    assert plain.returncode == 0
    assert alias.stdout == plain.stdout, alias.stderr


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ([], "usage: python -m fulmen.compat SCRIPT"),
        (["nowhere.py"], "there is no file 'nowhere.py'"),
        (["-m", "nowhere"], "there is no module 'nowhere' that could be run"),
        (["-m", "nowhere.inner"], "there is no module 'nowhere', which 'nowhere.inner' is in"),
        (["--startupp"], "there is no option --startupp"),
    ],
)
def test_a_command_that_names_no_program_ends_with_2_and_says_so(
    arguments: list[str], said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as caught:
        main(arguments)
    assert caught.value.code == 2
    assert said in capsys.readouterr().err


_SEVERAL = """
import os, sys
import pytorch_lightning as pl, torch
from layers import Regression
from torch.utils.data import DataLoader

if __name__ == "__main__":
    arguments = dict(accelerator="cpu", devices=2, strategy=sys.argv[1], max_epochs=1, logger=False)
    loader = DataLoader(torch.randn(8, 2), num_workers=1, multiprocessing_context="spawn")
    quiet = dict(enable_checkpointing=False, enable_progress_bar=False, enable_model_summary=False)
    trainer = pl.Trainer(**arguments, **quiet)
    trainer.fit(Regression(), loader)
    sys.stdout.write(f"steps {trainer.global_step} {trainer.world_size}\\n")  # in one piece, as two processes write
    sys.stdout.flush()
"""
_LAYERS = """
import lightning as L, torch

class Regression(L.LightningModule):
    def __init__(self):
        super().__init__()
        self.layer = torch.nn.Linear(2, 1)

    def training_step(self, batch, batch_idx):
        return self.layer(batch).mean()

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=0.1)
"""


@pytest.mark.slow
@pytest.mark.parametrize("way", ["script", "module"])
@pytest.mark.parametrize(("strategy", "printed"), [("ddp", 2), ("ddp_spawn", 1)])
def test_processes_that_the_program_starts_have_the_names_too(
    python: Python, tmp_path: Path, way: str, strategy: str, printed: int
) -> None:
    """The other ranks, and the workers of the loader, which import the program again."""
    folder = tmp_path / "folder" if way == "script" else tmp_path
    folder.mkdir(exist_ok=True)
    (folder / "program.py").write_text(_SEVERAL)
    (folder / "layers.py").write_text(_LAYERS)
    named = [os.path.join("folder", "program.py")] if way == "script" else ["-m", "program"]
    done = python("-W", "ignore", "-m", "fulmen.compat", *named, strategy)
    assert done.stdout.count("steps 4 2\n") == printed, done.stdout + done.stderr
    assert done.returncode == 0


@pytest.mark.slow
def test_a_program_that_installs_the_names_itself_is_started_again_with_them(python: Python, tmp_path: Path) -> None:
    (tmp_path / "layers.py").write_text(_LAYERS)
    text = _SEVERAL.replace(', num_workers=1, multiprocessing_context="spawn"', "")
    (tmp_path / "program.py").write_text("from fulmen.compat import install\ninstall()\n" + text)
    done = python("-W", "ignore", "program.py", "ddp")
    assert done.stdout.count("steps 4 2\n") == 2, done.stdout + done.stderr
