"""The index of a checkpoint folder: it names what is there and whole, and can be made again from the files."""

from __future__ import annotations

import json
import os
import uuid
from pathlib import Path
from typing import Any

import pytest
import torch

from fulmen.plugins.io import index
from fulmen.plugins.io.digest import digest_of
from fulmen.plugins.io.torch_plugin import TorchCheckpointIO
from fulmen.utilities.cloud_io import get_filesystem, join_path

IO = TorchCheckpointIO()


@pytest.fixture(params=["local", "file", "memory"])
def folder(request: Any, tmp_path: Path) -> str:
    """A folder on the disk, by its path or by a URL, or in fsspec's memory."""
    return {"local": str(tmp_path), "file": f"file://{tmp_path}", "memory": f"memory://{uuid.uuid4().hex}"}[
        request.param
    ]


def checkpoint(name: str, batch: int, **more: Any) -> dict[str, Any]:
    """What a ModelCheckpoint writes to ``name``, as far as the index is concerned."""
    own = {"path": name, "reason": "step", "metric": None, "replaces": ""}
    return {
        "epoch": 0,
        "global_step": batch,
        "loops": {"progress": {"total_batches": batch}},
        "callbacks": {"ModelCheckpoint": {"file": own}},
        "optimizer_states": [],
        "state_dict": {"weight": torch.arange(1000.0)},
        **more,
    }


def written(folder: str, name: str, batch: int, **more: Any) -> index.Entry:
    """Write a checkpoint, and give its entry."""
    path = join_path(folder, *name.split("/"))
    IO.save_checkpoint(checkpoint(name, batch, **more), path)
    size, digest = IO.digest(path)
    return index.Entry(name, batch, 0, batch, None, "step", size, digest, index.now())


