"""How to write beyond the checkpoint file itself: links, removal, and the folder that it all goes to."""

from __future__ import annotations

import os
import shutil
from typing import TYPE_CHECKING, Any

from fulmen.plugins.io import index
from fulmen.utilities.cloud_io import get_filesystem, is_dir, is_remote, join_path, local_path
from fulmen.utilities.durable import sync_folder

if TYPE_CHECKING:
    from fulmen.callbacks.model_checkpoint import ModelCheckpoint
    from fulmen.trainer.trainer import Trainer


def default_folder(trainer: Trainer, of_newest_run: bool = False) -> str:
    """``<where the first logger writes>/checkpoints``, or ``<default_root_dir>/checkpoints`` without a logger.

    Args:
        of_newest_run: of the newest run that there is, if the logger numbers its runs itself.
    """
    if not trainer.loggers:
        return join_path(trainer.default_root_dir, "checkpoints")
    logger = trainer.loggers[0]
    root = logger.save_dir if logger.save_dir is not None else trainer.default_root_dir
    newest = logger.newest_version if of_newest_run else None
    version = logger.version if newest is None else newest
    version = version if isinstance(version, str) else f"version_{version}"
    return join_path(root, str(logger.name), version, "checkpoints")


def resolved(folder: str | os.PathLike[str]) -> str:
    """``folder`` as an absolute path without ``~`` and links; a remote one stays as it is."""
    folder = os.fspath(folder)
    return folder if is_remote(folder) else os.path.realpath(local_path(folder))


def check_link(save_last: Any, folder: str | None) -> None:
    """Look at ``save_last``, now that it is known where files go.

    Raises:
        ValueError: it is a text other than ``"link"``, or a link is asked for in a remote folder.
    """
    if save_last not in (None, True, False, "link"):
        raise ValueError(
            f"ModelCheckpoint(save_last={save_last!r}) is not known: write True (a file), 'link' or False."
        )
    if save_last == "link" and folder is not None and is_remote(folder):
        raise ValueError(
            f"ModelCheckpoint(save_last='link', dirpath={folder!r}) asks for a link, and remote folders "
            f"have none. Write save_last=True, or a local dirpath."
        )


def refuse_unwritable(folder: str) -> None:
    """Tell now, and not after an epoch, that nothing can be written to the local ``folder``. It is not made.

    Raises:
        NotADirectoryError: a part of its path is a file.
        PermissionError: this process may not write there.
    """
    if is_remote(folder):
        return
    place = os.path.abspath(local_path(folder))
    while not os.path.lexists(place):
        place = os.path.dirname(place)
    advice = "Choose another folder, by `ModelCheckpoint(dirpath=...)` or `Trainer(default_root_dir=...)`."
    if not os.path.isdir(place):
        raise NotADirectoryError(f"checkpoints cannot be written to {folder}: {place} is no folder. {advice}")
    if not os.access(place, os.W_OK | os.X_OK):
        raise PermissionError(f"checkpoints cannot be written to {folder}: {place} may not be written to. {advice}")


def is_not_empty(folder: str) -> bool:
    """Whether ``folder`` is a local folder with something in it, beyond the index and what was put aside."""
    if is_remote(folder) or not os.path.isdir(folder):
        return False
    return any(name != index.FILE_NAME and not name.endswith(index.ASIDE) for name in os.listdir(folder))


def warnings_before(policy: ModelCheckpoint, trainer: Trainer, resumes: bool) -> list[str]:
    """What to warn of when a training with ``policy`` begins.

    Args:
        resumes: it goes on from a file of this folder.
    """
    said, folder = [], policy.dirpath or ""
    checks = policy.save_top_k != 0 and trainer.is_global_zero and not trainer.fast_dev_run and not resumes
    if checks and is_not_empty(folder):
        said.append(f"The checkpoint folder {folder!r} is not empty: names that are taken get a version.")
    if policy.save_on_train_epoch_end is False and policy.every_n_epochs and not trainer.enable_validation:
        said.append(
            "ModelCheckpoint(save_on_train_epoch_end=False) saves at the end of validations, and this run has "
            "none, so nothing is saved before its end. Leave the argument out, or pass a validation loader."
        )
    return said


def files_in(folder: str, extension: str) -> list[str]:
    """Everything in ``folder`` whose name ends in ``extension``, folders (sharded checkpoints) included."""
    if not is_dir(folder):
        return []
    names = [os.path.basename(path.rstrip("/")) for path in get_filesystem(folder).ls(folder, detail=False)]
    return sorted(join_path(folder, name) for name in names if name.endswith(extension))


def lies_in(path: str, folder: str) -> bool:
    """Whether ``path`` is of something below ``folder``, however deep; links of folders are followed."""
    if is_remote(path) or is_remote(folder):
        return path.startswith(f"{folder.rstrip('/')}/") and ".." not in path.split("/")
    above, name = os.path.split(os.path.abspath(local_path(path)))
    place, root = os.path.join(os.path.realpath(above), name), os.path.realpath(local_path(folder))
    return place != root and os.path.commonpath([place, root]) == root


def may_remove(path: str, folder: str, resumed_from: str | os.PathLike[str] | None) -> bool:
    """Whether a policy that writes to ``folder`` may delete ``path``.

    Not what the run was resumed from, and nothing outside of the folder.
    """
    if resumed_from is not None:
        other = os.fspath(resumed_from)
        if path == other or (not is_remote(path) and os.path.abspath(path) == os.path.abspath(other)):
            return False
    return lies_in(path, folder)


def link(target: str, path: str) -> None:
    """Make ``path`` a relative link to ``target``, in place of what was there; a copy where links are impossible."""
    os.makedirs(os.path.dirname(path), exist_ok=True)
    fresh = f"{path}.new"
    clear(fresh)
    try:
        os.symlink(os.path.relpath(target, os.path.dirname(path)), fresh)
    except OSError:  # a file system without links
        if os.path.isdir(target):
            shutil.copytree(target, fresh)
        else:
            shutil.copy(target, fresh)
    if os.path.isdir(path) and not os.path.islink(path):
        clear(path)  # a folder cannot be replaced in one go
    os.replace(fresh, path)
    sync_folder(os.path.dirname(path))


def clear(path: str) -> None:
    """Remove the link, file or folder at ``path``, if there is one."""
    if os.path.isdir(path) and not os.path.islink(path):
        shutil.rmtree(path)
    elif os.path.lexists(path):
        os.unlink(path)
