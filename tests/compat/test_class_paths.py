"""Checkpoints and configurations that name classes by Lightning's paths, without Lightning and without the aliases."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

import fulmen.profilers.simple  # noqa: F401  # its class is one that could be made
from fulmen import LightningModule
from fulmen.callbacks import EarlyStopping
from fulmen.demos import BoringModel


class Stops(BoringModel):
    def __init__(self, stopping: EarlyStopping | None = None, kind: type[EarlyStopping] = EarlyStopping) -> None:
        super().__init__()
        self.stopping, self.kind = stopping, kind


def written_by_lightnings_command_line(path: Path, **hyperparameters: Any) -> Path:
    """A file of Lightning's, with what its command line adds to the hyperparameters."""
    module = Stops()
    marks = {"_instantiator": "lightning.pytorch.cli.instantiate_module"}
    checkpoint = {
        "state_dict": module.state_dict(),
        "pytorch-lightning_version": "2.6.6",
        "hyper_parameters": {**hyperparameters, **marks},
    }
    torch.save(checkpoint, path)
    return path


@pytest.mark.parametrize("root", ["lightning.pytorch", "pytorch_lightning"])
@pytest.mark.parametrize("place", ["callbacks", "callbacks.early_stopping"])
def test_an_object_of_a_checkpoint_that_lightnings_command_line_wrote_is_made_again(
    root: str, place: str, tmp_path: Path
) -> None:
    described = {"class_path": f"{root}.{place}.EarlyStopping", "init_args": {"monitor": "loss", "patience": 7}}
    path = written_by_lightnings_command_line(tmp_path / "old.ckpt", stopping=described)
    module = Stops.load_from_checkpoint(path)
    assert type(module.stopping) is EarlyStopping
    assert module.stopping.patience == 7


def test_a_class_and_the_module_itself_are_found_by_lightnings_paths(tmp_path: Path) -> None:
    path = written_by_lightnings_command_line(
        tmp_path / "old.ckpt", kind="lightning.pytorch.callbacks.EarlyStopping", _class_path="__main__.Stops"
    )
    assert LightningModule.load_from_checkpoint(path).kind is EarlyStopping  # type: ignore[attr-defined]
    boring = {"_class_path": "lightning.pytorch.demos.boring_classes.BoringModel"}
    path = written_by_lightnings_command_line(tmp_path / "boring.ckpt", **boring)
    assert type(LightningModule.load_from_checkpoint(path)) is BoringModel


def test_a_path_of_lightning_makes_nothing_that_the_signature_does_not_ask_for(tmp_path: Path) -> None:
    described = {"class_path": "lightning.pytorch.profilers.SimpleProfiler", "init_args": {}}
    path = written_by_lightnings_command_line(tmp_path / "old.ckpt", stopping=described)
    with pytest.raises(TypeError, match="SimpleProfiler"):
        Stops.load_from_checkpoint(path)
