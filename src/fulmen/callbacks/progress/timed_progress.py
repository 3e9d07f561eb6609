"""When something is shown: at most once per interval of time, however fast the batches pass."""

from __future__ import annotations

from dataclasses import dataclass, field
from math import exp, inf, isfinite
from time import monotonic
from typing import TYPE_CHECKING, Any

from fulmen.callbacks.progress.progress_bar import ProgressBar

if TYPE_CHECKING:
    from fulmen.core.module import LightningModule
    from fulmen.trainer.trainer import Trainer

SMOOTHING_SECONDS = 10.0


@dataclass(slots=True, eq=False)
class Line:
    """How far an epoch, or an evaluation, has come.

    Attributes:
        stage: ``"train"``, ``"sanity_check"``, ``"validate"``, ``"test"`` or ``"predict"``.
        description: the words for it.
        total: the number of batches, over all loaders; None when it is not known.
        started: when it began, in seconds of ``time.monotonic``.
        ended: when it ended; None while it runs.
        completed: the number of batches that are done.
        metrics: what is shown beside the bar.
        shown: whether anybody has seen it yet.
    """

    stage: str
    description: str
    total: int | None
    started: float
    ended: float | None = None
    completed: int = 0
    metrics: dict[str, Any] = field(default_factory=dict)
    shown: bool = False
    _measured_at: float = 0.0
    _paused_at: float | None = None
    _paused_seconds: float = 0.0
    _batches_timed: int = 0
    _rate_sum: float = 0.0
    _rate_weight: float = 0.0

    def __post_init__(self) -> None:
        self._measured_at = self.started

    def advance(self, completed: int, now: float) -> None:
        """Note that ``completed`` batches are done at the time ``now``."""
        seconds = now - self._measured_at
        if completed > self.completed and seconds > 0:
            keep = exp(-seconds / SMOOTHING_SECONDS)
            self._rate_sum = keep * self._rate_sum + (1 - keep) * (completed - self.completed) / seconds
            self._rate_weight = keep * self._rate_weight + (1 - keep)
            self._measured_at = now
            self._batches_timed += completed - self.completed
        self.completed = completed

    def pause(self, now: float) -> None:
        """Something else runs from ``now`` on: that time says nothing about the speed."""
        self._paused_at = now

    def go_on(self, now: float) -> None:
        """The end of the pause."""
        if self._paused_at is not None:
            self._measured_at += now - self._paused_at
            self._paused_seconds += now - self._paused_at
            self._paused_at = None

    @property
    def elapsed(self) -> float:
        """Seconds since it began, pauses included."""
        return (monotonic() if self.ended is None else self.ended) - self.started

    @property
    def speed(self) -> float | None:
        """Batches per second in the last few seconds; None before the first measurement."""
        return self._rate_sum / self._rate_weight if self._rate_weight else None

    @property
    def average_speed(self) -> float | None:
        """Batches per second from the beginning, pauses left out; None before the first batch."""
        seconds = self.elapsed - self._paused_seconds
        return self._batches_timed / seconds if self._batches_timed and seconds > 0 else None

    @property
    def remaining(self) -> float | None:
        """Seconds that are left at this speed; None when that cannot be known."""
        if self.total is None or not self.speed:
            return None
        return max(self.total - self.completed, 0) / self.speed