def flip_a_bit(path: str) -> None:
    system = get_filesystem(path)
    content = bytearray(system.cat_file(path))
    content[len(content) // 2] ^= 1
    system.pipe_file(path, bytes(content))


def names(known: index.Index) -> list[str]:
    return [entry.path for entry in known.entries]


def test_checksum_from_writing_is_that_of_the_file(folder):
    path = join_path(folder, "a.ckpt")
    IO.save_checkpoint(checkpoint("a.ckpt", 1), path)

    from_writing = IO.digest(path)
    assert from_writing == digest_of(path)
    assert from_writing.size == len(get_filesystem(path).cat_file(path))


def test_checksum_of_a_file_that_somebody_wrote_over_is_that_of_the_new_one(tmp_path):
    IO.save_checkpoint(checkpoint("a", 1), tmp_path / "a.ckpt")
    IO.digest(tmp_path / "a.ckpt")
    (tmp_path / "a.ckpt").write_bytes(b"new")

    assert IO.digest(tmp_path / "a.ckpt").size == 3


def test_equal_contents_make_equal_files_whatever_objects_their_texts_are(tmp_path):
    text = "learning rate"
    IO.save_checkpoint({"a": [text, text], "b": {text: 1}}, tmp_path / "one.ckpt")
    again, other = "".join(text), "learning " + "rate"
    IO.save_checkpoint({"a": [again, other], "b": {other[:9] + other[9:]: 1}}, tmp_path / "other.ckpt")

    assert (tmp_path / "one.ckpt").read_bytes() == (tmp_path / "other.ckpt").read_bytes()


def test_state_dict_keeps_its_metadata_when_it_is_written(tmp_path):
    IO.save_checkpoint({"state_dict": torch.nn.BatchNorm1d(2).state_dict()}, tmp_path / "a.ckpt")

    assert torch.load(tmp_path / "a.ckpt", weights_only=True)["state_dict"]._metadata[""] == {"version": 2}


def test_entry_that_was_added_is_read_again(folder):
    entry = written(folder, "a.ckpt", 3)
    index.read(folder).add(entry)

    assert index.read(folder).entries == [entry]
    assert index.read(folder).damage(entry) is None


def test_index_is_json_with_the_agreed_keys(tmp_path):
    index.read(str(tmp_path)).add(written(str(tmp_path), "a.ckpt", 3))
    content = json.loads((tmp_path / "checkpoints.json").read_text())

    assert content.keys() == {"format", "command", "finished", "checkpoints"}
    assert content["command"].keys() == {"argv", "directory", "module"}
    assert content["command"]["directory"] == os.getcwd()
    assert content["checkpoints"][0].keys() == {
        *("path", "step", "epoch", "batch", "metric", "reason", "size", "checksum", "written"),
    }


def test_metric_that_json_has_no_number_for_is_a_text():
    assert index.metric("v", float("nan")) == {"name": "v", "value": "nan"}
    assert index.metric("v", 0.5) == {"name": "v", "value": 0.5}
    assert index.metric(None, 0.5) is index.metric("v", None) is None


def test_file_written_again_is_the_newest(folder):
    known = index.read(folder)
    for name, batch in (("a.ckpt", 1), ("b.ckpt", 2), ("a.ckpt", 3)):
        known.add(written(folder, name, batch))

    assert names(index.read(folder)) == ["b.ckpt", "a.ckpt"]


def test_file_that_is_forgotten_is_named_no_more(folder):
    known = index.read(folder)
    for name in ("a.ckpt", "sub/b.ckpt"):
        known.add(written(folder, name, 1))
    index.read(folder).remove([join_path(folder, "sub", "b.ckpt")])

    assert names(index.read(folder)) == ["a.ckpt"]


@pytest.mark.parametrize(
    ("harm", "said"),
    [
        (flip_a_bit, "checksum"),
        (lambda path: get_filesystem(path).pipe_file(path, b"short"), "5 bytes"),
        (lambda path: get_filesystem(path).rm(path), "gone"),
    ],
)
def test_damage_to_a_file_is_seen(folder, harm, said):
    entry = written(folder, "a.ckpt", 1)
    harm(join_path(folder, "a.ckpt"))

    assert said in index.read(folder).damage(entry)


def test_folder_as_checkpoint_is_weighed_with_all_its_files(folder):
    for name in ("s.ckpt/0", "s.ckpt/deep/1"):
        path = join_path(folder, *name.split("/"))
        get_filesystem(path).makedirs(path.rpartition("/")[0], exist_ok=True)
        get_filesystem(path).pipe_file(path, name.encode())
    before = digest_of(join_path(folder, "s.ckpt"))
    flip_a_bit(join_path(folder, "s.ckpt", "deep", "1"))

    assert before.size == len("s.ckpt/0" + "s.ckpt/deep/1")
    assert digest_of(join_path(folder, "s.ckpt")) == (before.size, digest_of(join_path(folder, "s.ckpt")).checksum)
    assert digest_of(join_path(folder, "s.ckpt")).checksum != before.checksum


def test_files_without_an_index_are_found_in_the_order_of_the_run(folder):
    for name, batch in (("b.ckpt", 2), ("a.ckpt", 7), ("sub/c.ckpt", 9)):
        written(folder, name, batch)
    known = index.read(folder)
    damaged = index.adopt(known, IO.load_checkpoint)

    assert damaged == []
    assert [(entry.path, entry.batch, entry.reason) for entry in index.read(folder).entries] == [
        ("b.ckpt", 2, "step"),
        ("a.ckpt", 7, "step"),
        ("sub/c.ckpt", 9, "step"),
    ]
    assert [known.damage(entry) for entry in known.entries] == [None] * 3


def test_older_file_that_is_found_does_not_count_as_the_newest(tmp_path):
    written(str(tmp_path), "last.ckpt", 3)
    os.utime(tmp_path / "last.ckpt", (1_000_000, 1_000_000))
    known = index.read(str(tmp_path))
    known.add(written(str(tmp_path), "new.ckpt", 6))
    index.adopt(known, IO.load_checkpoint)

    assert names(known) == ["last.ckpt", "new.ckpt"]


def test_file_from_elsewhere_is_not_taken_for_one_of_the_run(tmp_path):
    written(str(tmp_path), "a.ckpt", 1)
    os.rename(tmp_path / "a.ckpt", tmp_path / "pretrained.ckpt")
    torch.save({"weight": torch.ones(1)}, tmp_path / "weights.ckpt")
    (tmp_path / "notes.ckpt").write_text("no checkpoint")
    known = index.read(str(tmp_path))

    assert index.adopt(known, IO.load_checkpoint) == []
    assert known.entries == []
    assert len(list(tmp_path.iterdir())) == 3


def test_half_a_file_that_is_not_named_is_put_aside(folder):
    written(folder, "a.ckpt", 1)
    path = join_path(folder, "a.ckpt")
    get_filesystem(path).pipe_file(path, get_filesystem(path).cat_file(path)[:3000])
    (said,) = index.adopt(index.read(folder), IO.load_checkpoint)

    assert "not whole" in said
    assert not get_filesystem(path).exists(path)
    assert get_filesystem(path).exists(path + ".damaged")


def test_second_damaged_file_of_a_name_does_not_replace_the_first(tmp_path):
    for text in ("one", "two"):
        (tmp_path / "a.ckpt").write_text(text)
        index.put_aside(str(tmp_path / "a.ckpt"))

    assert (tmp_path / "a.ckpt.damaged").read_text() == "one"
    assert (tmp_path / "a.ckpt.damaged-2").read_text() == "two"


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"{",
        b"[]",
        b'{"format": 9, "command": {}, "checkpoints": []}',
        b'{"format": 1, "command": {}, "checkpoints": [{"path": "a.ckpt"}]}',
        b"\xff\xfe",
    ],
)
def test_index_that_cannot_be_read_is_made_anew_and_said(tmp_path, content):
    written(str(tmp_path), "a.ckpt", 1)
    (tmp_path / "checkpoints.json").write_bytes(content)
    with pytest.warns(UserWarning, match=r"checkpoints\.json cannot be read"):
        known = index.read(str(tmp_path), IO.load_checkpoint)

    assert names(known) == ["a.ckpt"]
    assert (tmp_path / "checkpoints.json.damaged").read_bytes() == content


