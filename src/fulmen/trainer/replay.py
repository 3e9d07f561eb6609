"""Repeat a step of a run that is over: from the nearest checkpoint, without touching the run's files."""

from __future__ import annotations

import functools
import importlib
import math
import os
import sys
import tempfile
import time
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from fulmen.callbacks.callback import Callback
from fulmen.callbacks.checkpoint import Checkpoint
from fulmen.callbacks.model_summary import ModelSummary
from fulmen.callbacks.nonfinite import Finding, StepWatch, all_finite, gradients_of
from fulmen.callbacks.nonfinite_guard import NonFiniteGuard
from fulmen.callbacks.on_exception_checkpoint import OnExceptionCheckpoint
from fulmen.callbacks.progress.progress_bar import ProgressBar
from fulmen.callbacks.timer import Timer
from fulmen.core.hooks import HOOKS
from fulmen.loggers.logger import DummyLogger
from fulmen.plugins.io.checkpoint_plugin import CheckpointIO
from fulmen.profilers.base import PassThroughProfiler
from fulmen.trainer import checkpoint as checkpoints
from fulmen.utilities.exceptions import MisconfigurationException, NonFiniteException

if TYPE_CHECKING:
    from torch import Tensor
    from torch.optim import Optimizer

    from fulmen.core.module import LightningModule
    from fulmen.trainer.past_run import PastRun, SavedState
    from fulmen.trainer.trainer import Trainer

#: the replay that the next ``fit`` belongs to
active: Replay | None = None


class ReplayEnded(BaseException):
    """The step was repeated; there is nothing more to train. Not an ``Exception``, so that no program takes it for an
    error."""