class TimedProgress(ProgressBar):
    """A bar that decides when to show; its subclasses decide how.

    They write ``_show`` (the lines ``_train`` and ``_evaluation`` have changed: show them), ``_keep`` (a line is
    complete: leave it behind), ``_keeps`` (whether to do so, where that is free to choose) and ``_close`` (nothing more
    comes: leave the screen tidy). Metrics are only read when something is about to be shown.
    """

    #: seconds between two refreshes
    interval: float = 0.2

    _due: float = 0.0  # when the next refresh is due; the only thing that a batch asks
    _train: Line | None = None
    _train_batches: int = 0
    _evaluation: Line | None = None
    _evaluated_batches: int = 0

    def _show(self, trainer: Trainer) -> None:
        raise NotImplementedError

    def _keep(self, trainer: Trainer, line: Line, last: bool) -> None:
        raise NotImplementedError

    def _keeps(self, trainer: Trainer, line: Line) -> bool:
        raise NotImplementedError

    def _close(self) -> None:
        raise NotImplementedError

    def disable(self) -> None:
        self._enabled = False
        self._due = inf
        self._close()

    def enable(self) -> None:
        self._enabled = True
        self._due = 0.0

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        self._forget()  # what a run that broke off may have left behind
        super().setup(trainer, pl_module, stage)

    def teardown(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        self._forget()
        super().teardown(trainer, pl_module, stage)

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        self._forget()
        super().on_exception(trainer, pl_module, exception)

    def _forget(self) -> None:
        self._close()
        self._train = self._evaluation = None
        self._due = 0.0 if self.is_enabled else inf
        self.reset_dataloader_idx_tracker()

    def _refresh(self, trainer: Trainer) -> None:
        self._show(trainer)
        for line in (self._train, self._evaluation):
            if line is not None:
                line.shown = True
        # from the end of the drawing on: a slow terminal, or a busy device, must not keep us drawing all the time
        self._due = monotonic() + self.interval

    # training

    def epoch_description(self, trainer: Trainer) -> str:
        """The words for an epoch, ``Epoch 2/9``: counted as in the logs and in the names of checkpoints."""
        known = trainer.max_epochs is not None and trainer.max_epochs > 0
        return f"Epoch {trainer.current_epoch}/{trainer.max_epochs - 1}" if known else f"Epoch {trainer.current_epoch}"

    def on_train_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if self.is_enabled:
            metrics = self._finish_epoch(trainer, pl_module)
            self._begin_epoch(trainer).metrics = metrics

    def _begin_epoch(self, trainer: Trainer) -> Line:
        total = self.total_train_batches
        self._train_batches = trainer.progress.batches_done  # not 0 in an epoch that is resumed
        self._train = Line(
            "train",
            self.epoch_description(trainer),
            int(total) if isfinite(total) else None,
            started=monotonic(),
            completed=self._train_batches,
        )
        return self._train

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        self._train_batches = batch_idx + 1
        if monotonic() < self._due:
            return
        line = self._train or self._begin_epoch(trainer)
        line.metrics = self.get_metrics(trainer, pl_module)
        line.advance(batch_idx + 1, monotonic())
        self._refresh(trainer)

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if self._train is not None:
            self._train.ended = monotonic()
            self._train.advance(self._train_batches, self._train.ended)

    def _finish_epoch(self, trainer: Trainer, pl_module: LightningModule, last: bool = False) -> dict[str, Any]:
        """Complete the line of the epoch before: what was logged at its very end is known only now."""
        line = self._train
        if line is None:
            return {}
        keep = last or self._keeps(trainer, line)
        if keep or line.shown:
            line.metrics = self.get_metrics(trainer, pl_module)
        if keep:
            self._keep(trainer, line, last)
        return line.metrics

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if self.is_enabled:
            self._finish_epoch(trainer, pl_module, last=True)
            self._forget()

    # validation, test, predict: one line, whatever the number of loaders

    def _begin_evaluation(self, trainer: Trainer, description: str, batches: list[int | float]) -> None:
        if self.is_enabled:
            now, total = monotonic(), sum(batches)
            self._evaluated_batches = 0
            self._current_eval_dataloader_idx = 0
            if self._train is not None:
                self._train.pause(now)
            self._evaluation = Line(
                str(trainer.state.stage), description, int(total) if isfinite(total) else None, started=now
            )

    def _advance_evaluation(self, trainer: Trainer, pl_module: LightningModule, dataloader_idx: int) -> None:
        line = self._evaluation
        if line is None:
            return
        self._current_eval_dataloader_idx = dataloader_idx
        line.advance(self._evaluated_batches, monotonic())
        if trainer.state.fn != "fit":  # within fit the metrics stand in the line above
            line.metrics = self.get_metrics(trainer, pl_module)
        self._refresh(trainer)

    def _finish_evaluation(self, trainer: Trainer, pl_module: LightningModule) -> None:
        line = self._evaluation
        if line is None:
            return
        line.ended = monotonic()
        line.advance(self._evaluated_batches, line.ended)
        within_fit = trainer.state.fn == "fit"
        if not within_fit or self._keeps(trainer, line):
            line.metrics = self.get_metrics(trainer, pl_module)
            self._keep(trainer, line, last=not within_fit)
        self._evaluation = None
        if self._train is not None:
            self._train.go_on(line.ended)
        if not within_fit:
            self._forget()

    def on_validation_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if trainer.sanity_checking:
            self._begin_evaluation(trainer, self.sanity_check_description, trainer.num_sanity_val_batches)
        else:
            self._begin_evaluation(trainer, self.validation_description, trainer.num_val_batches)

    def on_validation_batch_end(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        self._evaluated_batches += 1
        if monotonic() >= self._due:
            self._advance_evaluation(trainer, pl_module, dataloader_idx)

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._finish_evaluation(trainer, pl_module)

    def on_test_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._begin_evaluation(trainer, self.test_description, trainer.num_test_batches)

    def on_test_batch_end(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        self._evaluated_batches += 1
        if monotonic() >= self._due:
            self._advance_evaluation(trainer, pl_module, dataloader_idx)

    def on_test_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._finish_evaluation(trainer, pl_module)

    def on_predict_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._begin_evaluation(trainer, self.predict_description, trainer.num_predict_batches)

    def on_predict_batch_end(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        self._evaluated_batches += 1
        if monotonic() >= self._due:
            self._advance_evaluation(trainer, pl_module, dataloader_idx)

    def on_predict_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._finish_evaluation(trainer, pl_module)


def count_text(completed: int, total: int | None) -> str:
    """``12/100``, padded so that the text keeps its width; ``12/--`` when the total is not known."""
    return f"{completed}/--" if total is None else f"{completed:>{len(str(total))}}/{total}"


def clock_text(seconds: float | None) -> str:
    """``0:07``, ``12:34``, ``1:02:03``, ``3 d 1:02:03``; ``-:--`` when it is not known."""
    if seconds is None or not isfinite(seconds):
        return "-:--"
    minutes, second = divmod(int(seconds + 0.5), 60)
    hours, minute = divmod(minutes, 60)
    if not hours:
        return f"{minute}:{second:02}"
    days, hour = divmod(hours, 24)
    return f"{days} d {hour}:{minute:02}:{second:02}" if days else f"{hour}:{minute:02}:{second:02}"


def speed_text(batches_per_second: float | None) -> str:
    """``4210 it/s``, ``21.3 it/s``, ``0.45 it/s``; below a tenth ``12.5 s/it``; ``-- it/s`` at first."""
    speed = batches_per_second
    if not speed:
        return "-- it/s"
    if speed < 0.1:
        return f"{1 / speed:.1f} s/it"
    return f"{speed:.{0 if speed >= 100 else 1 if speed >= 10 else 2}f} it/s"
