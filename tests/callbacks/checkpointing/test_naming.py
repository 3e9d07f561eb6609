"""How to name."""

from __future__ import annotations

import pytest
import torch

from fulmen.callbacks.checkpointing.naming import fields_of, fill, relocated, versioned
from fulmen.callbacks.model_checkpoint import ModelCheckpoint
from fulmen.utilities.exceptions import MisconfigurationException


@pytest.mark.parametrize(
    ("template", "with_names", "without"),
    [
        ("{epoch}", "epoch=3", "3"),
        ("m-{epoch:02d}-{v:.2f}", "m-epoch=03-v=0.50", "m-03-0.50"),
        ("{val/acc:.1f}", "val/acc=0.2", "0.2"),
        ("{val.loss}", "val.loss=2.0", "2.0"),
        ("plain", "plain", "plain"),
        ("{missing:.1f}", "missing=0.0", "0.0"),
        ("{{v}}", "{v}", "{v}"),
    ],
)
def test_template_with_metrics_is_filled(template, with_names, without):
    metrics = {
        "epoch": torch.tensor(3),
        "v": torch.tensor(0.5),
        "val/acc": torch.tensor(0.25),
        "val.loss": torch.tensor(2.0),
    }

    assert fill(template, metrics, equals="=") == with_names
    assert fill(template, metrics, equals=None) == without


def test_template_with_a_format_that_does_not_fit_names_metric_and_value():
    with pytest.raises(ValueError, match=r"'v' in the format 'd', but its value is tensor\(0.5000\)"):
        fill("{v:d}", {"v": torch.tensor(0.5)}, equals="=")


@pytest.mark.parametrize("template", ["{epoch", "epoch}", "{}"])
def test_template_that_cannot_be_read_is_refused_by_the_constructor(template):
    with pytest.raises(MisconfigurationException, match="file name template"):
        ModelCheckpoint(filename=template)


def test_template_fields_are_listed_in_order():
    assert fields_of("a-{epoch:02d}-{val/loss:.2f}") == ["epoch", "val/loss"]


@pytest.mark.parametrize(
    ("taken", "spare", "expected"),
    [
        (set(), "", "c"),
        ({"c"}, "", "c-v1"),
        ({"c", "c-v1"}, "", "c-v2"),
        ({"c"}, "c", "c"),
        ({"c", "c-v1"}, "c-v1", "c-v1"),
    ],
)
def test_version_is_the_first_free_one_or_the_file_about_to_go(taken, spare, expected):
    name = versioned(lambda v: "c" if v is None else f"c-v{v}", taken.__contains__, spare, first=1)

    assert name == expected


def test_name_of_a_checkpoint_by_default_has_epoch_and_step():
    checkpoint = ModelCheckpoint()

    assert checkpoint.format_checkpoint_name({"epoch": 3, "step": torch.tensor(4)}) == "epoch=3-step=4.ckpt"
    assert checkpoint.format_checkpoint_name({}) == "epoch=0-step=0.ckpt"
    assert checkpoint.format_checkpoint_name({"epoch": 1}, ver=3) == "epoch=1-step=0-v3.ckpt"


def test_name_of_a_checkpoint_takes_another_template_a_prefix_and_the_folder(tmp_path):
    checkpoint = ModelCheckpoint(dirpath=tmp_path, filename="{epoch}", auto_insert_metric_name=False)

    assert checkpoint.format_checkpoint_name({"epoch": 7}) == str(tmp_path / "7.ckpt")
    assert checkpoint.format_checkpoint_name({"v": 1}, "x{v}", ver=2, prefix="p") == str(tmp_path / "p-x1-v2.ckpt")


def test_name_of_a_checkpoint_follows_the_constants_of_a_subclass():
    class Underlined(ModelCheckpoint):
        CHECKPOINT_JOIN_CHAR = "_"
        CHECKPOINT_EQUALS_CHAR = ":"
        FILE_EXTENSION = ".pt"

    assert Underlined().format_checkpoint_name({"epoch": 1, "step": 2}, ver=1) == "epoch:1_step:2_v1.pt"


def test_file_of_a_moved_folder_is_found_at_its_new_place(tmp_path):
    old, new = tmp_path / "old", tmp_path / "new"
    (new / "a").mkdir(parents=True)
    (new / "a" / "x.ckpt").touch()

    assert relocated(str(old / "a" / "x.ckpt"), str(old), str(new)) == str(new / "a" / "x.ckpt")


def test_file_that_stayed_behind_is_still_named_and_one_that_is_gone_is_not(tmp_path):
    old, new = tmp_path / "old", tmp_path / "new"
    old.mkdir()
    (old / "x.ckpt").touch()

    assert relocated(str(old / "x.ckpt"), str(old), str(new)) == str(old / "x.ckpt")
    assert relocated(str(old / "gone.ckpt"), str(old), str(new)) == ""