class Replay:
    """Makes the next ``fit`` repeat one step of a run, and end there::

        with Replay("lightning_logs/version_3", step=812):
            trainer.fit(model, datamodule=data)  # as the run did

    ``fit`` goes on from the nearest checkpoint before the step and trains up to it, with everything that belongs to
    it: validations, callbacks, schedulers. Nothing of the run is written: loggers keep nothing, no checkpoint is
    written or removed, ``trainer.log_dir`` and ``default_root_dir`` are a folder that is removed at the end. Step
    number ``n`` is the one in which ``global_step`` goes from ``n - 1`` to ``n``; it is computed up to its gradients,
    not made.

    Args:
        run: the directory of the run (``lightning_logs/version_3``), its folder of checkpoints, or the checkpoint to
            begin with.
        step: the number of the step. None: the one that the run's NonFiniteGuard recorded last.
        debugger: stop right before ``training_step`` of the step's first batch: ``"breakpoint"`` in what Python's own
            ``breakpoint()`` opens (see PYTHONBREAKPOINT), ``"pdb"`` or the name of a module with a function
            ``set_trace``. None: do not stop.
        anomaly: when the step is not finite, train on its bad batch once more to find the operation, the line and the
            samples.
        check: go on to the first checkpoint that has the step behind it, and compare weights and optimizer states with
            it, bit for bit.
        fit: which ``fit`` of the program made the run, if it calls several.

    Attributes:
        finding: what the step came to; None if it was not reached.
        report: the same as text.
        matches: what ``check`` found; None before.

    Raises:
        FileNotFoundError: there is no such run.
        MisconfigurationException: no step is given and none is recorded, an argument is not allowed, or the ``fit``
            ended before the step.
    """

    def __init__(
        self,
        run: str | os.PathLike[str],
        step: int | None = None,
        debugger: str | None = None,
        anomaly: bool = True,
        check: bool = False,
        fit: int = 1,
    ) -> None:
        from fulmen.trainer.past_run import PastRun

        self.run: PastRun = PastRun.at(run)
        self.step = _checked_step(self.run, step, check)
        self.recorded = next((one for one in reversed(self.run.record.findings) if one.step == self.step), None)
        first = self.recorded.batches[0].total if self.recorded is not None and self.recorded.batches else None
        self.first_batch = first  #: its position in the run, if that is known
        self.start: SavedState | None = self.run.state_before(self.step, first)
        if self.start is None and self.run.path.is_file():
            raise MisconfigurationException(
                f"step {self.step} cannot be reached from {self.run.path}: the file has it behind it, or holds weights "
                "only. Give the directory of the run, so that an earlier one is found."
            )
        self.target: SavedState | None = self.run.state_after(self.step) if check else None
        if check and self.target is None:
            raise MisconfigurationException(
                f"no checkpoint of {self.run.path} has step {self.step} behind it, so there is nothing to compare "
                "with. Leave out `check`, or give an earlier step."
            )
        self.stop = None if debugger is None else _entry_of(debugger)
        self.anomaly = anomaly
        self.fit = fit
        self.finding: Finding | None = None
        self.report = ""
        self.matches: bool | None = None
        self._fits = 0
        self._undo = ExitStack()
        self._silenced: list[Any] = []

    def __enter__(self) -> Replay:
        global active
        if active is not None:
            raise RuntimeError("one step is repeated at a time: a replay is under way. Leave its `with` first.")
        active = self
        self._folder = self._undo.enter_context(tempfile.TemporaryDirectory(prefix="fulmen-replay-"))
        return self

    def __exit__(self, kind: Any, error: BaseException | None, trace: Any) -> bool:
        global active
        active = None
        self._undo.close()
        if isinstance(error, NonFiniteException) and not self.report:
            raise MisconfigurationException(
                f"step {self.step} was not reached: before it the run ends. {error.finding} Repeat that step instead."
            ) from error
        from bdb import BdbQuit  # of use here alone

        if isinstance(error, BdbQuit):
            say("left in the debugger")
            return True
        if error is None and not self.report:
            raise MisconfigurationException(
                f"step {self.step} was not reached: " + (self._ended_early() if self._fits else "no `fit` was called.")
            )
        return isinstance(error, ReplayEnded)

    def _ended_early(self) -> str:
        if self._fits < self.fit:
            return f"the program called `fit` {self._fits} times, and fit={self.fit} was asked for."
        return f"`fit` ended after {self._watcher.reached} steps, by its own limits."

    # -- what a run does when it is repeated --------------------------------------------------------------------------

    def enter(self, trainer: Trainer, verb: str, ckpt_path: Any) -> Any:
        """A run begins while the replay is active: keep it from writing, and if it is the one, from where to begin.

        Returns:
            The checkpoint to go on from.
        """
        if not any(trainer is one for one in self._silenced):
            self._silenced.append(trainer)
            self._silence(trainer)
        if verb != "fit":
            return ckpt_path
        if ckpt_path in ("auto", "last", "best", "hpc"):  # means another file now than when the run began
            ckpt_path = None
        self._fits += 1
        if self._fits != self.fit:
            return ckpt_path
        self._watcher = _Watcher(self)
        trainer.callbacks.insert(0, self._watcher)
        return self.start.path if self.start is not None else ckpt_path

    def _silence(self, trainer: Trainer) -> None:
        """Let ``trainer`` write nothing. Callbacks stay where others may look for them, but those that write or count
        the hours do nothing."""

        def put(owner: Any, name: str, value: Any) -> None:
            if name in vars(owner):
                self._undo.callback(setattr, owner, name, vars(owner)[name])
            else:
                self._undo.callback(delattr, owner, name)
            setattr(owner, name, value)

        callbacks, loggers = list(trainer.callbacks), list(trainer.loggers)
        self._undo.callback(lambda: setattr(trainer, "loggers", loggers))
        self._undo.callback(lambda: trainer.callbacks.__setitem__(slice(None), callbacks))
        trainer.loggers = [_KeepsNothing(self._folder) for _ in loggers]
        put(trainer, "default_root_dir", self._folder)
        put(trainer, "profiler", PassThroughProfiler())
        put(trainer.strategy, "checkpoint_io", _ReadsOnly(trainer.strategy.checkpoint_io))
        seen = (ProgressBar, ModelSummary, OnExceptionCheckpoint)
        trainer.callbacks[:] = [callback for callback in callbacks if not isinstance(callback, seen)]
        for callback in trainer.callbacks:
            if isinstance(callback, NonFiniteGuard):
                put(callback, "records", False)
            if isinstance(callback, Checkpoint) and hasattr(callback, "dirpath"):
                put(callback, "dirpath", os.path.join(self._folder, "checkpoints"))
            if isinstance(callback, (Checkpoint, Timer)):
                for hook in HOOKS:
                    if "callback" in hook.owners:
                        stays = hook.name in ("state_dict", "load_state_dict", "on_load_checkpoint")
                        put(callback, hook.name, _ignore if stays else None)

    # -- what it comes to ---------------------------------------------------------------------------------------------

    @property
    def begins_with(self) -> str:
        """Where it begins, for people."""
        if self.start is None:
            return "the beginning, as there is no checkpoint before"
        return f"step {self.start.step} ({_near(self.start.path)})"


