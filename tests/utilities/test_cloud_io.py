from __future__ import annotations

import pickle
from pathlib import Path

import pytest
import torch

from fulmen.utilities import cloud_io
from fulmen.utilities.warnings import UnsafeLoadWarning


@pytest.mark.parametrize(
    ("path", "remote", "joined", "parent"),
    [
        ("/runs/a", False, "/runs/a/b/c.ckpt", "/runs"),
        (Path("/runs/a"), False, "/runs/a/b/c.ckpt", "/runs"),
        ("file:///runs/a", False, "/runs/a/b/c.ckpt", "/runs"),
        ("s3://bucket/run/", True, "s3://bucket/run/b/c.ckpt", "s3://bucket"),
        ("memory://run", True, "memory://run/b/c.ckpt", "memory:/"),
    ],
)
def test_paths_and_urls_are_joined_alike(path, remote, joined, parent):
    assert cloud_io.is_remote(path) is remote
    assert cloud_io.join_path(path, "b", "c.ckpt") == joined
    assert cloud_io.parent_path(path) == parent


def test_home_and_environment_are_filled_in(monkeypatch):
    monkeypatch.setenv("RUNS", "/somewhere")
    assert cloud_io.local_path("$RUNS/a") == "/somewhere/a"
    assert cloud_io.local_path("~/a") == str(Path.home() / "a")


@pytest.fixture(params=["local", "url"])
def root(request, tmp_path):
    if request.param == "local":
        yield str(tmp_path)
        return
    yield f"memory://{tmp_path.name}"
    filesystem = cloud_io.get_filesystem("memory://")
    filesystem.rm(f"/{tmp_path.name}", recursive=True)


def test_folder_is_made_filled_and_read(root):
    folder = cloud_io.join_path(root, "a", "b")
    assert not cloud_io.exists(folder)
    cloud_io.make_dirs(folder)
    cloud_io.make_dirs(folder)
    assert cloud_io.is_dir(folder)

    path = cloud_io.join_path(folder, "state.ckpt")
    with cloud_io.get_filesystem(path).open(path, "wb") as file:
        torch.save({"x": torch.ones(2)}, file)
    assert cloud_io.exists(path)
    assert not cloud_io.is_dir(path)
    assert torch.equal(cloud_io.load(path, map_location="cpu")["x"], torch.ones(2))


def test_what_is_no_plain_data_is_only_read_on_request(tmp_path):
    torch.save(Path("x"), tmp_path / "x.pt")
    with pytest.raises(pickle.UnpicklingError, match=r"x\.pt holds more .*pathlib.*weights_only=False"):
        cloud_io.load(tmp_path / "x.pt")
    with pytest.warns(UnsafeLoadWarning, match=r"x\.pt is read with"):
        assert cloud_io.load(tmp_path / "x.pt", weights_only=False) == Path("x")
