"""A file that names paths moves nothing: outside of the checkpoint folder nothing is deleted, written over or asked."""

from __future__ import annotations

import os
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import fsspec
import pytest
import torch

from fulmen import Trainer
from fulmen.callbacks import ModelCheckpoint
from fulmen.callbacks.checkpointing import naming, writing
from fulmen.utilities.exceptions import MisconfigurationException

from .reading import Data, Model


def trainer_in(folder: Path, epochs: int, **arguments: Any) -> Trainer:
    given: dict[str, Any] = {"monitor": "loss", "save_top_k": 1, "save_last": True, "save_on_train_epoch_end": True}
    return Trainer(
        accelerator="cpu", max_epochs=epochs, logger=False, enable_progress_bar=False, enable_model_summary=False,
        default_root_dir=folder, callbacks=[ModelCheckpoint(folder / "checkpoints", **(given | arguments))],
    )  # fmt: skip


def fit(trainer: Trainer, path: Path | None = None) -> Any:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of loaders without workers, and of files that are forgotten
        trainer.fit(Model(), datamodule=Data(), ckpt_path=path)
    return trainer.checkpoint_callback


def tampered(folder: Path, change: Callable[[dict[str, Any]], None], **arguments: Any) -> Path:
    """A checkpoint of a run, with another state of its ModelCheckpoint."""
    fit(trainer_in(folder, 1, **arguments))
    checkpoint = torch.load(folder / "checkpoints" / "last.ckpt", weights_only=True)
    change(next(iter(checkpoint["callbacks"].values())))
    torch.save(checkpoint, folder / "tampered.ckpt")
    return folder / "tampered.ckpt"


def names(path: str, dirpath: str | None = None) -> Callable[[dict[str, Any]], None]:
    """Let the state name ``path`` wherever it names one."""

    def change(state: dict[str, Any]) -> None:
        state["best_k_models"] = {path: torch.tensor(1e9)}  # which the next epoch is better than
        for name in ("best_model_path", "kth_best_model_path", "last_model_path"):
            state[name] = path
        state["dirpath"] = state["dirpath"] if dirpath is None else dirpath

    return change


@pytest.mark.parametrize("monitor", ["loss", None])
@pytest.mark.parametrize("dirpath", [None, "its own", "/"])
def test_file_outside_of_the_folder_is_never_removed(tmp_path, dirpath, monitor) -> None:
    mine = tmp_path / "mine" / "precious.ckpt"
    mine.parent.mkdir()
    mine.write_text("precious")
    folder = {"its own": str(mine.parent)}.get(dirpath, dirpath)
    path = tampered(tmp_path, names(str(mine), folder), monitor=monitor)

    checkpoint = fit(trainer_in(tmp_path, 3, monitor=monitor), path)

    assert mine.read_text() == "precious"
    assert Path(checkpoint.best_model_path).parent == tmp_path / "checkpoints"


@pytest.mark.parametrize("way", ["{run}/checkpoints/../mine.ckpt", "{run}/checkpoints/link/mine.ckpt", "mine.ckpt"])
def test_detour_out_of_the_folder_leads_nowhere(tmp_path, monkeypatch, way) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "mine.ckpt").write_text("precious")
    path = tampered(tmp_path, names(way.format(run=tmp_path)))
    (tmp_path / "checkpoints" / "link").symlink_to(tmp_path)

    fit(trainer_in(tmp_path, 3), path)

    assert (tmp_path / "mine.ckpt").read_text() == "precious"


@pytest.mark.parametrize("way", ["{run}/checkpoints", "{run}/checkpoints/", "{run}/checkpoints/.", "{run}", "/"])
def test_folder_itself_is_never_removed(tmp_path, way) -> None:
    path = tampered(tmp_path, names(way.format(run=tmp_path)))
    (tmp_path / "checkpoints" / "notes.txt").write_text("precious")

    fit(trainer_in(tmp_path, 3), path)

    assert (tmp_path / "checkpoints" / "notes.txt").read_text() == "precious"


