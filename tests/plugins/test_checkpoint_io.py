"""Checkpoint files: whole or not there, and errors that say what to do."""

from __future__ import annotations

import os
import pathlib
import pickle
import resource
import signal
import stat
from typing import IO, Any

import pytest
import torch

from fulmen.plugins.io import CheckpointIO, TorchCheckpointIO
from fulmen.plugins.io.torch_plugin import read_checkpoint, write_whole
from fulmen.utilities.warnings import UnsafeLoadWarning

CHECKPOINT: dict[str, Any] = {"state_dict": {"weight": torch.arange(4.0)}, "epoch": 3, "name": "x"}


def assert_equals_checkpoint(checkpoint: dict[str, Any]) -> None:
    assert checkpoint.keys() == CHECKPOINT.keys()
    assert torch.equal(checkpoint["state_dict"]["weight"], CHECKPOINT["state_dict"]["weight"])
    assert checkpoint["epoch"] == 3


def files_in(folder: pathlib.Path) -> list[str]:
    return sorted(os.listdir(folder))


def test_checkpoint_io_is_abstract() -> None:
    with pytest.raises(TypeError, match="save_checkpoint"):
        CheckpointIO()  # type: ignore[abstract]


@pytest.mark.parametrize("as_text", [True, False])
def test_save_makes_folders_and_load_gives_back_the_checkpoint(tmp_path, as_text) -> None:
    path = tmp_path / "a" / "b" / "x.ckpt"

    TorchCheckpointIO().save_checkpoint(CHECKPOINT, str(path) if as_text else path)

    assert_equals_checkpoint(TorchCheckpointIO().load_checkpoint(str(path) if as_text else path))
    assert files_in(path.parent) == ["x.ckpt"]


def test_save_into_the_current_folder_works(tmp_path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)

    TorchCheckpointIO().save_checkpoint(CHECKPOINT, "x.ckpt")

    assert_equals_checkpoint(TorchCheckpointIO().load_checkpoint("x.ckpt"))


def test_save_to_a_file_url_writes_the_local_file(tmp_path) -> None:
    TorchCheckpointIO().save_checkpoint(CHECKPOINT, f"file://{tmp_path}/x.ckpt")

    assert_equals_checkpoint(TorchCheckpointIO().load_checkpoint(tmp_path / "x.ckpt"))


def test_saved_file_has_the_permissions_that_new_files_have(tmp_path) -> None:
    (tmp_path / "other").touch()

    TorchCheckpointIO().save_checkpoint(CHECKPOINT, tmp_path / "x.ckpt")

    assert stat.S_IMODE((tmp_path / "x.ckpt").stat().st_mode) == stat.S_IMODE((tmp_path / "other").stat().st_mode)


def test_save_over_a_link_leaves_the_file_it_points_to_alone(tmp_path) -> None:
    old = tmp_path / "old.ckpt"
    TorchCheckpointIO().save_checkpoint({"epoch": 1}, old)
    (tmp_path / "last.ckpt").symlink_to(old)

    TorchCheckpointIO().save_checkpoint({"epoch": 2}, tmp_path / "last.ckpt")

    assert TorchCheckpointIO().load_checkpoint(old) == {"epoch": 1}
    assert TorchCheckpointIO().load_checkpoint(tmp_path / "last.ckpt") == {"epoch": 2}


def test_storage_options_raise_and_the_error_says_what_to_write(tmp_path) -> None:
    with pytest.raises(TypeError, match=r"storage_options=\{'a': 1\}.*Trainer\(plugins="):
        TorchCheckpointIO().save_checkpoint(CHECKPOINT, tmp_path / "x.ckpt", storage_options={"a": 1})

    assert files_in(tmp_path) == []


# -- when writing fails -----------------------------------------------------------------------------------------------


def test_write_that_fails_half_way_keeps_the_old_file_and_leaves_nothing_behind(tmp_path) -> None:
    path = tmp_path / "x.ckpt"
    path.write_bytes(b"old")

    def write_half(file: IO[bytes]) -> None:
        file.write(b"new")
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write_whole(path, write_half)

    assert path.read_bytes() == b"old"
    assert files_in(tmp_path) == ["x.ckpt"]