@pytest.mark.parametrize("name", ["../a.ckpt", "/etc/a.ckpt", "sub/../../a.ckpt", "memory://a.ckpt", "..\\a.ckpt"])
def test_index_that_names_a_file_outside_of_its_folder_is_not_believed(tmp_path, name):
    entry = written(str(tmp_path), "a.ckpt", 1)
    index.read(str(tmp_path)).add(entry)
    text = (tmp_path / "checkpoints.json").read_text().replace('"a.ckpt"', json.dumps(name))
    (tmp_path / "checkpoints.json").write_text(text)
    with pytest.warns(UserWarning, match="not in this folder"):
        known = index.read(str(tmp_path), IO.load_checkpoint)

    assert names(known) == ["a.ckpt"]


def test_index_that_cannot_be_written_is_an_error_and_stays_as_it_was(tmp_path, monkeypatch):
    known = index.read(str(tmp_path))
    known.add(written(str(tmp_path), "a.ckpt", 1))
    before = (tmp_path / "checkpoints.json").read_bytes()

    def full(*args: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match=r"No space left.*checkpoints\.json"):
        known.remove([str(tmp_path / "a.ckpt")])

    assert (tmp_path / "checkpoints.json").read_bytes() == before
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.ckpt", "checkpoints.json"]


def test_file_that_was_about_to_be_written_over_stays_older_than_one_of_the_same_moment(tmp_path):
    written(str(tmp_path), "last.ckpt", 6)
    os.utime(tmp_path / "last.ckpt", (1000, 1000))
    known = index.read(str(tmp_path))
    known.remove([str(tmp_path / "last.ckpt")])
    known.add(written(str(tmp_path), "epoch.ckpt", 6))

    index.adopt(known, IO.load_checkpoint)

    assert names(known) == ["last.ckpt", "epoch.ckpt"]
