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

#: what each program of the years of 2.x prints at its end; on Lightning 2.6.6 it prints the same
OF_2 = {
    "argparse_2022": "lr 0.1 steps 12 timed True",
    "autoencoder_2020": "val_loss tensor(True)",
    "bug_report": "tested ['test_loss'] epochs 1",
    "command_line": "steps 2 callbacks ['EarlyStopping']",
    "command_line_subclasses": "Wide 3 4 12",
    "custom_sampler_and_bar": "order [11, 7, 3]",
    "datamodule_prepare_data": "['fit', 'down', 'test', 'down', 'predict', 'down'] [{'test/acc': "
    "0.8333333134651184}] [6, 5, 19]",
    "distillation": "kl 0.037669 -1.66414",
    "early_stopping_and_resume": "epochs 6 6 best epoch=3-step=16.ckpt 0.078643",
    "early_stopping_deep_paths": "stopped_epoch 2 checkpoints 2",
    "gan_manual_optimization": "steps 16",
    "gradient_checkpointing": "norms [16.1125, 10.878, 8.3512, 9.373, 10.405, 9.6173] 4.9476",
    "k_fold": "folds [0.333, 0.3273, 0.3151]",
    "loggers_in_use": "files ['events', 'hparams'] columns ['epoch', 'lr-SGD', 'step', "
    "'train/loss', 'val/loss'] val [0.0016, 0.0]",
    "metrics_of_torchmetrics": "learned True ['train_loss', 'train_loss_epoch', 'train_loss_step', "
    "'val_MulticlassAccuracy', 'val_MulticlassF1Score']",
    "multi_label_metrics": "{'train_acc': 0.7609, 'train_f1': 0.6528, 'val_acc': 0.7625, 'val_f1': 0.6577}",
    "prediction_writer": "files ['0_0.pt', '0_1.pt', '0_2.pt', '0_3.pt']",
    "profiled_run": "files {'fit-advanced.txt': True, 'fit-simple.txt': True} True",
    "reinforcement_learning": "steps 6 memory 16",
    "segmentation_unet": "dice above 0.8 True 0.0 ['train_loss', 'val_dice', 'val_share']",
    "self_supervised_simclr": "{'loss': 3.502, 'online_loss': 2.195}",
    "several_loaders": "batches 4 metrics ['val/dataloader_idx_0', 'val/dataloader_idx_1']",
    "siamese_contrastive": "embeddings (16, 2) 20.008 {}",
    "transfer_learning": "thawed True",
    "transformer_language_model": "steps 12 perplexity 14.97",
    "vae_datamodule": "latent_dim 3",
}
#: the same for programs that only Lightning 1 runs; on pytorch-lightning 1.9.5 they print the same
OF_1 = {
    "gan_optimizer_idx": "losses [[0.69, 0.7237], [0.7037, 0.712], [0.7276, 0.6988], [0.7337, "
    "0.6951]] sample 0.4396 16",
    "learning_rate_finder": "['lr_find', 'scale_batch_size'] True True",
    "lstm_truncated_bptt": "steps 48 loss 0.01361",
    "ppo_optimizer_idx": "weights 6.529 learns True",
    "several_validation_sets": "{'samples': 16.0, 'val_far': 0.8323, 'val_near': 0.12275}",
    "warmup_in_optimizer_step": "rates [0.05, 0.1, 0.15, 0.2, 0.2, 0.1819, 0.1819, 0.1819, 0.1819, "
    "0.1819] loss 0.37766",
    "wgan_frequencies": "turns 011111011111 weights 2.767 12",
}
#: the same for programs of versions that run on no Python of today
OF_EARLIER = {
    "callbacks_of_1x": "['init', 'routine', 'epoch', 'epoch', 'val000', 'end'] 3 6 2",
    "classifier_epoch_end_2021": "fit {'train_acc': 0.87, 'val_acc': 0.855, 'val_loss': 0.9325} test "
    "0.8550000190734863",
    "dicts_of_2019": "epochs 30 stopped early False falls True",
    "hparams_namespace_2020": "epoch=3.ckpt 0.9681 8 True",
    "tpu_flags_2021": "epochs 3 ['loss', 'loss_epoch', 'loss_step'] False",
}
LAST_LINES = {**OF_2, **OF_1, **OF_EARLIER}


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
