"""Save checkpoints while training: the best, the newest, all, or the last.

The four questions have one part each in :mod:`fulmen.callbacks.checkpointing`: when (``trigger``), what to keep
(``retention``), how to name (``naming``), how to write (``writing``). This file asks them in turn.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from datetime import timedelta
from functools import partial
from typing import TYPE_CHECKING, Any, Literal

import torch
from torch import Tensor

from fulmen.callbacks.checkpoint import Checkpoint
from fulmen.callbacks.checkpointing import naming, record, writing
from fulmen.callbacks.checkpointing.retention import Kept, Retention
from fulmen.callbacks.checkpointing.trigger import Position, Trigger, epoch_ends_here
from fulmen.callbacks.moments import validates_at_epoch_end
from fulmen.plugins.io import index
from fulmen.utilities.cloud_io import exists, is_remote, join_path
from fulmen.utilities.exceptions import MisconfigurationException
from fulmen.utilities.rank_zero import rank_zero_info, rank_zero_warn

if TYPE_CHECKING:
    from fulmen.core.module import LightningModule
    from fulmen.trainer.trainer import Trainer


def _kept(name: str) -> Any:
    """A window onto one field of what is announced."""

    def read(self: ModelCheckpoint) -> Any:
        return getattr(self._announced, name)

    def write(self: ModelCheckpoint, value: Any) -> None:
        self._kept = replace(self._kept, **{name: value})
        self._announced = replace(self._announced, **{name: value})

    return property(read, write)


class ModelCheckpoint(Checkpoint):
    """Saves checkpoints while ``fit`` runs.

    *When*: every epoch, or every ``every_n_epochs`` epochs, every ``every_n_train_steps`` optimizer steps, or whenever
    ``train_time_interval`` has passed. *What to keep*: the ``save_top_k`` best by ``monitor``, or the newest file when
    nothing is monitored; and with ``save_last`` the most recent state, always. A file is announced in
    ``best_model_path`` and the like once it is completely written, and what falls out is removed after that. A file is
    written at the end of a step, when all hooks and the validation that belongs to it are over, so that a run goes on
    from it exactly. ``checkpoints.json`` in the folder names each file, with its checksum and why it was written.

    *The end*: when training ends, its final state is in a file. If none holds it yet, it becomes the newest file when
    nothing is monitored, and ``last.ckpt`` otherwise; not with ``save_last=False``, not with ``save_top_k=0`` unless
    ``save_last`` is set, and not if no rhythm is left (``every_n_train_steps=0``). A run that ends before its time
    writes ``last.ckpt`` in any case, see :meth:`save_now`. A save that fails ends the run, and keeps what was there.

    Args:
        dirpath: the folder to write to, local or remote (``s3://...``). None: ``checkpoints`` in the first logger's
            folder, or in ``default_root_dir`` without a logger.
        filename: template of the file name, with logged metrics, ``epoch`` and ``step`` in braces:
            ``"{epoch:02d}-{val_loss:.2f}"``. None: ``"{epoch}-{step}"``. A ``/`` makes a folder.
        monitor: name of the logged metric to rank by; ``"epoch"`` and ``"step"`` are possible. None: keep the newest.
        verbose: say what is saved.
        save_last: True: also write the most recent state to ``last.ckpt`` every time, and at the end of training.
            ``"link"``: make ``last.ckpt`` a link to the file saved most recently (local folders only), and at the end
            a file if the final state is in no other. None: only the final state, if it is in no other file. False: not
            even that.
        save_top_k: how many files to keep: -1 for all, 0 for none; without a monitor -1, 0 or 1.
        save_on_exception: also save when an exception (or Ctrl-C) ends the training.
        save_weights_only: leave out the state of optimizers, schedulers and callbacks; one cannot resume from it.
        mode: ``"min"`` if a lower metric is better, ``"max"`` if a higher one is. Equal values replace nothing, NaN is
            worse than everything.
        auto_insert_metric_name: write ``epoch=3`` instead of ``3`` for ``{epoch}``.
        every_n_train_steps: save when that many optimizer steps were made since the last multiple. If a validation is
            due after the same batch, the save waits for it, so that the metric belongs to the weights.
        train_time_interval: save when that much time has passed: a ``timedelta``, or a text such as ``"30min"``.
        every_n_epochs: save at the end of every so many epochs (the default, with 1).
        save_on_train_epoch_end: with ``every_n_epochs``: save at the end of the training epoch (True) or of each
            validation (False). None: of each validation, unless one belongs to the end of every epoch or there is none.
        enable_version_counter: add ``-v1``, ``-v2``, ... to names that are taken; False writes over them.

    Attributes:
        best_model_path: path of the best file (of the newest if nothing is monitored), ``""`` before the first.
        best_model_score: its metric, or None.
        last_model_path: path of the file or link written for ``save_last`` or at the end, or ``""``.
        best_k_models: metric of each kept file, by path.
        kth_best_model_path: the worst of them.
        kth_value: its metric.
        current_score: the metric of the file saved most recently, or None.

    Raises:
        MisconfigurationException: an argument is not allowed, or two contradict each other; while training, when
            ``monitor`` was not logged though a validation has run.
        ValueError: ``save_last`` is a text other than ``"link"``, or a link is asked for in a remote folder.
        OSError: while training, when a file could not be written; it names the path.

    Example::

        checkpoint = ModelCheckpoint(monitor="val_loss", filename="{epoch:02d}-{val_loss:.2f}", save_last=True)
        Trainer(callbacks=[checkpoint]).fit(model)
        model = Model.load_from_checkpoint(checkpoint.best_model_path)
    """

    CHECKPOINT_JOIN_CHAR = "-"
    CHECKPOINT_EQUALS_CHAR = "="
    CHECKPOINT_NAME_LAST = "last"
    FILE_EXTENSION = ".ckpt"
    STARTING_VERSION = 1

    best_k_models: dict[str, Tensor] = _kept("best_k_models")
    best_model_path: str = _kept("best_model_path")
    best_model_score: Tensor | None = _kept("best_model_score")
    kth_best_model_path: str = _kept("kth_best_model_path")
    kth_value: Tensor = _kept("kth_value")
    current_score: Tensor | None = _kept("current_score")
    last_model_path: str = _kept("last_model_path")

    def __init__(
        self,
        dirpath: str | os.PathLike[str] | None = None,
        filename: str | None = None,
        monitor: str | None = None,
        verbose: bool = False,
        save_last: bool | Literal["link"] | None = None,
        save_top_k: int = 1,
        save_on_exception: bool = False,
        save_weights_only: bool = False,
        mode: str = "min",
        auto_insert_metric_name: bool = True,
        every_n_train_steps: int | None = None,
        train_time_interval: timedelta | str | dict[str, int] | None = None,
        every_n_epochs: int | None = None,
        save_on_train_epoch_end: bool | None = None,
        enable_version_counter: bool = True,
    ) -> None:
        self.dirpath = None if dirpath is None else writing.resolved(dirpath)
        self._logger_folder: str | None = None  #: which is `dirpath` if nobody has chosen one
        self.filename = None if filename is None else os.fspath(filename)
        self.monitor = monitor
        self.verbose = verbose
        self.save_last = save_last
        self.save_top_k = save_top_k
        self.save_on_exception = save_on_exception
        self.save_weights_only = save_weights_only
        self.mode = mode
        self.auto_insert_metric_name = auto_insert_metric_name
        self.save_on_train_epoch_end = save_on_train_epoch_end
        self.enable_version_counter = enable_version_counter

        self._trigger = Trigger.from_arguments(every_n_train_steps, every_n_epochs, train_time_interval)
        self._retention = Retention.from_arguments(save_top_k, mode, monitor)
        self._kept: Kept = self._retention.none()  #: once all that was saved is written
        self._announced: Kept = self._kept  #: of this, what is durable
        self._being_written: Counter[str] = Counter()  #: how many writes to each path are still to come
        self._removals = 0  #: how many files are still to be removed, once those in their place are written
        self._kept_after_write: Kept | None = None  #: while a file is written: what will be kept once it is there
        self._file: dict[str, Any] | None = None  #: while a file is written: what it says of itself
        self._saved_at: Position | None = None  #: None outside of training
        self._last_saved_at: Position | None = None
        self._newest: tuple[Position, str] | None = None  #: the file written last, and the position it resumes at
        self._final_at: tuple[int, int] | None = None  #: batches and steps of the newest file that the policy asked for
        self._resumed: dict[str, Any] = {}  #: what a checkpoint says of the run, until training starts
        self._due: str = ""  #: what is to be done at this moment: "save" or, once that is done, "last"
        self._epoch_seen: int | None = None  #: whose end this callback has been told of
        self._waits: bool = False  #: a save is due and waits for its metric
        self._validated: bool = False  #: a validation has run since training began
        self._trained_before: bool = False
        self._restored: bool = False
        self._warned: set[str] = set()

        naming.fields_of(self.filename or "")
        self._check_link()
        if (
            not self._trigger.looks_after_batches
            and type(self).on_train_batch_end is ModelCheckpoint.on_train_batch_end
        ):
            self.on_train_batch_end = None  # type: ignore[assignment]  # there is nothing to ask after each batch

    def _check_link(self) -> None:
        if self.save_last not in (None, True, False, "link"):
            raise ValueError(
                f"ModelCheckpoint(save_last={self.save_last!r}) is not known: write True (a file), 'link' or False."
            )
        if self.save_last == "link" and self.dirpath is not None and is_remote(self.dirpath):
            raise ValueError(
                f"ModelCheckpoint(save_last='link', dirpath={self.dirpath!r}) asks for a link, and remote folders "
                f"have none. Write save_last=True, or a local dirpath."
            )

    @property
    def state_key(self) -> str:
        return self._generate_state_key(
            monitor=self.monitor,
            mode=self.mode,
            every_n_train_steps=self._trigger.every_n_train_steps,
            every_n_epochs=self._trigger.every_n_epochs,
            train_time_interval=self._trigger.train_time_interval,
        )

    @property
    def every_n_epochs(self) -> int | None:
        """Epochs between two saves; 0 if the saves come by steps or by time."""
        return self._trigger.every_n_epochs

    # -- when ---------------------------------------------------------------------------------------------------------

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        folder = self.dirpath
        if folder is None or (folder == self._logger_folder and not self._trained_before):  # else of an evaluation
            folder = self._logger_folder = trainer.strategy.broadcast(writing.default_folder(trainer))
        self.dirpath = trainer.strategy.broadcast(folder)
        self._saved_at = None
        if stage == "fit":
            self._check_link()
            if trainer.is_global_zero and not trainer.fast_dev_run:
                writing.refuse_unwritable(self.dirpath)

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        here = Position.of(trainer)
        if self._trained_before and not self._restored and here == (0, 0, 0):
            self._announced = self._retention.none()  # another training: the files of the one before are not its own
        self._kept, self._being_written, self._removals = self._announced, Counter(), 0
        if trainer.world_size > 1:  # rank 0 may see files that others do not
            self._kept = self._announced = trainer.strategy.broadcast(self._kept)
        self._warn_if_not_empty(trainer)
        self._trigger.start(here)
        self._saved_at = self._last_saved_at = here  # the state that the run begins with needs no file
        if trainer.progress.batch_is_open:  # but a validation still belongs to it
            self._saved_at = Position(-1, -1, -1)
        self._waits, self._validated, self._due = False, False, ""
        self._newest = self._final_at = self._epoch_seen = None
        if self._restored:
            self._go_on(trainer)
        self._trained_before, self._restored = True, False
        if self.save_on_train_epoch_end is False and self._trigger.every_n_epochs and not trainer.enable_validation:
            rank_zero_warn(
                "ModelCheckpoint(save_on_train_epoch_end=False) saves at the end of validations, and this run has "
                "none, so nothing is saved before its end. Leave the argument out, or pass a validation loader."
            )

    def _go_on(self, trainer: Trainer) -> None:
        """Be the callback that wrote the checkpoint, at the moment at which it did."""
        if trainer.loaded_ckpt_path is not None:
            self._newest = Position.reached(trainer), os.fspath(trainer.loaded_ckpt_path)
        run = self._resumed.get("run")
        if run is None:
            return
        self._waits, self._validated, self._due = run["waits"], run["validated"], run["due"]
        self._epoch_seen = run["epoch_seen"]
        self._saved_at, self._last_saved_at = Position(*run["saved_at"]), Position(*run["last_saved_at"])
        self._final_at = None if run["final_at"] is None else tuple(run["final_at"])
        self._trigger.load_state_dict(run["trigger"])

    def catch_up(self, trainer: Trainer) -> None:
        file, knows_run, self._resumed = self._resumed.get("file"), "run" in self._resumed, {}
        if not knows_run or not self._may_save(trainer):
            return
        assert self.dirpath is not None
        if trainer.progress.epoch_is_closed and self._epoch_seen != trainer.current_epoch:
            self.on_train_epoch_end(trainer, trainer.lightning_module)
        elif self._due == "save":
            self._save(trainer)
        elif self._due == "last":
            newest = join_path(self.dirpath, *file["path"].split("/")) if file else ""
            self._save_last(trainer, self._metrics(trainer), newest)
        if file is None:
            return
        replaced = record.replaced_by(trainer, self.dirpath, file, stale_last=not self.save_last)
        for path in replaced:
            if path not in (*self.best_k_models, self.best_model_path, self.last_model_path):
                self._remove(trainer, path)

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        if trainer.progress.accumulating or not self._may_save(trainer):
            return
        agree = partial(trainer.boundary.agree, f"save {trainer.callbacks.index(self)}")
        if not self._trigger.after_batch(Position.of(trainer), agree):
            return
        if self.monitor is None:
            self._defer(trainer, "save")
        elif epoch_ends_here(trainer) or trainer.progress.time_to_validate:
            self._waits = True  # for the metric that belongs to these weights
        elif self.monitor in self._metrics(trainer):
            self._defer(trainer, "save")
        else:
            self._waits = True  # for the first evaluation; the most recent state is safe meanwhile
            self._defer(trainer, "last")

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if not self._may_save(trainer):
            return
        self._validated = True
        by_epoch = not self._saves_at_train_epoch_end(trainer) and self._trigger.after_epoch(trainer.current_epoch)
        if by_epoch or (self._waits and not epoch_ends_here(trainer)):
            self._defer(trainer, "save")

    def _defer(self, trainer: Trainer, due: str) -> None:
        """Save at the end of the step."""
        self._due = due
        trainer.boundary.defer(
            partial(self._save, trainer) if due == "save" else lambda: self._save_last(trainer, self._metrics(trainer))
        )

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if not self._may_save(trainer):
            return
        self._epoch_seen = trainer.current_epoch
        by_epoch = self._saves_at_train_epoch_end(trainer) and self._trigger.after_epoch(trainer.current_epoch)
        if by_epoch or self._waits:
            self._save(trainer)

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if self._may_save(trainer):
            self._save_final(trainer)
        self._saved_at, self._resumed, self._restored = None, {}, False

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        if not self.save_on_exception or not self._may_save(trainer) or self._saved_at == Position.of(trainer):
            return
        metrics = self._metrics(trainer)
        path = self._free_path(trainer, metrics, spare="")
        last = self._path_of_last(trainer, metrics)
        self._write(trainer, path, self._kept, replace(self._kept, last_model_path=last), "exception")
        self._save_last(trainer, metrics, newest=path)
        self._saved_at = None

    def _may_save(self, trainer: Trainer) -> bool:
        return self._saved_at is not None and not trainer.fast_dev_run and not trainer.sanity_checking

    def _saves_at_train_epoch_end(self, trainer: Trainer) -> bool:
        if self.save_on_train_epoch_end is not None:
            return self.save_on_train_epoch_end
        return validates_at_epoch_end(trainer)

    # -- what to keep -------------------------------------------------------------------------------------------------

    def _save(self, trainer: Trainer) -> None:
        """Save what is due: the state with its metrics is complete."""
        self._waits, self._due = False, ""
        here, before = Position.of(trainer), self._saved_at
        if before is None or here == before:
            return
        metrics = self._metrics(trainer)
        # what the file says of the run is what is true once it is there
        self._saved_at, self._due = here, "last" if self.save_last else ""
        try:
            # within an accumulation window the weights are still those of the step before
            same_weights = trainer.progress.accumulating and here.steps == before.steps
            newest = "" if same_weights else self._save_ranked(trainer, metrics)
            self._save_last(trainer, metrics, newest)
        except BaseException:
            self._saved_at = before
            raise

    def _save_ranked(self, trainer: Trainer, metrics: dict[str, Tensor], reason: str = "") -> str:
        """Write a file if it will be kept, and remove what falls out for it. Returns its path, or ``""``."""
        score = None
        if self.monitor is not None:
            if self.monitor not in metrics:
                self._monitor_is_missing(metrics)
                return ""
            score = metrics[self.monitor]
        if not self.check_monitor_top_k(trainer, score):
            self._say_not_kept(trainer, score)
            return ""
        path = self._free_path(trainer, metrics, spare=self._retention.makes_room(self._kept))
        kept, dropped = self._retention.add(self._kept, path, score)
        stale = "" if self.save_last else kept.last_model_path  # from an end of the run that was not the last one
        if stale:
            kept = replace(kept, last_model_path="")
        after_last = replace(kept, last_model_path=self._path_of_last(trainer, metrics)) if self.save_last else kept
        self._write(trainer, path, kept, after_last, reason or self._trigger.reason, score, replaces=dropped)
        self._when_written(trainer, partial(self._say_kept, trainer, path, score))
        if self._links():
            self._link_last(trainer, path, self._path_of_last(trainer, metrics))  # away from what is removed now
        for gone in filter(None, (dropped, stale)):
            self._remove(trainer, gone)
        return path

    def check_monitor_top_k(self, trainer: Trainer, current: Tensor | None = None) -> bool:
        """Whether a file with the score ``current`` would be kept now. All ranks must agree.

        Without a monitor this is True unless ``save_top_k=0``; with one, ``current=None`` is never kept.
        """
        wanted = self._retention.wants(self._kept, current)
        if self.monitor is None or self.save_top_k <= 0:
            return wanted
        return trainer.strategy.reduce_boolean_decision(wanted)

    def _save_last(self, trainer: Trainer, metrics: dict[str, Tensor], newest: str = "") -> None:
        """Bring ``last`` up to date; ``newest`` is the file written just now, if any."""
        self._due = ""
        if not self.save_last:
            return
        here = Position.of(trainer)
        if self._links() and (newest or self._kept.best_model_path):
            if newest:  # otherwise the link already names the newest file
                self._link_last(trainer, newest, self._path_of_last(trainer, metrics))
        elif here != self._last_saved_at:
            self._write_last(trainer, metrics, "last")
        self._last_saved_at = here

    def _save_final(self, trainer: Trainer) -> None:
        """Training is over: see that its end is in a file."""
        metrics = self._metrics(trainer)
        if self.save_last and not self._links():
            if Position.of(trainer) != self._last_saved_at:
                self._write_last(trainer, metrics, "final")
            return
        end = trainer.progress.total_batches, trainer.progress.step
        held = any(one._final_at == end for one in trainer.checkpoint_callbacks if isinstance(one, ModelCheckpoint))
        if held or self.save_last is False or self.save_top_k == 0 or not self._trigger.reason:
            self._drop_last_of_before(trainer)
            return
        if self.monitor is not None or self.save_last:
            self._write_last(trainer, metrics, "final")
            return
        if "epoch" not in trainer.callback_metrics:
            metrics["epoch"] = metrics["epoch"] - 1  # the one that has ended, as in the names of the others
        self._save_ranked(trainer, metrics, "final")

    def _drop_last_of_before(self, trainer: Trainer) -> None:
        """Remove what the run had left when it ended before its time: it is no last state any more."""
        path, here = self._kept.last_model_path, Position.of(trainer)
        if self.save_last or not path or (self._last_saved_at and self._last_saved_at[1:] == here[1:]):
            return
        self._kept = kept = replace(self._kept, last_model_path="")
        self._remove(trainer, path)
        self._when_written(trainer, partial(setattr, self, "_announced", kept))
        self._when_written(trainer, partial(record.clear, trainer, self.dirpath or ""))

    def save_now(self, trainer: Trainer, reason: str) -> str | None:
        """Write the whole state of this moment to ``last.ckpt``, whatever ``save_last`` says.

        The file goes when the run is resumed and a newer one is there, unless ``save_last`` keeps it up to date.

        Returns:
            Its path, or that of the file written just before, if it holds this very state; None with
            ``save_weights_only``, and with ``save_last=False, save_top_k=0``, which want no such file.
        """
        if not self._may_save(trainer) or self.save_weights_only:
            return None
        trainer.strategy.checkpoint_io.settle()
        try:
            return self._path_of_this_moment(trainer, reason)
        finally:
            self._saved_at = None  # the run ends here: what its last hooks do is not saved

    def _path_of_this_moment(self, trainer: Trainer, reason: str) -> str | None:
        here = Position.reached(trainer)
        for writer in trainer.checkpoint_callbacks:
            if isinstance(writer, ModelCheckpoint) and writer._newest is not None and not writer.save_weights_only:
                position, path = writer._newest
                if position == here and self.file_exists(path, trainer):
                    return path
        if self.save_last is False and self.save_top_k == 0:
            return None
        self._write_last(trainer, self._metrics(trainer), reason)
        trainer.strategy.checkpoint_io.settle()
        return self.last_model_path

    def _write_last(self, trainer: Trainer, metrics: dict[str, Tensor], reason: str) -> None:
        path, previous = self._path_of_last(trainer, metrics), self._kept.last_model_path
        if trainer.is_global_zero and not is_remote(path) and os.path.islink(path):
            writing.clear(path)  # or the file that it points to would be written over
        kept = replace(self._kept, last_model_path=path)
        replaces = previous if previous != path else ""
        self._last_saved_at = Position.of(trainer)
        self._write(trainer, path, kept, kept, reason, replaces=replaces)
        if replaces:
            self._remove(trainer, replaces)

    def _link_last(self, trainer: Trainer, newest: str, path: str) -> None:
        assert self.dirpath is not None
        previous = self._kept.last_model_path
        record.forget(trainer, self.dirpath, path)  # a file, when a run has ended there before its time
        self._kept = kept = replace(self._kept, last_model_path=path)

        def link() -> None:
            if trainer.is_global_zero:
                writing.link(newest, path)
            self._announced = kept

        self._when_written(trainer, link)
        trainer.strategy.barrier("ModelCheckpoint.link")
        if previous and previous != path:
            self._remove(trainer, previous)

    def _links(self) -> bool:
        return self.save_last == "link" and self.save_top_k != 0

    def _metrics(self, trainer: Trainer) -> dict[str, Tensor]:
        """What can be monitored and put into names: every logged metric, ``epoch`` and ``step``."""
        metrics = {name: value.detach().cpu() for name, value in trainer.callback_metrics.items()}
        for name, value in (("epoch", trainer.current_epoch), ("step", trainer.global_step)):
            metrics[name] = metrics[name].int() if name in metrics else torch.tensor(value)
        return metrics

    def _monitor_is_missing(self, metrics: dict[str, Tensor]) -> None:
        message = (
            f"ModelCheckpoint(monitor={self.monitor!r}) found no metric of that name. There are: "
            f"{', '.join(map(repr, sorted(metrics)))}. Log it with `self.log({self.monitor!r}, value)`, or monitor "
            f"another."
        )
        if self._validated:
            raise MisconfigurationException(message)
        self._warn_once(message + " No file is saved until it is there.")

    def _warn_once(self, message: str) -> None:
        if message not in self._warned:
            self._warned.add(message)
            rank_zero_warn(message)

    def _say_kept(self, trainer: Trainer, path: str, score: Tensor | None) -> None:
        if self.verbose:
            why = "the newest" if score is None else f"{self.monitor}={score.item():.5g}"
            rank_zero_info(f"Epoch {trainer.current_epoch}, step {trainer.global_step}: saved {path!r} ({why}).")

    def _say_not_kept(self, trainer: Trainer, score: Tensor | None) -> None:
        if self.verbose and score is not None:
            rank_zero_info(
                f"Epoch {trainer.current_epoch}, step {trainer.global_step}: {self.monitor}={score.item():.5g} is not "
                f"among the best {self.save_top_k}."
            )

    def _warn_if_not_empty(self, trainer: Trainer) -> None:
        assert self.dirpath is not None
        if trainer.fast_dev_run:
            return
        resumes_here = trainer.ckpt_path is not None and os.fspath(trainer.ckpt_path).startswith(self.dirpath)
        if self.save_top_k != 0 and trainer.is_global_zero and not resumes_here and writing.is_not_empty(self.dirpath):
            rank_zero_warn(f"The checkpoint folder {self.dirpath!r} is not empty: names that are taken get a version.")

    # -- how to name --------------------------------------------------------------------------------------------------

    def format_checkpoint_name(
        self,
        metrics: dict[str, Any],
        filename: str | None = None,
        ver: int | None = None,
        prefix: str | None = None,
    ) -> str:
        """The path of a checkpoint.

        Args:
            metrics: values for the names in the template; a missing one becomes 0.
            filename: a template to use instead of the callback's own.
            ver: a version number to append, or None.
            prefix: text to put in front, or None.

        Returns:
            The path in ``dirpath``; the name alone while ``dirpath`` is not known yet.
        """
        join = self.CHECKPOINT_JOIN_CHAR
        template = filename or self.filename or f"{{epoch}}{join}{{step}}"
        name = naming.fill(template, metrics, self.CHECKPOINT_EQUALS_CHAR if self.auto_insert_metric_name else None)
        if prefix:
            name = f"{prefix}{join}{name}"
        if ver is not None:
            name = f"{name}{join}v{ver}"
        name += self.FILE_EXTENSION
        return join_path(self.dirpath, name) if self.dirpath else name

    def file_exists(self, filepath: str | os.PathLike[str], trainer: Trainer) -> bool:
        """Whether rank 0 sees a file at ``filepath``; all ranks get the same answer."""
        there = exists(os.fspath(filepath)) if trainer.is_global_zero else False
        return trainer.strategy.broadcast(there)

    def last_checkpoint_candidates(self, trainer: Trainer) -> list[str]:
        """The files in the folder that may hold the most recent state, for ``trainer.fit(ckpt_path="last")``."""
        folder = self.dirpath or writing.default_folder(trainer)
        stem = self.CHECKPOINT_NAME_LAST.partition("{")[0]  # the text before the first metric
        found = writing.files_in(folder, self.FILE_EXTENSION)
        return [path for path in found if os.path.relpath(path, folder).startswith(stem)]

    def _free_path(self, trainer: Trainer, metrics: dict[str, Tensor], spare: str, template: str | None = None) -> str:
        """A path for a new file that writes over none but ``spare``."""
        for name in naming.fields_of(template or self.filename or ""):
            if name not in metrics:
                self._warn_once(
                    f"The checkpoint name {template or self.filename!r} asks for {name!r}, which was not logged: it is "
                    f"written as 0. There are: {', '.join(map(repr, sorted(metrics)))}."
                )
        return naming.versioned(
            path=lambda version: self.format_checkpoint_name(metrics, template, version),
            taken=lambda path: (
                self.enable_version_counter and (self._being_written[path] > 0 or self.file_exists(path, trainer))
            ),
            spare=spare,
            first=self.STARTING_VERSION,
        )

    def _path_of_last(self, trainer: Trainer, metrics: dict[str, Tensor]) -> str:
        return self._free_path(trainer, metrics, spare=self._kept.last_model_path, template=self.CHECKPOINT_NAME_LAST)

    # -- how to write -------------------------------------------------------------------------------------------------

    def _write(
        self,
        trainer: Trainer,
        path: str,
        kept: Kept,
        kept_in_file: Kept,
        reason: str,
        score: Tensor | None = None,
        replaces: str = "",
    ) -> None:
        """Write a checkpoint, name it in the index, and announce ``kept`` once it is there.

        Args:
            kept_in_file: what the file itself says is kept: it counts itself, since whoever resumes from it has it.
            reason: why it is written, for the index.
            score: what it is ranked by.
            replaces: the file that is removed for it.

        Raises:
            OSError: it could not be written; everything is as it was.
        """
        folder = self.dirpath or ""
        if any(writer._removals for writer in trainer.checkpoint_callbacks if isinstance(writer, ModelCheckpoint)):
            trainer.strategy.checkpoint_io.settle()  # who goes on from the file that follows finds those removed
        self._being_written[path] += 1  # from here on: what was written there before is named no more
        metric = index.metric(self.monitor, None if score is None else score.item())
        before, final_before = record.forget(trainer, folder, path), self._final_at
        self._kept_after_write = kept_in_file
        self._file = {"path": index.relative(folder, path), "reason": reason, "metric": metric}
        self._file["replaces"] = index.relative(folder, replaces) if replaces else ""
        if reason in record.ASKED_FOR:
            self._final_at = trainer.progress.total_batches, trainer.progress.step
        try:
            trainer.save_checkpoint(path, self.save_weights_only)
        except BaseException:
            self._final_at = final_before
            self._being_written[path] -= 1
            record.put_back(trainer, folder, before)
            raise
        finally:
            self._kept_after_write = self._file = None
        self._kept = kept
        self._newest = Position.reached(trainer), path
        place = record.place(trainer)

        def announce() -> None:
            self._being_written[path] -= 1
            if not self._being_written[path]:  # else it is being written over, and nothing there is certain
                record.name(trainer, folder, path, place, reason, metric, self.save_weights_only)
            self._announced = kept
            if trainer.is_global_zero:
                for logger in trainer.loggers:
                    logger.after_save_checkpoint(self)

        self._when_written(trainer, announce)

    def _when_written(self, trainer: Trainer, action: Callable[[], None]) -> None:
        """Do ``action`` once all that was saved so far is durable: at once, unless it is written in the background."""
        trainer.strategy.checkpoint_io.when_written(action)

    def _remove(self, trainer: Trainer, path: str) -> None:
        assert self.dirpath is not None
        if not writing.may_remove(path, self.dirpath, None if trainer.ckpt_was_chosen else trainer.ckpt_path):
            return
        folder = self.dirpath
        self._removals += 1

        def remove() -> None:
            self._removals -= 1
            record.forget(trainer, folder, path)
            trainer.strategy.remove_checkpoint(path)

        self._when_written(trainer, remove)

    def state_dict(self) -> dict[str, Any]:
        kept = self._kept if self._kept_after_write is None else self._kept_after_write
        state = {
            "monitor": self.monitor,
            "best_model_score": kept.best_model_score,
            "best_model_path": kept.best_model_path,
            "current_score": kept.current_score,
            "dirpath": self.dirpath,
            "best_k_models": kept.best_k_models,
            "kth_best_model_path": kept.kth_best_model_path,
            "kth_value": kept.kth_value,
            "last_model_path": kept.last_model_path,
        }
        if self._saved_at is not None:
            assert self._last_saved_at is not None
            state["run"] = {
                "waits": self._waits,
                "validated": self._validated,
                "due": self._due,
                "epoch_seen": self._epoch_seen,
                "saved_at": tuple(self._saved_at),
                "last_saved_at": tuple(self._last_saved_at),
                "final_at": self._final_at,
                "trigger": self._trigger.state_dict(),
            }
        if self._file is not None:
            state["file"] = self._file
        return state

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Take up the files of an earlier run, also when their folder was moved or this run writes to another one.

        While a training runs this does nothing: its state was taken up when it began, and files were written since.
        """
        if self._saved_at is not None:
            return
        old, new = state_dict.get("dirpath"), self.dirpath
        listed = state_dict["best_k_models"]
        scores = {self._found(path, old): torch.as_tensor(score) for path, score in listed.items()}
        scores.pop("", None)
        best = self._found(state_dict["best_model_path"], old)
        if len(scores) < len(listed) or (state_dict["best_model_path"] and not best):
            rank_zero_warn(
                f"ModelCheckpoint writes to {new!r}. Of the files that the checkpoint lists in {old!r}, some are in "
                f"neither folder: they are forgotten, and the best are chosen among the others."
            )
        kept = replace(
            self._retention.none(),
            best_model_path=best,
            best_model_score=state_dict.get("best_model_score") if best else None,
            last_model_path=self._found(state_dict.get("last_model_path", ""), old),
        )
        self._kept = self._retention.ranking(kept, scores, current=state_dict.get("current_score"))
        self._announced = self._kept
        self._resumed = {key: state_dict[key] for key in ("run", "file") if key in state_dict}
        self._restored = True

    def _found(self, path: str, old_folder: str | None) -> str:
        """Where the file is that an earlier run kept at ``path``; ``""`` if it is no checkpoint of this folder's."""
        return naming.relocated(path, old_folder, self.dirpath) if path.endswith(self.FILE_EXTENSION) else ""

    def to_yaml(self, filepath: str | os.PathLike[str] | None = None) -> None:
        """Write the kept files and their metrics as YAML, by default to ``<dirpath>/best_k_models.yaml``."""
        import fsspec
        import yaml

        if filepath is None:
            filepath = os.path.join(self.dirpath or "", "best_k_models.yaml")
        scores = {path: score.item() for path, score in self.best_k_models.items()}
        with fsspec.open(os.fspath(filepath), "w", auto_mkdir=True) as file:
            yaml.dump(scores, file)  # type: ignore[call-overload]