def test_file_in_the_folder_that_is_no_checkpoint_is_never_removed(tmp_path) -> None:
    path = tampered(tmp_path, names(f"{tmp_path}/checkpoints/notes.txt"))
    (tmp_path / "checkpoints" / "notes.txt").write_text("precious")

    fit(trainer_in(tmp_path, 3), path)

    assert (tmp_path / "checkpoints" / "notes.txt").read_text() == "precious"


@pytest.mark.parametrize("dirpath", [None, "memory://mine"])
def test_remote_file_is_neither_removed_nor_asked_for(tmp_path, dirpath) -> None:
    files = fsspec.filesystem("memory")
    files.pipe_file("/mine/precious.ckpt", b"precious")
    path = tampered(tmp_path, names("memory://mine/precious.ckpt", dirpath))

    checkpoint = fit(trainer_in(tmp_path, 3), path)

    assert files.cat_file("/mine/precious.ckpt") == b"precious"
    assert "memory://mine/precious.ckpt" not in checkpoint.best_k_models
    files.rm("/mine", recursive=True)


@pytest.mark.parametrize("url", ["http://127.0.0.1:9/x.ckpt", "ssh://127.0.0.1/x.ckpt", "nothing://x/x.ckpt"])
def test_nothing_is_connected_to_because_a_file_names_it(tmp_path, url) -> None:
    path = tampered(tmp_path, names(url, url.rpartition("/")[0]))

    assert url not in fit(trainer_in(tmp_path, 2), path).best_k_models


def test_files_of_the_run_itself_are_taken_up_and_removed_in_their_turn(tmp_path) -> None:
    first = fit(trainer_in(tmp_path, 1))

    second = fit(trainer_in(tmp_path, 3), tmp_path / "checkpoints" / "last.ckpt")

    assert first.best_model_path not in second.best_k_models
    assert not os.path.exists(first.best_model_path)
    left = {"checkpoints.json", os.path.basename(second.best_model_path), "last.ckpt"}
    assert set(os.listdir(tmp_path / "checkpoints")) == left


@pytest.mark.parametrize(
    ("path", "folder", "inside"),
    [
        ("/run/a.ckpt", "/run", True),
        ("/run/deep/a.ckpt", "/run", True),
        ("/run", "/run", False),
        ("/run/../a.ckpt", "/run", False),
        ("/running/a.ckpt", "/run", False),
        ("/", "/run", False),
        ("s3://bucket/run/a.ckpt", "s3://bucket/run", True),
        ("s3://bucket/run/../a.ckpt", "s3://bucket/run", False),
        ("s3://bucket/running/a.ckpt", "s3://bucket/run", False),
        ("s3://bucket/run", "s3://bucket/run", False),
        ("s3://bucket/run/a.ckpt", "/run", False),
        ("/run/a.ckpt", "s3://bucket/run", False),
    ],
)
def test_lies_in_is_for_what_is_below_a_folder(path, folder, inside) -> None:
    assert writing.lies_in(path, folder) is inside


@pytest.mark.parametrize("filename", ["../../x", "a/../../x", "/etc/x", "{epoch}/../../x", "{a/../../b}", ".."])
def test_filename_that_leads_out_of_the_folder_is_refused(tmp_path, filename) -> None:
    with pytest.raises(MisconfigurationException, match=r"leads out of the checkpoint folder.*dirpath=") as caught:
        ModelCheckpoint(tmp_path, filename=filename)
    assert filename in str(caught.value)


def test_metric_whose_name_has_slashes_stays_in_the_folder(tmp_path) -> None:
    checkpoint = ModelCheckpoint(tmp_path, filename="{val/loss:.2f}-{..:d}")

    assert checkpoint.format_checkpoint_name({"val/loss": 0.5, "..": 3}) == f"{tmp_path}/val/loss=0.50-..=3.ckpt"
    with pytest.raises(MisconfigurationException, match="leads out of the checkpoint folder"):
        naming.fill("{a}", {"a": _Text("../../x")}, equals=None)


class _Text(float):
    """A number that shows itself as a path."""

    def __new__(cls, text: str) -> _Text:
        it = super().__new__(cls, 0.0)
        it.text = text  # type: ignore[attr-defined]
        return it

    def __format__(self, spec: str) -> str:
        return self.text  # type: ignore[attr-defined]