def test_full_disk_raises_an_error_of_the_system_and_keeps_the_old_checkpoint(tmp_path) -> None:
    path = tmp_path / "x.ckpt"
    TorchCheckpointIO().save_checkpoint(CHECKPOINT, path)
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)

    resource.setrlimit(resource.RLIMIT_FSIZE, (10_000, limits[1]))
    try:
        with pytest.raises(OSError, match=r"could not be written \(File too large\).*x\.ckpt"):
            TorchCheckpointIO().save_checkpoint({"weight": torch.zeros(100_000)}, path)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
        signal.signal(signal.SIGXFSZ, handler)

    assert_equals_checkpoint(TorchCheckpointIO().load_checkpoint(path))
    assert files_in(tmp_path) == ["x.ckpt"]


def test_unwritable_folder_raises_and_names_path_and_reason(tmp_path) -> None:
    user = os.geteuid()
    tmp_path.chmod(0o500)
    if user == 0:
        os.seteuid(65534)  # root may write everywhere
    try:
        with pytest.raises(PermissionError, match=r"Permission denied.*x\.ckpt"):
            TorchCheckpointIO().save_checkpoint(CHECKPOINT, tmp_path / "x.ckpt")
    finally:
        os.seteuid(user)
        tmp_path.chmod(0o700)


def test_folder_that_is_a_file_raises_and_names_path_and_reason(tmp_path) -> None:
    (tmp_path / "file").touch()

    with pytest.raises(OSError, match=r"could not be written \(Not a directory|File exists\).*x\.ckpt"):
        TorchCheckpointIO().save_checkpoint(CHECKPOINT, tmp_path / "file" / "x.ckpt")


def test_target_that_is_a_folder_raises_and_stays(tmp_path) -> None:
    (tmp_path / "x.ckpt").mkdir()

    with pytest.raises(IsADirectoryError, match=r"x\.ckpt"):
        TorchCheckpointIO().save_checkpoint(CHECKPOINT, tmp_path / "x.ckpt")

    assert files_in(tmp_path) == ["x.ckpt"]


def test_checkpoint_that_cannot_be_pickled_raises_names_the_entry_and_keeps_the_old_file(tmp_path) -> None:
    path = tmp_path / "x.ckpt"
    TorchCheckpointIO().save_checkpoint(CHECKPOINT, path)

    with pytest.raises((AttributeError, pickle.PicklingError)) as caught:
        TorchCheckpointIO().save_checkpoint({"epoch": 1, "mine": lambda: None}, path)

    assert "entries 'mine' cannot be pickled" in caught.value.__notes__[0]
    assert_equals_checkpoint(TorchCheckpointIO().load_checkpoint(path))
    assert files_in(tmp_path) == ["x.ckpt"]


def test_killed_process_never_damages_the_checkpoint_that_was_there(tmp_path) -> None:
    path = tmp_path / "x.ckpt"
    TorchCheckpointIO().save_checkpoint(CHECKPOINT, path)

    def write_and_die(file: IO[bytes]) -> None:
        file.write(b"half")
        file.flush()
        os.kill(os.getpid(), signal.SIGKILL)

    child = os.fork()
    if child == 0:
        write_whole(path, write_and_die)
    os.waitpid(child, 0)

    assert_equals_checkpoint(TorchCheckpointIO().load_checkpoint(path))


# -- when reading fails -----------------------------------------------------------------------------------------------


def test_missing_file_raises_and_names_those_that_are_there(tmp_path) -> None:
    TorchCheckpointIO().save_checkpoint(CHECKPOINT, tmp_path / "epoch=1.ckpt")

    with pytest.raises(FileNotFoundError, match=r"no checkpoint .*x\.ckpt.*there are epoch=1\.ckpt"):
        TorchCheckpointIO().load_checkpoint(tmp_path / "x.ckpt")


def test_missing_folder_raises_and_says_so(tmp_path) -> None:
    with pytest.raises(FileNotFoundError, match=r"the folder .*nowhere does not exist"):
        TorchCheckpointIO().load_checkpoint(tmp_path / "nowhere" / "x.ckpt")


def test_folder_in_place_of_a_file_raises_and_says_so(tmp_path) -> None:
    with pytest.raises(IsADirectoryError, match="is a folder"):
        TorchCheckpointIO().load_checkpoint(tmp_path)


@pytest.mark.parametrize("keep", [5, 300, -1, -100])
def test_truncated_file_raises_and_says_so(tmp_path, keep) -> None:
    path = tmp_path / "x.ckpt"
    TorchCheckpointIO().save_checkpoint(CHECKPOINT, path)
    path.write_bytes(path.read_bytes()[:keep])

    with pytest.raises(RuntimeError, match=r"x\.ckpt cannot be read: it is truncated"):
        TorchCheckpointIO().load_checkpoint(path)