def _ignore(*args: Any, **kwargs: Any) -> dict[str, Any]:
    return {}


def _checked_step(run: PastRun, step: int | None, check: bool) -> int:
    if step is None:
        if run.record.findings:
            return run.record.findings[-1].step
        if check and run.states:
            return max(state.step for state in run.states)
        raise MisconfigurationException(
            f"no step of {run.path} is recorded as not finite, so say which one to repeat: `--step N`, or "
            "`Replay(run, step=N)`. A NonFiniteGuard among the Trainer's callbacks records it."
        )
    if isinstance(step, bool) or not isinstance(step, int) or step < 1:
        raise MisconfigurationException(f"step {step!r} cannot be repeated: steps are whole numbers, counted from 1.")
    return step


def _entry_of(debugger: str) -> Callable[[], Any]:
    """The function that opens the debugger in the frame of its caller."""
    if debugger == "breakpoint":
        return sys.breakpointhook
    try:
        return importlib.import_module(debugger).set_trace
    except (ImportError, AttributeError) as error:
        raise MisconfigurationException(
            f"debugger={debugger!r} cannot be used ({error}). Write 'pdb', or a module that has `set_trace`."
        ) from error


def say(text: str) -> None:
    """Tell the user how far the replay is."""
    print(f"replay: {text}", file=sys.stderr, flush=True)


def _near(path: Path) -> str:
    return os.path.relpath(path) if path.is_relative_to(os.getcwd()) else str(path)


class _KeepsNothing(DummyLogger):
    """Takes everything and keeps nothing; has a folder for those who ask for one."""

    def __init__(self, folder: str) -> None:
        super().__init__()
        self._folder = folder

    @property
    def save_dir(self) -> str:
        return self._folder

    @property
    def root_dir(self) -> str:
        return self._folder

    @property
    def log_dir(self) -> str:
        return self._folder


class _ReadsOnly(CheckpointIO):
    """Reads as ``inner`` does, and neither writes nor removes."""

    def __init__(self, inner: CheckpointIO) -> None:
        self._inner = inner

    def save_checkpoint(self, checkpoint: Any, path: Any, storage_options: Any = None) -> None:
        pass

    def load_checkpoint(self, path: Any, map_location: Any = None, weights_only: bool | None = None) -> dict[str, Any]:
        return self._inner.load_checkpoint(path, map_location, weights_only)

    def remove_checkpoint(self, path: Any) -> None:
        pass


