"""Record small checkpoints of Lightning in ``recorded/``: ``python tests/interchange/record.py``, run where Lightning
2.6.6 is installed, with omegaconf and jsonargparse.
"""

from __future__ import annotations

import collections
import datetime
import enum
import functools
import json
import os
import pathlib
import sys
import tempfile
from argparse import Namespace
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import numpy as np
import torch
from torch import nn

from interchange.toys import Run, network, run

ROOT = "lightning.pytorch"
RECORDED = Path(__file__).with_name("recorded")

WATCHED = [("ModelCheckpoint", {"monitor": "val_loss", "save_top_k": 2}), ("EarlyStopping", {"monitor": "val_loss"})]
#: the run of each file, and when it was written
RUNS: dict[str, tuple[Run, str]] = {
    "epoch_end": (Run(trainer={"max_epochs": 2}), "on_train_epoch_end 1"),
    "mid_epoch": (Run(trainer={"max_epochs": 2}), "on_train_batch_end 3"),
    "last_batch": (Run(trainer={"max_epochs": 2}), "on_train_batch_end 5"),
    "validation_end": (Run(trainer={"max_epochs": 2, "val_check_interval": 2}), "on_validation_end 1"),
    "batch_start": (Run(trainer={"max_epochs": 2}), "on_train_batch_start 8"),
    "epoch_start": (Run(trainer={"max_epochs": 2}), "on_train_epoch_start 2"),
    "hpc_ckpt_1": (Run(trainer={"max_epochs": 2}), "on_before_optimizer_step 4"),  # a signal comes at any time
    "watched": (Run(trainer={"max_epochs": 2}, callbacks=WATCHED), "on_train_epoch_end 1"),
    "accumulated": (Run(trainer={"max_epochs": 2, "accumulate_grad_batches": 2}), "on_train_batch_end 4"),
    "open_window": (Run(trainer={"max_epochs": 2, "accumulate_grad_batches": 2}), "on_train_batch_end 8"),
    "manual": (Run(model="Rivals", trainer={"max_epochs": 2, "limit_val_batches": 0}), "on_train_batch_end 7"),
    "averaged": (
        Run(trainer={"max_epochs": 2}, callbacks=[("EMAWeightAveraging", {"decay": 0.9})]),
        "on_train_batch_end 3",
    ),
    "finished": (Run(trainer={"max_epochs": 1}), "after"),
}
#: runs whose counters are recorded at every moment
LOOKED_AT: dict[str, Run] = {
    "plain": Run(trainer={"max_epochs": 2}, looks=True),
    "accumulated": Run(trainer={"max_epochs": 2, "accumulate_grad_batches": 2}, looks=True),
    "validated_often": Run(trainer={"max_epochs": 1, "val_check_interval": 2}, looks=True),
    "manual": Run(model="Rivals", trainer={"max_epochs": 2, "limit_val_batches": 0}, looks=True),
}


class Color(enum.Enum):
    RED = 1
    BLUE = "blue"


@dataclass
class Schedule:
    warmup: int = 3
    peaks: list[float] = field(default_factory=lambda: [0.1, 0.2])


class Tokenizer:
    """A class of somebody's own."""

    def __init__(self) -> None:
        self.words = {"a": 0, "b": 1}


def hyperparameters() -> dict[str, Any]:
    from lightning.pytorch.utilities.parsing import AttributeDict

    return {
        "width": 3,
        "rate": 0.1,
        "name": "net",
        "nothing": None,
        "pair": (1, 2),
        "namespace": Namespace(a=1, b=[2, 3]),
        "attributes": AttributeDict(x=1, y={"z": 2}),
        "path": pathlib.PurePosixPath("data") / "train",
        "color": Color.RED,
        "blue": Color.BLUE,
        "schedule": Schedule(),
        "scalar": np.float64(0.5),
        "array": np.arange(6, dtype=np.int32).reshape(2, 3),
        "names": {"a", "b"},
        "frozen": frozenset([1, 2]),
        "ordered": collections.OrderedDict(a=1, b=2),
        "counted": collections.Counter("aab"),
        "day": datetime.date(2024, 2, 29),
        "moment": datetime.datetime(2024, 2, 29, 12, 30),
        "span": datetime.timedelta(hours=1),
        "steps": range(0, 10, 2),
        "raw": b"\x00\xff",
        "complex": 1 + 2j,
        "dtype": torch.bfloat16,
        "device": torch.device("cpu"),
        "shape": torch.Size([2, 3]),
        "weight": torch.arange(3.0),
        "activation": functools.partial(nn.functional.leaky_relu, negative_slope=0.2),
        "function": nn.functional.relu,
        "layer": nn.ReLU,
        "module": nn.Linear(2, 2),
        "tokenizer": Tokenizer(),
    }