def test_empty_file_raises_and_says_so(tmp_path) -> None:
    (tmp_path / "x.ckpt").touch()

    with pytest.raises(RuntimeError, match=r"x\.ckpt cannot be read: it is empty"):
        TorchCheckpointIO().load_checkpoint(tmp_path / "x.ckpt")


def test_file_of_another_kind_raises_and_says_so(tmp_path) -> None:
    (tmp_path / "x.ckpt").write_text("hello, world")

    with pytest.raises(RuntimeError, match=r"no file of `torch\.save`, it begins with b'hell'"):
        TorchCheckpointIO().load_checkpoint(tmp_path / "x.ckpt")


class Bomb:
    """Unpickling it leaves a mark."""

    def __init__(self, mark: pathlib.Path) -> None:
        self.mark = mark

    def __reduce__(self) -> Any:
        return os.mkdir, (str(self.mark),)


def test_foreign_object_raises_names_it_and_runs_nothing(tmp_path) -> None:
    torch.save({"bomb": Bomb(tmp_path / "mark")}, tmp_path / "x.ckpt")

    with pytest.raises(pickle.UnpicklingError, match=r"x\.ckpt .*run code: posix\.mkdir.*Nothing of it was run"):
        TorchCheckpointIO().load_checkpoint(tmp_path / "x.ckpt")

    assert not (tmp_path / "mark").exists()


def test_weights_only_false_reads_any_object(tmp_path) -> None:
    torch.save({"path": pathlib.Path("a")}, tmp_path / "x.ckpt")

    with pytest.warns(UnsafeLoadWarning, match=r"x\.ckpt is read with `weights_only=False`"):
        checkpoint = TorchCheckpointIO().load_checkpoint(tmp_path / "x.ckpt", weights_only=False)

    assert checkpoint == {"path": pathlib.Path("a")}


def test_load_takes_a_map_location(tmp_path) -> None:
    TorchCheckpointIO().save_checkpoint(CHECKPOINT, tmp_path / "x.ckpt")

    checkpoint = TorchCheckpointIO().load_checkpoint(tmp_path / "x.ckpt", map_location="meta")

    assert checkpoint["state_dict"]["weight"].device.type == "meta"


def test_read_checkpoint_takes_an_open_file(tmp_path) -> None:
    TorchCheckpointIO().save_checkpoint(CHECKPOINT, tmp_path / "x.ckpt")

    with open(tmp_path / "x.ckpt", "rb") as file:
        assert_equals_checkpoint(read_checkpoint(file))


# -- removing, and places elsewhere -----------------------------------------------------------------------------------


def test_remove_takes_a_file_a_folder_and_a_link_and_does_not_mind_nothing(tmp_path) -> None:
    (tmp_path / "kept").mkdir()
    (tmp_path / "kept" / "part").touch()
    (tmp_path / "folder" / "deep").mkdir(parents=True)
    (tmp_path / "link").symlink_to(tmp_path / "kept")
    (tmp_path / "file").touch()

    for name in ("file", "folder", "link", "nothing"):
        TorchCheckpointIO().remove_checkpoint(tmp_path / name)

    assert files_in(tmp_path) == ["kept"]
    assert files_in(tmp_path / "kept") == ["part"]


def test_remote_checkpoint_is_saved_loaded_and_removed() -> None:
    fsspec = pytest.importorskip("fsspec")
    files = fsspec.filesystem("memory")
    url = "memory://bucket/run/x.ckpt"

    TorchCheckpointIO().save_checkpoint({"epoch": 1}, url)
    TorchCheckpointIO().save_checkpoint(CHECKPOINT, url)

    assert_equals_checkpoint(TorchCheckpointIO().load_checkpoint(url))
    assert files.ls("/bucket/run", detail=False) == ["/bucket/run/x.ckpt"]

    TorchCheckpointIO().remove_checkpoint(url)
    with pytest.raises(FileNotFoundError, match=url):
        TorchCheckpointIO().load_checkpoint(url)


def test_remote_write_that_fails_keeps_the_old_file_and_leaves_nothing_behind() -> None:
    fsspec = pytest.importorskip("fsspec")
    files = fsspec.filesystem("memory")
    files.pipe_file("/failing/x.ckpt", b"old")

    def write_half(file: IO[bytes]) -> None:
        file.write(b"new")
        raise OSError("the line is cut")

    with pytest.raises(OSError, match="the line is cut"):
        write_whole("memory://failing/x.ckpt", write_half)

    assert files.cat_file("/failing/x.ckpt") == b"old"
    assert files.ls("/failing", detail=False) == ["/failing/x.ckpt"]
    files.rm("/failing", recursive=True)
