"""Which file ``ckpt_path`` means: a path, ``"best"``, ``"last"``, ``"auto"``, ``"hpc"``."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

from fulmen.callbacks.checkpoint import Checkpoint
from fulmen.callbacks.checkpointing import record
from fulmen.callbacks.checkpointing.writing import default_folder
from fulmen.core.hparams import hparams_for_checkpoint
from fulmen.plugins.io import index
from fulmen.utilities.cloud_io import (
    exists,
    get_filesystem,
    is_dir,
    is_remote,
    join_path,
    local_path,
    make_dirs,
    parent_path,
)
from fulmen.utilities.durable import remove_parts
from fulmen.utilities.exceptions import MisconfigurationException
from fulmen.utilities.rank_zero import rank_zero_info, rank_zero_warn
from fulmen.utilities.text import shown

if TYPE_CHECKING:
    from fulmen.trainer.trainer import Trainer


def return_to_run(trainer: Trainer, verb: str, ckpt_path: Any) -> None:
    """Before anybody asks where files go: let the loggers of a ``fit`` go on in the directory of the run that
    ``"auto"`` means. Other verbs take a file from there, and log elsewhere.
    """
    if ckpt_path != "auto" or verb != "fit":
        return
    if not _has_trained(trainer):  # else it goes on where it did
        named = [getattr(callback, "dirpath", None) for callback in trainer.callbacks]
        root = (trainer.loggers[0].save_dir if trainer.loggers else None) or trainer.default_root_dir
        places = (root, *(os.fspath(folder) for folder in named if folder is not None))
        for logger in trainer.loggers:
            logger._places = places
            logger.return_to_newest_run()
        trainer.strategy.barrier("return_to_run")  # all have looked before one makes a folder
    if trainer.is_global_zero and not trainer.fast_dev_run:
        for folder in {logger.log_dir for logger in trainer.loggers}:
            if folder is not None and not is_remote(folder):
                remove_parts(local_path(folder))


def resolve_path(trainer: Trainer, verb: str, ckpt_path: Any, has_model: bool, before: list[Any]) -> Any:
    """The file that ``ckpt_path`` means: a path, ``"best"``, ``"last"``, ``"auto"``, ``"hpc"`` or None.

    Args:
        before: the checkpoint callbacks of the run before, which know its best file; those of this run may be new, if
            the module's ``configure_callbacks`` makes them.

    Returns:
        A path, or None to load nothing.

    Raises:
        ValueError: ``"best"`` or ``"hpc"`` cannot be answered, or ``"auto"`` by another verb than ``fit``.
        RuntimeError: the file is damaged.
    """
    if ckpt_path is not None and not isinstance(ckpt_path, (str, os.PathLike)):
        raise TypeError(
            f"`trainer.{verb}(ckpt_path={shown(ckpt_path)})`: must be a path, 'best', 'last', 'auto', 'hpc' or None. "
            f"Write `trainer.{verb}(model, ckpt_path='last')`, say."
        )
    trainer.ckpt_was_chosen = ckpt_path in ("auto", "last", "hpc")
    writers = [callback for callback in trainer.callbacks if isinstance(callback, Checkpoint)]
    if ckpt_path is None:
        if verb == "fit":
            return _left_by_an_exception(writers)
        if has_model:
            return None
        if not before or not getattr(before[0], "best_model_path", ""):
            return None
        rank_zero_warn(
            f"`trainer.{verb}()` was given neither a model nor a `ckpt_path`: the best checkpoint is used. "
            f"Say so by `trainer.{verb}(ckpt_path='best')`."
        )
        ckpt_path = "best"
    if ckpt_path == "best":
        return _checked(_best(trainer, verb, before or writers))
    if ckpt_path == "auto":
        return _auto(trainer, verb, writers)
    if ckpt_path == "last":
        return _last(trainer, verb, writers)
    if ckpt_path == "hpc":
        return _left_by_a_signal(trainer, verb, writers)
    if ckpt_path == "registry" or str(ckpt_path).startswith("registry:"):
        raise MisconfigurationException(f"`ckpt_path={ckpt_path!r}` is not there yet. Give the path of the file.")
    return _checked(ckpt_path)


# -- auto -------------------------------------------------------------------------------------------------------------


def _auto(trainer: Trainer, verb: str, writers: list[Any]) -> str | None:
    """The newest whole checkpoint of this run. None to begin anew; what is in the way then is put aside."""
    fit = verb == "fit"
    if trainer.fast_dev_run and fit:  # it writes nothing, and so goes on with nothing
        return None
    folders = _folders(trainer, writers, verb)
    path = _newest(trainer, folders, tidy=fit, weights_suffice=not fit)
    if fit and trainer.signals.requeue is not None and trainer.signals.requeue.is_restart:
        path = _newer_of_lightning(trainer, path)
    path = trainer.strategy.broadcast(path)
    places = ", ".join(map(repr, folders))
    if path is None and not fit:
        raise ValueError(
            f"`trainer.{verb}(ckpt_path='auto')` takes the newest checkpoint of this run, and there is none in "
            f"{places}. Fit first, or give the path of a file."
        )
    if path is None:
        if all(getattr(writer, "save_weights_only", False) for writer in writers):
            advice = "`save_weights_only=True`" if writers else "`enable_checkpointing=False`"
            rank_zero_warn(
                "`ckpt_path='auto'` goes on from the newest checkpoint, and this Trainer has no callback that writes "
                f"one with the whole state, so every start is a fresh one. Leave {advice} out."
            )
        else:
            rank_zero_info("a fresh start: there is no checkpoint in %s yet", places)
        _begin_anew(trainer)
    return path


def _begin_anew(trainer: Trainer) -> None:
    """What a start that came to no checkpoint has logged is trained again, and so taken back. Its folder for
    checkpoints tells it from an evaluation, whose rows stay.
    """
    if not trainer.loggers:
        return
    folder = default_folder(trainer)
    if is_remote(folder) or is_dir(folder):
        for logger in trainer.loggers:
            logger.begin_anew()
    elif trainer.is_global_zero:
        make_dirs(folder)


def _has_trained(trainer: Trainer) -> bool:
    return trainer.progress.total_batches > 0


def _folders(trainer: Trainer, writers: Iterable[Any], verb: str = "fit") -> dict[str, str]:
    """Where the callbacks write, and the extension of their files. For an evaluation by a trainer that has not trained:
    where those of the newest run have written.
    """
    own = run = default_folder(trainer)
    if verb != "fit" and not _has_trained(trainer):
        run = trainer.strategy.broadcast(default_folder(trainer, of_newest_run=True))
    folders = {}
    for writer in writers:
        folder = os.fspath(getattr(writer, "dirpath", None) or own)
        folders[run if folder == own else folder] = getattr(writer, "FILE_EXTENSION", ".ckpt")
    return folders or {run: ".ckpt"}


def _newest(trainer: Trainer, folders: dict[str, str], tidy: bool, weights_suffice: bool) -> str | None:
    """The newest checkpoint of several folders that is whole.

    Args:
        folders: with the extension of their files.
        tidy: also take up whole files that the index does not name, put damaged ones aside, and remove what is half
            written, as a process that was killed has left them.
        weights_suffice: whether files with weights only count.
    """
    if not trainer.is_global_zero:
        return None
    found, damaged = [], []
    for folder, extension in folders.items():
        known = record.read(trainer, folder)
        if tidy:
            if not is_remote(folder):
                remove_parts(local_path(folder))
            damaged += index.adopt(known, trainer.strategy.load_checkpoint, extension)
        else:
            _complete(trainer, known, extension)
        for entry in reversed(list(known.entries)):
            if entry.weights_only and not weights_suffice:
                continue
            damage = known.damage(entry)
            if damage is None:
                found.append((entry.position, entry.written, known.path_of(entry)))
                break
            path = known.path_of(entry)
            if not tidy:
                damaged.append(f"{path}: {damage}")
            elif exists(path):
                damaged.append(f"{path}: {damage}; it is put aside as {os.path.basename(known.put_aside(entry))}")
            else:
                damaged.append(f"{path}: {damage}")
                known.remove([path])
    newest = max(found)[-1] if found else None
    if damaged:
        instead = f"{newest} is used instead." if newest else "There is no other one."
        rank_zero_warn(f"checkpoints are damaged. {instead}\n" + "\n".join(damaged))
    return newest


def _complete(trainer: Trainer, known: index.Index, extension: str) -> None:
    """Take what the files in a folder say of themselves if its index is lost, and change none."""
    if not known.entries:
        index.adopt(known, trainer.strategy.load_checkpoint, extension, tidy=False)


def mark_finished(trainer: Trainer) -> None:
    """Note that everything of a run is done, its last hooks and loggers included."""
    for folder in _folders(trainer, trainer.checkpoint_callbacks) if trainer.checkpoint_callbacks else ():
        if trainer.is_global_zero:
            known = record.read(trainer, folder)
            if known.entries and not known.finished:
                known.finished = True
                known.write()


def is_finished(trainer: Trainer) -> bool:
    """Whether the run that goes on from the newest checkpoint came to its very end."""
    path = os.fspath(trainer.loaded_ckpt_path)
    for folder in _folders(trainer, trainer.checkpoint_callbacks):
        known = record.read(trainer, folder)
        if known.find(path) is not None:
            return trainer.strategy.broadcast(known.finished)
    return True


def warn_of_other_hyperparameters(trainer: Trainer, checkpoint: dict[str, Any]) -> None:
    """Tell that a run goes on with other hyperparameters than it was begun with."""
    differences = []
    for owner in (trainer.lightning_module, trainer.datamodule):
        if owner is None:
            continue
        key = owner.CHECKPOINT_HYPER_PARAMS_KEY
        saved, given = checkpoint.get(key) or {}, hparams_for_checkpoint(owner).get(key) or {}
        for name in sorted(saved.keys() | given.keys(), key=str):
            one, other = saved.get(name, "(none)"), given.get(name, "(none)")
            if repr(one) != repr(other):
                differences.append(f"{name}={shown(other)} (was {shown(one)})")
    if differences:
        rank_zero_warn(
            f"`ckpt_path='auto'` goes on with a run that had other hyperparameters: now {', '.join(differences)}. "
            "For a run of its own give it another directory, by the logger's `name` or `version`."
        )


# -- the others -------------------------------------------------------------------------------------------------------


def _best(trainer: Trainer, verb: str, writers: list[Any]) -> str:
    if not writers:
        raise ValueError(
            f"`trainer.{verb}(ckpt_path='best')` needs a ModelCheckpoint, and this Trainer has none. "
            "Pass `callbacks=ModelCheckpoint(monitor='val_loss')`, or give the path of a file."
        )
    if len(writers) > 1:
        rank_zero_warn(f"`ckpt_path='best'`: of {len(writers)} checkpoint callbacks the first one's best file is used.")
    best = getattr(writers[0], "best_model_path", "") or _best_of_another_process(trainer, verb, writers[0])
    if not best:
        why = "`fast_dev_run` writes no checkpoints" if trainer.fast_dev_run else "it has not written any file"
        raise ValueError(
            f"`trainer.{verb}(ckpt_path='best')`: {type(writers[0]).__name__} knows no best file, since {why}. "
            "Fit first, or give the path of a file."
        )
    return best


def _best_of_another_process(trainer: Trainer, verb: str, writer: Any) -> str:
    """The best file by what the index says, as the callback itself would have it."""
    ((folder, extension),) = _folders(trainer, [writer], verb).items()
    known = record.read(trainer, folder)
    _complete(trainer, known, extension)
    monitor = getattr(writer, "monitor", None)
    if monitor is None:
        ranked = [entry for entry in known.entries if entry.reason in ("epoch", "step", "time", "found")]
        return known.path_of((ranked or known.entries)[-1]) if known.entries else ""
    scores = [
        (float(entry.metric["value"]), entry)
        for entry in known.entries
        if entry.metric is not None and entry.metric["name"] == monitor
    ]
    scores = [(score, entry) for score, entry in scores if score == score] or scores
    if not scores:
        return ""
    better = min if writer.mode == "min" else max
    return known.path_of(better(scores, key=lambda pair: pair[0])[1])


def _last(trainer: Trainer, verb: str, writers: list[Any]) -> str | None:
    folders = _folders(trainer, writers, verb)
    newest = _newest(trainer, folders, tidy=False, weights_suffice=verb != "fit") if writers else None
    newest = trainer.strategy.broadcast(newest)
    if newest is not None:
        return newest
    found: list[tuple[Any, str]] = []
    for writer in writers:
        candidates = writer.last_checkpoint_candidates(trainer) if hasattr(writer, "last_checkpoint_candidates") else []
        for path in candidates:
            files = get_filesystem(path)
            if files.exists(path):
                found.append((files.modified(path), str(path)))
    if not found:
        places = ", ".join(map(repr, folders))
        rank_zero_warn(
            f"`ckpt_path='last'`: there is no checkpoint in {places}, so nothing is loaded. Write "
            "`ckpt_path='auto'` to go on in the directory of the newest run."
        )
        return None
    return max(found)[1]


def _left_by_a_signal(trainer: Trainer, verb: str, writers: list[Any]) -> str:
    """What a run that was asked to end has left: a file as Lightning writes it under SLURM, or one of ours."""
    root = trainer.default_root_dir
    left = trainer.strategy.broadcast(_left_by_lightning(trainer))
    if left is not None:
        return left
    for folder in _folders(trainer, writers, verb):
        known = record.read(trainer, folder)
        for entry in reversed(known.entries):
            if entry.reason in record.SIGNALS and known.damage(entry) is None:
                return known.path_of(entry)
    raise ValueError(
        f"`trainer.{verb}(ckpt_path='hpc')` takes the file that a run left when a signal ended it, and there is none "
        f"in {root}. Write `ckpt_path='auto'` to go on from the newest file, whatever it was written for."
    )


def _left_by_lightning(trainer: Trainer) -> str | None:
    """The file with the highest number that Lightning's handler of SLURM's signal has left, None if there is none."""
    if not trainer.is_global_zero:
        return None
    root = trainer.default_root_dir
    names = [os.path.basename(path) for path in get_filesystem(root).ls(root, detail=False)] if exists(root) else []
    numbers = [int(match[1]) for match in map(re.compile(r"hpc_ckpt_(\d+)\.ckpt").fullmatch, names) if match]
    for number in sorted(numbers, reverse=True):
        path = join_path(root, f"hpc_ckpt_{number}.ckpt")
        if index.is_whole(path):
            return path
        rank_zero_warn(f"{path} is not whole: the job was killed while it was written. One before it is looked for.")
    return None


def _newer_of_lightning(trainer: Trainer, path: str | None) -> str | None:
    """``path``, or the file that Lightning has left, if that is newer: the job was begun there."""
    left = _left_by_lightning(trainer)
    if left is None or (path is not None and _modified(path) >= _modified(left)):
        return path
    return left


def _modified(path: str) -> Any:
    return get_filesystem(path).modified(path)


def _checked(path: Any) -> Any:
    """``path``, if it is as the index of its folder says it was written.

    Raises:
        RuntimeError: it is not.
    """
    if str(path).startswith(("http://", "https://")):
        return path
    known = index.read(parent_path(path) or os.curdir)
    entry = known.find(os.fspath(path))
    damage = None if entry is None or not exists(path) else known.damage(entry)
    if damage is not None and not index.is_whole(path):  # a user may have written another one over it
        raise RuntimeError(f"the checkpoint {path} is damaged: {damage}.{index.newest_in(known.folder)}")
    return path


def _left_by_an_exception(writers: list[Any]) -> str | None:
    for writer in writers:
        path = getattr(writer, "ckpt_path", None)  # of an OnExceptionCheckpoint
        if isinstance(path, str) and exists(path):
            rank_zero_warn(f"going on from {path}, which a run that ended in an exception left.")
            return path
    return None