def record_hyperparameters(folder: Path) -> None:
    """Files with hyperparameters that need more than plain data, in both of torch's formats."""
    import lightning.pytorch as pl
    from omegaconf import OmegaConf

    class Net(pl.LightningModule):
        def __init__(self, **hparams: Any) -> None:
            super().__init__()
            self.save_hyperparameters()
            self.net = network()

    class Configured(pl.LightningModule):
        def __init__(self, config: Any) -> None:
            super().__init__()
            self.save_hyperparameters(config)
            self.net = network()

    config = OmegaConf.create({"width": 3, "data": {"root": "data", "batch": "${width}", "sizes": [1, 2]}})
    for name, model in (("hyperparameters", Net(**hyperparameters())), ("omegaconf", Configured(config))):
        save_untrained(model, folder / f"{name}.ckpt")
    checkpoint = torch.load(folder / "hyperparameters.ckpt", weights_only=False)
    torch.save(checkpoint, folder / "legacy_format.ckpt", _use_new_zipfile_serialization=False)


def save_untrained(model: Any, path: Path) -> None:
    import lightning.pytorch as pl

    trainer = pl.Trainer(logger=False, accelerator="cpu", enable_checkpointing=False)
    trainer.strategy.connect(model)
    trainer.save_checkpoint(path)


def record_command_line(folder: Path) -> None:
    """A file of a module that the command line has made."""
    import lightning.pytorch as pl
    from lightning.pytorch.cli import LightningCLI
    from lightning.pytorch.demos.boring_classes import BoringModel

    class Net(BoringModel):
        def __init__(self, width: int = 3, root: str = "data") -> None:
            super().__init__()
            self.save_hyperparameters()

    here = sys.modules[__name__]
    Net.__module__, Net.__qualname__ = __name__, "Net"
    here.Net = Net  # type: ignore[attr-defined]
    quiet = {"logger": False, "enable_progress_bar": False, "enable_model_summary": False, "accelerator": "cpu"}
    command = LightningCLI(
        pl.LightningModule,
        subclass_mode_model=True,
        trainer_defaults={
            **quiet,
            "enable_checkpointing": False,
            "limit_train_batches": 2,
            "limit_val_batches": 0,
            "max_epochs": 1,
        },
        args=["fit", f"--model={__name__}.Net", "--model.width=5", f"--trainer.default_root_dir={folder}"],
        save_config_callback=None,
    )
    command.trainer.save_checkpoint(folder / "command_line.ckpt")


def record_old_layouts(folder: Path) -> None:
    """Files in the layout that versions before 1.6 and before 0.10 wrote, with the weights of a run of today."""
    from pytorch_lightning.callbacks import EarlyStopping, ModelCheckpoint

    now = torch.load(folder / "watched.ckpt", weights_only=False)
    states = {key.partition("{")[0]: state for key, state in now["callbacks"].items()}
    old = {key: now[key] for key in ("global_step", "state_dict", "optimizer_states", "lr_schedulers")}
    old["epoch"] = now["epoch"] + 1  # it counted the epoch that had ended
    torch.save(
        {
            **old,
            "pytorch-lightning_version": "1.4.9",
            "callbacks": {
                ModelCheckpoint: {
                    key: states["ModelCheckpoint"][key]
                    for key in ("monitor", "best_model_score", "best_model_path", "current_score", "dirpath")
                },
                EarlyStopping: {
                    key: states["EarlyStopping"][key]
                    for key in ("wait_count", "stopped_epoch", "best_score", "patience")
                },
            },
            "hparams_name": "kwargs",
            "hyper_parameters": {"width": 3, "name": "net"},
        },
        folder / "version_1_4.ckpt",
    )
    torch.save(
        {
            **old,
            "pytorch-lightning_version": "0.8.5",
            "checkpoint_callback_best_model_score": states["ModelCheckpoint"]["best_model_score"],
            "checkpoint_callback_best_model_path": states["ModelCheckpoint"]["best_model_path"],
            "early_stop_callback_wait": 1,
            "early_stop_callback_patience": 3,
            "hparams": Namespace(width=3, name="net"),
            "hparams_type": "Namespace",
        },
        folder / "version_0_8.ckpt",
    )


def main() -> None:
    import lightning

    assert lightning.__version__ == "2.6.6", lightning.__version__
    RECORDED.mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory() as folder:
        os.chdir(folder)
        for name, (what, moment) in RUNS.items():
            path = str(RECORDED / f"{name}.ckpt")
            run(ROOT, Run(**{**asdict(what), "save": {moment: path}}), "run")
        moments = {name: run(ROOT, what, "run")["moments"] for name, what in LOOKED_AT.items()}
        (RECORDED / "counters.json").write_text(json.dumps(moments, separators=(",", ":"), sort_keys=True) + "\n")
        weights = torch.load(RECORDED / "finished.ckpt", weights_only=True)
        for key in ("callbacks", "optimizer_states", "lr_schedulers"):
            del weights[key]
        torch.save(weights, RECORDED / "weights_only.ckpt")
        record_hyperparameters(RECORDED)
        record_old_layouts(RECORDED)
        record_command_line(RECORDED)
    for path in sorted(RECORDED.iterdir()):
        print(f"{path.stat().st_size:7,} {path.name}")


if __name__ == "__main__":
    main()
