"""Save checkpoints while training: the best, the newest, all, or the last.

The four questions have one part each in :mod:`fulmen.callbacks.checkpointing`: when (``trigger``), what to keep
(``retention``), how to name (``naming``), how to write (``writing``). This file asks them in turn.
"""

from __future__ import annotations

import os
from dataclasses import replace
from datetime import timedelta
from functools import partial
from typing import TYPE_CHECKING, Any, Literal

import torch
from torch import Tensor

from fulmen.callbacks.checkpoint import Checkpoint, gathers_states
from fulmen.callbacks.checkpointing import naming, record, writing
from fulmen.callbacks.checkpointing.files import Files, Save
from fulmen.callbacks.checkpointing.private_names import NOT_CALLED, PrivateNames
from fulmen.callbacks.checkpointing.retention import Kept, Retention, monitor_is_missing, not_among_best, saved
from fulmen.callbacks.checkpointing.trigger import Place, Position, Trigger, epoch_ends_here
from fulmen.callbacks.moments import Memory, validates_at_epoch_end
from fulmen.plugins.io import index
from fulmen.utilities.cloud_io import exists, join_path
from fulmen.utilities.exceptions import MisconfigurationException
from fulmen.utilities.internals import warn_of_uncalled
from fulmen.utilities.rank_zero import rank_zero_info, rank_zero_warn

if TYPE_CHECKING:
    from fulmen.core.module import LightningModule
    from fulmen.trainer.trainer import Trainer


def _kept(name: str) -> Any:
    """A window onto one field of what is announced; of what the file will say, while states are gathered for it."""

    return property(
        lambda self: getattr((gathers_states.get() and self._files.in_file) or self._files.announced, name),
        lambda self, value: self._files.change(name, value),
    )