class _Watcher(Callback):
    """Follows the run that is repeated up to the step, and ends it there. It is called before all others."""

    def __init__(self, replay: Replay) -> None:
        self._replay = replay
        self._watch = StepWatch()
        self._due = False  #: the batch belongs to the step
        self._steps_per_batch = 1
        self._step_of_last = 0
        self._suspect: Any = None  #: what it takes to train on the first bad batch again
        self._before: Any = None
        self._told_at = self._began_at = 0.0
        self._has_stopped = self._is_over = False
        self.reached = 0

    # -- on the way ---------------------------------------------------------------------------------------------------

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Put something in front of ``training_step``, so that the debugger stops one line before it."""
        step, stop = pl_module.training_step, self._replay.stop
        attributes = pl_module.__dict__
        before = attributes.get("training_step")

        @functools.wraps(step)
        def training_step(*arguments: Any) -> Any:
            if stop is None or not self._stops_here():
                return step(*arguments)
            batch, batch_idx, module = arguments[0], trainer.progress.batch_idx, pl_module  # noqa: F841  # to look at
            stop()
            return step(*arguments)  # "s" steps into it, "c" goes on to the report

        attributes["training_step"] = training_step
        trainer.when_torn_down(
            lambda: attributes.pop("training_step") if before is None else attributes.update(training_step=before)
        )

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        progress, replay = trainer.progress, self._replay
        self._step_of_last = self.reached = progress.step
        if progress.total_batches:
            self._steps_per_batch = math.ceil(progress.step / progress.total_batches)
        to_go = replay.step - 1 - progress.step
        say(f"from {replay.begins_with}; {to_go} step{'s' * (to_go != 1)} to go to step {replay.step}")
        if replay.start is None and "PL_GLOBAL_SEED" not in os.environ:
            say("the program does not call `seed_everything`, so this run is not the one that was")
        self._began_at = self._told_at = time.monotonic()

    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int) -> None:
        step, progress = self._replay.step, trainer.progress
        if self._is_over:
            return
        if self._replay.first_batch is not None and not pl_module.automatic_optimization:
            self._due = self._due or progress.total_batches >= self._replay.first_batch
        else:
            self._due = self._due or progress.step + max(1, self._steps_per_batch) >= step
        if self._due:
            from fulmen.trainer.origin import BeforeBatch

            self._watch.start_batch(trainer, batch)
            self._before = BeforeBatch(trainer, batch)

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        progress, replay = trainer.progress, self._replay
        self._steps_per_batch, self._step_of_last = progress.step - self._step_of_last, progress.step
        self.reached = progress.step
        if progress.step >= replay.step and not self._is_over:  # no hook told of the step
            self._end(trainer, self._watch.examine(trainer, self._watch.close(), []))
        if replay.target is not None and replay.target.batch == progress.total_batches:
            trainer.boundary.defer(lambda: self._compare(trainer))
        now = time.monotonic()
        if now - self._told_at >= 2 and not self._is_over:
            self._told_at = now
            done, left = progress.step - (replay.start.step if replay.start else 0), replay.step - 1 - progress.step
            if done and left:
                seconds = (now - self._began_at) / done * left
                say(f"step {progress.step} of {replay.step - 1}, about {seconds:.0f} s to go")

    # -- the step -----------------------------------------------------------------------------------------------------

    def _stops_here(self) -> bool:
        stops = self._due and not self._has_stopped and not self._is_over
        self._has_stopped = self._has_stopped or stops
        return stops

    def on_before_backward(self, trainer: Trainer, pl_module: LightningModule, loss: Tensor) -> None:
        if self._due and not self._is_over:
            self._watch.add_loss(trainer, loss)

    def on_after_backward(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if not self._due or self._is_over or self._suspect is not None:
            return
        if not all_finite([loss for _, loss in self._watch.losses], gradients_of(list(pl_module.parameters()))):
            self._suspect = self._before

    def on_before_optimizer_step(self, trainer: Trainer, pl_module: LightningModule, optimizer: Optimizer) -> None:
        if not self._due or self._is_over:
            return
        losses = self._watch.close()
        if trainer.progress.step + 1 == self._replay.step:
            parameters = [parameter for group in optimizer.param_groups for parameter in group["params"]]
            self._end(trainer, self._watch.examine(trainer, losses, parameters))
        else:
            self._suspect = None  # another step of the same batch

    def _end(self, trainer: Trainer, finding: Finding) -> None:
        """The step is there: say what it came to."""
        replay = self._replay
        self._is_over = True
        norms = {
            name: float(torch.linalg.vector_norm(gradient))
            for name, parameter in trainer.lightning_module.named_parameters()
            for gradient in gradients_of([parameter])
        }
        origin = None
        if finding.is_bad and replay.anomaly and self._suspect is not None:
            from fulmen.trainer.origin import find_origin

            origin = find_origin(trainer, self._suspect, trainer.plan.training_step)
        replay.finding = finding
        replay.report = report(replay, finding, norms, origin)
        print(replay.report, flush=True)
        if replay.target is None or finding.is_bad:
            raise ReplayEnded

    def _compare(self, trainer: Trainer) -> None:
        """Compare with the checkpoint that the run wrote here."""
        target = self._replay.target
        assert target is not None
        saved = trainer.strategy.load_checkpoint(target.path)
        pairs = [(name, saved["state_dict"].get(name), tensor) for name, tensor in checkpoints.weights(trainer).items()]
        for optimizer, state in zip(trainer.optimizers, saved.get("optimizer_states", [])):
            for number, values in optimizer.state_dict()["state"].items():
                other = state["state"].get(number, {})
                pairs += [
                    (f"optimizer state {number}.{name}", other.get(name), value) for name, value in values.items()
                ]
        differing = [name for name, one, other in pairs if not _same(one, other)]
        where = f"step {target.step} ({_near(target.path)})"
        if differing:
            text = f"{len(differing)} of {len(pairs)} values differ from those of {where}, {differing[0]} first"
        else:
            text = f"all {len(pairs)} values of weights and optimizer are those of {where}, bit for bit"
        self._replay.report += f"\n  {'check':<12}{text}"
        self._replay.matches = not differing
        print(f"  {'check':<12}{text}", flush=True)
        raise ReplayEnded


def _same(one: Any, other: Any) -> bool:
    if isinstance(one, torch.Tensor) and isinstance(other, torch.Tensor):
        return one.shape == other.shape and bool(torch.equal(one.cpu(), other.detach().cpu()))
    return one == other


# -- the report -------------------------------------------------------------------------------------------------------


def report(replay: Replay, finding: Finding, norms: dict[str, float], origin: Any) -> str:
    """What the step came to, as a few lines."""
    rows: list[tuple[str, str]] = []
    batches = ", ".join(str(one.batch) for one in finding.batches)
    rows.append(("loss", ", ".join("none" if one.loss is None else repr(one.loss) for one in finding.batches)))
    if finding.parameter is None:
        rows.append(("gradients", "finite" if norms else "none"))
    else:
        more = f", and of {finding.bad_gradients - 1} more" if finding.bad_gradients > 1 else ""
        rows.append(("gradients", f"{finding.gradient} in that of `{finding.parameter}`{more}"))
    finite = {name: norm for name, norm in norms.items() if math.isfinite(norm)}
    if finite:
        total, largest = math.hypot(*norms.values()), max(finite, key=lambda name: finite[name])
        rows.append(("norm", f"{total:.6g}; the largest finite one is {finite[largest]:.6g}, of `{largest}`"))
    if finding.weight is not None:
        rows.append(("weights", f"not finite before the step, `{finding.weight}` first"))
    if finding.input_is_finite is False:
        rows.append(("data", "the batch itself holds numbers that are not finite"))
    if finding.indices is not None:
        more = f" and {len(finding.indices) - 32} more" if len(finding.indices) > 32 else ""
        rows.append(("samples", ", ".join(map(str, finding.indices[:32])) + more))
    if origin is not None:
        rows += _rows_of_origin(origin, finding)
    if replay.recorded is not None:
        rows.append(("recorded", _compared(finding, replay.recorded)))
        if replay.stop is not None and finding.digest != replay.recorded.digest:
            rows.append(("", "what was called in the debugger may have drawn random numbers, or changed something"))
    head = f"step {finding.step}, epoch {finding.epoch}, batch{'es' * (len(finding.batches) > 1)} {batches}"
    return "\n".join([head, *(f"  {name:<12}{text}" for name, text in rows)])


def _rows_of_origin(origin: Any, finding: Finding) -> list[tuple[str, str]]:
    rows = []
    if origin.samples is not None and origin.samples:
        indices = finding.indices
        which = [str(indices[place]) if indices is not None else f"number {place}" for place in origin.samples]
        rows.append(("culprit", f"sample{'s' * (len(which) > 1)} {', '.join(which)} of the batch"))
    if origin.operation:
        what = "in the derivative of" if origin.backward else "in"
        line = f"{what} {origin.line}" if origin.line else ("in backward" if origin.backward else "")
        rows.append(("operation", f"{origin.operation} {line}".rstrip()))
    if origin.infinity is not None:
        rows.append(("infinity", "before, of {} in {}".format(*origin.infinity)))
    return rows


def _compared(finding: Finding, recorded: Finding) -> str:
    if finding.digest == recorded.digest:
        return "the same: loss and gradients are equal bit for bit"
    same = (str(finding.loss), finding.parameter) == (str(recorded.loss), recorded.parameter)
    if same:
        return "the same loss and parameter, but not the same bits in all gradients"
    return f"not the same: the run had the loss {recorded.loss} and " + (
        f"{recorded.gradient} in the gradient of `{recorded.parameter}`" if recorded.parameter else "good gradients"
    )
