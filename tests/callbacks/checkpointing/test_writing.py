"""How to write: links and removal."""

from __future__ import annotations

import os

import pytest

from fulmen.callbacks.checkpointing import writing


def test_link_is_relative_and_replaces_what_was_there(tmp_path):
    (tmp_path / "a.ckpt").write_text("a")
    last = tmp_path / "last.ckpt"
    last.write_text("an older file")
    writing.link(str(tmp_path / "a.ckpt"), str(last))

    assert os.readlink(last) == "a.ckpt"
    assert last.read_text() == "a"


def test_link_to_a_folder_replaces_a_folder(tmp_path):
    for name in ("a.ckpt", "last.ckpt"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "shard").write_text(name)
    writing.link(str(tmp_path / "a.ckpt"), str(tmp_path / "last.ckpt"))

    assert (tmp_path / "last.ckpt" / "shard").read_text() == "a.ckpt"


def test_link_where_there_are_none_is_a_copy(tmp_path, monkeypatch):
    def refuse(*args: object) -> None:
        raise OSError("no links here")

    monkeypatch.setattr(os, "symlink", refuse)
    (tmp_path / "a.ckpt").write_text("a")
    writing.link(str(tmp_path / "a.ckpt"), str(tmp_path / "last.ckpt"))

    assert not os.path.islink(tmp_path / "last.ckpt")
    assert (tmp_path / "last.ckpt").read_text() == "a"


@pytest.mark.parametrize(
    ("path", "resumed_from", "allowed"),
    [
        ("/run/checkpoints/a.ckpt", None, True),
        ("/run/checkpoints/sub/a.ckpt", None, True),
        ("/run/checkpoints/a.ckpt", "/run/checkpoints/a.ckpt", False),
        ("/run/other/a.ckpt", None, False),
        ("/run/checkpoints-2/a.ckpt", None, False),
        ("memory://a.ckpt", None, False),
        ("memory://a.ckpt", "memory://a.ckpt", False),
    ],
)
def test_removal_is_allowed_below_the_folder_but_not_of_what_was_resumed_from(path, resumed_from, allowed):
    assert writing.may_remove(path, "/run/checkpoints", resumed_from) is allowed


def test_files_in_a_folder_are_those_with_the_extension(tmp_path):
    for name in ("b.ckpt", "a.ckpt", "notes.txt"):
        (tmp_path / name).touch()

    assert writing.files_in(str(tmp_path), ".ckpt") == [str(tmp_path / "a.ckpt"), str(tmp_path / "b.ckpt")]
    assert writing.files_in(str(tmp_path / "missing"), ".ckpt") == []