class ModelCheckpoint(PrivateNames, Checkpoint):
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
    Files that somebody removes while the run lasts are forgotten, with a warning.

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
        super().__init__()  # of another class that a user may have put behind this one
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
        self._files = Files(self._retention.none())
        self._place = Place()
        self._resumed: dict[str, Any] = {}  #: what a checkpoint says of the run, until training starts
        self._memory = Memory()
        self._warned: set[str] = set()
        self._written = ""  #: the file that was written just now, as one of those to keep
        self._is_final = False  #: training is over

        naming.fields_of(self.filename or "")
        writing.check_link(self.save_last, self.dirpath)
        if (
            not self._trigger.looks_after_batches
            and type(self).on_train_batch_end is ModelCheckpoint.on_train_batch_end
        ):
            self.on_train_batch_end = None  # type: ignore[assignment]  # there is nothing to ask after each batch

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        warn_of_uncalled(cls, NOT_CALLED)

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
        if folder is None or (folder == self._logger_folder and not self._memory.has_trained):  # else of an evaluation
            folder = self._logger_folder = trainer.strategy.broadcast(writing.default_folder(trainer))
        self.dirpath = trainer.strategy.broadcast(folder)
        self._memory.set_up()
        self._place.saved_at, self._resumed = None, {}
        if stage == "fit":
            writing.check_link(self.save_last, self.dirpath)
            if trainer.is_global_zero and not trainer.fast_dev_run:
                writing.refuse_unwritable(self.dirpath)

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        here = Position.of(trainer)
        if self._memory.is_of_another(trainer):
            self._files.announced = self._retention.none()
        if trainer.world_size > 1:  # rank 0 may see files that others do not
            self._files.announced = trainer.strategy.broadcast(self._files.announced)
        self._files.begin()
        path = os.fspath(trainer.ckpt_path or "")
        resumes = bool(path) and (trainer.ckpt_was_chosen or path.startswith(self.dirpath or ""))
        for message in writing.warnings_before(self, trainer, resumes):
            rank_zero_warn(message)
        self._trigger.start(here)
        # the state that the run begins with needs no file, but a validation may still belong to it
        saved_at = Position(-1, -1, -1) if trainer.progress.batch_is_open else here
        self._place = Place(saved_at=saved_at, last_saved_at=here)
        if self._memory.is_restored:
            self._go_on(trainer)
        self._memory.has_trained = True

    def _go_on(self, trainer: Trainer) -> None:
        """Be the callback that wrote the checkpoint, at the moment at which it did."""
        if trainer.loaded_ckpt_path is not None:
            self._place.newest = Position.reached(trainer), os.fspath(trainer.loaded_ckpt_path)
        run = self._resumed.get("run")
        if run is None:
            return
        self._place.load_state_dict(run)
        self._trigger.load_state_dict(run["trigger"])

    def catch_up(self, trainer: Trainer) -> None:
        file, knows_run, self._resumed = self._resumed.get("file"), "run" in self._resumed, {}
        if not knows_run or not self._may_save(trainer):
            return
        assert self.dirpath is not None
        if trainer.progress.epoch_is_closed and self._place.epoch_seen != trainer.current_epoch:
            self.on_train_epoch_end(trainer, trainer.lightning_module)
        elif self._place.due == "save":
            self._save(trainer)
        elif self._place.due == "last":
            self._written = join_path(self.dirpath, *file["path"].split("/")) if file else ""
            self._save_last_checkpoint(trainer, self._monitor_candidates(trainer))
        if file is None:
            return
        trainer.strategy.checkpoint_io.settle()  # the index is read
        replaced = record.replaced_by(trainer, self.dirpath, file, stale_last=not self.save_last)
        for path in replaced:
            if path not in (*self.best_k_models, self.best_model_path, self.last_model_path):
                self._remove_checkpoint(trainer, path)

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
            self._place.waits = True  # for the metric that belongs to these weights
        elif self.monitor in self._monitor_candidates(trainer):
            self._defer(trainer, "save")
        else:
            self._place.waits = True  # for the first evaluation; the most recent state is safe meanwhile
            self._defer(trainer, "last")

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if not self._may_save(trainer):
            return
        self._place.validated = True
        by_epoch = not self._should_save_on_train_epoch_end(trainer) and self._trigger.after_epoch(
            trainer.current_epoch
        )
        if by_epoch or (self._place.waits and not epoch_ends_here(trainer)):
            self._defer(trainer, "save")

    def _defer(self, trainer: Trainer, due: str) -> None:
        """Save at the end of the step."""
        self._place.due = due
        trainer.boundary.defer(partial(self._save if due == "save" else self._save_state, trainer))

    def _save_state(self, trainer: Trainer) -> None:
        """Bring ``last`` up to date, and nothing else."""
        self._written = ""
        self._save_last_checkpoint(trainer, self._monitor_candidates(trainer))

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if not self._may_save(trainer):
            return
        self._place.epoch_seen = trainer.current_epoch
        by_epoch = self._should_save_on_train_epoch_end(trainer) and self._trigger.after_epoch(trainer.current_epoch)
        if by_epoch or self._place.waits:
            self._save(trainer)

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if self._may_save(trainer):
            self._save_final(trainer)
        self._place.saved_at, self._resumed = None, {}

    def save_again(self) -> None:
        self._place.last_saved_at, self._place.final_at = Position(-1, -1, -1), None

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        if not self.save_on_exception or not self._may_save(trainer) or self._place.saved_at == Position.of(trainer):
            return
        metrics = self._monitor_candidates(trainer)
        path = self._free_path(trainer, metrics, spare="")
        last = self._path_of_last(trainer, metrics)
        self._write(trainer, path, self._files.kept, replace(self._files.kept, last_model_path=last), "exception")
        self._written = path
        self._save_last_checkpoint(trainer, metrics)
        self._place.saved_at = None

    def _may_save(self, trainer: Trainer) -> bool:
        return self._place.saved_at is not None and not self._should_skip_saving_checkpoint(trainer)

    def _should_skip_saving_checkpoint(self, trainer: Trainer) -> bool:
        return bool(trainer.fast_dev_run) or trainer.sanity_checking

    def _should_save_on_train_epoch_end(self, trainer: Trainer) -> bool:
        if self.save_on_train_epoch_end is not None:
            return self.save_on_train_epoch_end
        return validates_at_epoch_end(trainer)

    # -- what to keep -------------------------------------------------------------------------------------------------

    def _save(self, trainer: Trainer) -> None:
        """Save what is due: the state with its metrics is complete."""
        self._place.waits, self._place.due = False, ""
        here, before = Position.of(trainer), self._place.saved_at
        if before is None or here == before:
            return
        metrics = self._monitor_candidates(trainer)
        self._notice_removed(trainer)
        # what the file says of the run is what is true once it is there
        self._place.saved_at, self._place.due = here, "last" if self.save_last else ""
        try:
            # within an accumulation window the weights are still those of the step before
            same_weights = trainer.progress.accumulating and here.steps == before.steps
            self._written = ""
            if not same_weights:
                self._save_topk_checkpoint(trainer, metrics)
            self._save_last_checkpoint(trainer, metrics)
        except BaseException:
            self._place.saved_at = before
            raise

    def _save_topk_checkpoint(self, trainer: Trainer, monitor_candidates: dict[str, Tensor]) -> None:
        """Write a file if it will be kept, and remove what falls out for it."""
        if self.monitor is None:
            if self.check_monitor_top_k(trainer):
                self._save_none_monitor_checkpoint(trainer, monitor_candidates)
            return
        if self.monitor not in monitor_candidates:
            self._monitor_is_missing(monitor_candidates)
            return
        score = monitor_candidates[self.monitor]
        if self.check_monitor_top_k(trainer, score):
            self._update_best_and_save(score, trainer, monitor_candidates)
            self._files.look_again()  # a class of a program's own may have put something else in the file's place
        elif self.verbose:
            rank_zero_info(not_among_best(trainer, self.monitor, score, self.save_top_k))

    def _save_none_monitor_checkpoint(self, trainer: Trainer, monitor_candidates: dict[str, Tensor]) -> None:
        self._save_kept(trainer, monitor_candidates, None)

    def _update_best_and_save(self, current: Tensor, trainer: Trainer, monitor_candidates: dict[str, Tensor]) -> None:
        self._save_kept(trainer, monitor_candidates, current)

    def _save_kept(self, trainer: Trainer, metrics: dict[str, Tensor], score: Tensor | None) -> None:
        """Write a file that will be kept, and remove what falls out for it."""
        path = self._free_path(trainer, metrics, spare=self._retention.makes_room(self._files.kept))
        kept, dropped = self._retention.add(self._files.kept, path, score)
        stale = "" if self.save_last else kept.last_model_path  # from an end of the run that was not the last one
        if stale:
            kept = replace(kept, last_model_path="")
        after_last = replace(kept, last_model_path=self._path_of_last(trainer, metrics)) if self.save_last else kept
        reason = "final" if self._is_final else self._trigger.reason
        self._write(trainer, path, kept, after_last, reason, score, replaces=dropped)
        self._written = path
        if self.verbose:
            said = saved(trainer, self.monitor, path, score)
            self._files.when_written(trainer, partial(rank_zero_info, said))
        if self._links():  # away from what is removed now
            self._link(trainer, path, metrics)
        for gone in filter(None, (dropped, stale)):
            self._remove_checkpoint(trainer, gone)

    def _save_checkpoint(self, trainer: Trainer, filepath: str) -> None:
        """Write a file; called for each. Before and after it the index and what is announced are seen to."""
        trainer.save_checkpoint(filepath, self.save_weights_only)

    def _remove_checkpoint(self, trainer: Trainer, filepath: str) -> None:
        """Remove a file that is kept no more, once all that was saved so far is there; called for each."""
        self._files.remove(trainer, self.dirpath or "", filepath)

    def _link(self, trainer: Trainer, newest: str, metrics: dict[str, Tensor]) -> None:
        """Make ``last`` a link to the file ``newest``."""
        previous, path = self._files.kept.last_model_path, self._path_of_last(trainer, metrics)
        self._files.link(trainer, self.dirpath or "", newest, path)
        if previous and previous != path:
            self._remove_checkpoint(trainer, previous)

    def check_monitor_top_k(self, trainer: Trainer, current: Tensor | None = None) -> bool:
        """Whether a file with the score ``current`` would be kept now. All ranks must agree.

        Without a monitor this is True unless ``save_top_k=0``; with one, ``current=None`` is never kept.
        """
        wanted = self._retention.wants(self._files.kept, current)
        if self.monitor is None or self.save_top_k <= 0:
            return wanted
        return trainer.strategy.reduce_boolean_decision(wanted)

    def _save_last_checkpoint(self, trainer: Trainer, monitor_candidates: dict[str, Tensor]) -> None:
        """Bring ``last`` up to date."""
        self._place.due = ""
        if not self.save_last:
            return
        here = Position.of(trainer)
        if self._links() and (self._written or self._files.kept.best_model_path):
            if self._written:  # otherwise the link already names the newest file
                self._link(trainer, self._written, monitor_candidates)
        elif here != self._place.last_saved_at:
            self._write_last(trainer, monitor_candidates, "last")
        self._place.last_saved_at = here

    def _save_final(self, trainer: Trainer) -> None:
        """Training is over: see that its end is in a file."""
        self._notice_removed(trainer)
        metrics = self._monitor_candidates(trainer)
        if self.save_last and not self._links():
            if Position.of(trainer) != self._place.last_saved_at:
                self._write_last(trainer, metrics, "final")
            return
        end = trainer.progress.total_batches, trainer.progress.step
        held = any(writer._place.final_at == end for writer in _policies_of(trainer))
        if held or self.save_last is False or self.save_top_k == 0 or not self._trigger.reason:
            self._drop_last_of_before(trainer)
            return
        if self.monitor is not None or self.save_last:
            self._write_last(trainer, metrics, "final")
            return
        if "epoch" not in trainer.callback_metrics:
            metrics["epoch"] = metrics["epoch"] - 1  # the one that has ended, as in the names of the others
        self._is_final = True
        try:
            self._save_topk_checkpoint(trainer, metrics)
        finally:
            self._is_final = False

    def _notice_removed(self, trainer: Trainer) -> None:
        """Training does not end because somebody has removed its checkpoints: new ones take their place."""
        gone = self._files.forget_removed(trainer, self._retention, self.dirpath or "")
        if gone:
            self._place.last_saved_at, self._place.final_at = Position(-1, -1, -1), None
            rank_zero_warn(
                f"The checkpoints {', '.join(map(repr, gone))} were removed while the run keeps them: they count no "
                "more, and the next ones take their place."
            )

    def _drop_last_of_before(self, trainer: Trainer) -> None:
        """Remove what the run had left when it ended before its time: it is no last state any more."""
        path, here = self._files.kept.last_model_path, Position.of(trainer)
        if self.save_last or not path or (self._place.last_saved_at and self._place.last_saved_at[1:] == here[1:]):
            return
        self._files.drop_last(trainer, self.dirpath or "")

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
            self._place.saved_at = None  # the run ends here: what its last hooks do is not saved

    def _path_of_this_moment(self, trainer: Trainer, reason: str) -> str | None:
        here = Position.reached(trainer)
        for writer in _policies_of(trainer):
            if writer._place.newest is not None and not writer.save_weights_only:
                position, path = writer._place.newest
                if position == here and self.file_exists(path, trainer):
                    return path
        if self.save_last is False and self.save_top_k == 0:
            return None
        self._write_last(trainer, self._monitor_candidates(trainer), reason)
        trainer.strategy.checkpoint_io.settle()
        return self.last_model_path

    def _write_last(self, trainer: Trainer, metrics: dict[str, Tensor], reason: str) -> None:
        path, previous = self._path_of_last(trainer, metrics), self._files.kept.last_model_path
        kept = replace(self._files.kept, last_model_path=path)
        replaces = previous if previous != path else ""
        self._place.last_saved_at = Position.of(trainer)
        self._write(trainer, path, kept, kept, reason, replaces=replaces)
        if replaces:
            self._remove_checkpoint(trainer, replaces)

    def _links(self) -> bool:
        return self.save_last == "link" and self.save_top_k != 0

    def _monitor_candidates(self, trainer: Trainer) -> dict[str, Tensor]:
        """What can be monitored and put into names: every logged metric, ``epoch`` and ``step``."""
        metrics = {name: value.detach().cpu() for name, value in trainer.callback_metrics.items()}
        for name, value in (("epoch", trainer.current_epoch), ("step", trainer.global_step)):
            metrics[name] = metrics[name].int() if name in metrics else torch.tensor(value)
        return metrics

    def _monitor_is_missing(self, metrics: dict[str, Tensor]) -> None:
        message = monitor_is_missing(self.monitor or "", metrics)
        if self._place.validated:
            raise MisconfigurationException(message)
        self._warn_once(message + " No file is saved until it is there.")

    def _warn_once(self, message: str) -> None:
        if message not in self._warned:
            self._warned.add(message)
            rank_zero_warn(message)

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
                self._warn_once(naming.missing_field(template or self.filename or "", name, metrics))
        return naming.versioned(
            path=lambda version: self.format_checkpoint_name(metrics, template, version),
            taken=lambda path: self.enable_version_counter and self._is_taken(trainer, path),
            spare=spare,
            first=self.STARTING_VERSION,
        )

    def _is_taken(self, trainer: Trainer, path: str) -> bool:
        to_come = self._files.will_be_there(trainer, path)
        return self.file_exists(path, trainer) if to_come is None else to_come

    def _path_of_last(self, trainer: Trainer, metrics: dict[str, Tensor]) -> str:
        spare = self._files.kept.last_model_path
        return self._free_path(trainer, metrics, spare, template=self.CHECKPOINT_NAME_LAST)

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
        place, metric = self._place, index.metric(self.monitor, None if score is None else score.item())
        final_before = place.final_at
        if reason in record.ASKED_FOR:
            place.final_at = trainer.progress.total_batches, trainer.progress.step
        try:
            self._files.write(trainer, self, Save(path, kept, kept_in_file, reason, metric, replaces))
        except BaseException:
            place.final_at = final_before
            raise
        place.newest = Position.reached(trainer), path

    def state_dict(self) -> dict[str, Any]:
        kept = self._files.kept if self._files.in_file is None else self._files.in_file
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
        if self._place.saved_at is not None:
            state["run"] = {**self._place.state_dict(), "trigger": self._trigger.state_dict()}
        if self._files.own is not None:
            state["file"] = self._files.own
        return state

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Take up the files of an earlier run, also when their folder was moved or this run writes to another one.

        While a training runs this does nothing: its state was taken up when it began, and files were written since.
        """
        if self._place.saved_at is not None:
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
        self._files.announced = self._retention.ranking(kept, scores, current=state_dict.get("current_score"))
        self._files.begin()
        self._resumed = {key: state_dict[key] for key in ("run", "file") if key in state_dict}
        self._memory.restore()

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


def _policies_of(trainer: Trainer) -> list[ModelCheckpoint]:
    return [callback for callback in trainer.checkpoint_callbacks if isinstance(callback, ModelCheckpoint)]
