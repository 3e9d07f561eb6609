"""Log how fast training and evaluation are: batches, samples, items and floating-point operations per second."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING, Any

import torch

from fulmen.callbacks.callback import Callback
from fulmen.callbacks.moments import Memory
from fulmen.utilities.exceptions import MisconfigurationException
from fulmen.utilities.rank_zero import rank_zero_info, rank_zero_warn
from fulmen.utilities.throughput import Throughput, compute_dtype, get_available_flops

if TYPE_CHECKING:
    from fulmen.core.module import LightningModule
    from fulmen.trainer.trainer import Trainer


@dataclass(slots=True)
class _Totals:
    """What was done of one stage."""

    seconds: float = 0.0
    batches: int = 0
    samples: int = 0
    lengths: int = 0


_COUNTS = ("batches", "samples", "lengths")
_RATES = ("batches_per_sec", "samples_per_sec", "items_per_sec", "flops_per_sec")


class _Stage:
    """One stage's totals, its clock, and the rates of its last batches.

    Attributes:
        totals: of this process, in this run.
        before: of all processes, in the runs that this one goes on with.
        kept: ``totals`` when the evaluation began that is going on.
    """

    def __init__(self, throughput: Throughput) -> None:
        self.totals, self.before, self.kept = _Totals(), _Totals(), _Totals()
        self.throughput = throughput
        self.going_since: float | None = None
        self.is_logged = False  #: the totals as they are

    def go(self) -> None:
        """The clock goes on."""
        self.going_since = time.perf_counter()

    def pause(self) -> None:
        """The clock stands still."""
        self.totals.seconds = self.seconds()
        self.going_since = None

    def seconds(self) -> float:
        going = 0.0 if self.going_since is None else time.perf_counter() - self.going_since
        return self.totals.seconds + going


class ThroughputMonitor(Callback):
    """Logs how fast a run is, under ``train/...``, ``validate/...``, ``test/...`` and ``predict/...``.

    - ``time`` (seconds), ``batches``, ``samples`` and ``lengths`` are totals since the stage began: over all processes,
      over resumed runs, over all validations of a ``fit``. The time of training is without that of validation.
    - Once ``window_size`` batches are done, ``device/batches_per_sec``, ``device/samples_per_sec``,
      ``device/items_per_sec``, ``device/flops_per_sec`` and ``device/mfu`` are the rates of this device over the last
      ``window_size`` batches. With several processes, the same names without ``device/`` are the sums over all.

    Training is logged where its steps are, evaluation at every ``log_every_n_steps``-th batch and at its end.

    The floating-point operations, in training, are those of the module's attribute or property ``flops_per_batch``: of
    one batch on one device, forward and backward; :func:`~fulmen.utilities.throughput.measure_flops` counts them.

    Args:
        batch_size_fn: how many samples a batch has, such as ``lambda batch: batch[0].size(0)``.
        length_fn: how many items (such as tokens) a batch has. None: ``lengths`` and ``items_per_sec`` are not logged.
        available_flops: the operations per second that the device could make. None: what its maker states for the
            precision of the run; where that is not known, as for CPUs, there is no ``mfu``.
        window_size: over how many batches the rates are taken, at least 2.
        separator: stands between the parts of a name.

    Raises:
        ValueError: ``window_size`` is less than 2.
        MisconfigurationException: when a run begins, if there is no logger.
    """

    def __init__(
        self,
        batch_size_fn: Callable[[Any], int],
        length_fn: Callable[[Any], int] | None = None,
        *,
        available_flops: float | None = None,
        window_size: int = 100,
        separator: str = "/",
    ) -> None:
        for name, function in (("batch_size_fn", batch_size_fn), ("length_fn", length_fn)):
            if not callable(function) and (function is not None or name == "batch_size_fn"):
                raise TypeError(
                    f"ThroughputMonitor({name}={function!r}): write a function of a batch, such as `lambda batch: "
                    "len(batch[0])`."
                )
        Throughput(available_flops=available_flops, window_size=window_size, separator=separator)
        self.batch_size_fn = batch_size_fn
        self.length_fn = length_fn
        self.available_flops = available_flops
        self.window_size = window_size
        self.separator = separator
        self._stages: dict[str, _Stage] = {}
        self._peak: float | None = None
        self._has_told = False
        self._memory = Memory()

    # -- a run --------------------------------------------------------------------------------------------------------

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        if not trainer.loggers:
            raise MisconfigurationException(
                "ThroughputMonitor logs, but the trainer has no logger. Pass one, as in "
                "Trainer(logger=CSVLogger('.')), or leave the callback out."
            )
        self._memory.set_up()
        self._peak = self.available_flops
        dtype = compute_dtype(trainer.precision)
        if self._peak is None and dtype is not None:
            self._peak = get_available_flops(trainer.strategy.root_device, dtype)
        self._tell_of_flops(trainer, pl_module)

    def _tell_of_flops(self, trainer: Trainer, module: LightningModule) -> None:
        """Say once what will not be logged, and why."""
        if self._has_told:
            return
        self._has_told = True
        if not hasattr(module, "flops_per_batch"):
            if self.available_flops is not None:
                rank_zero_warn(
                    f"ThroughputMonitor(available_flops={self.available_flops}) is not used: "
                    f"{type(module).__name__} has no `flops_per_batch`. Set it to the floating-point operations of one "
                    "batch, forward and backward; `fulmen.utilities.measure_flops` counts them."
                )
        elif self._peak is None:
            device = trainer.strategy.root_device
            name = torch.cuda.get_device_name(device) if device.type == "cuda" else f"a {device.type.upper()} device"
            rank_zero_info(
                "ThroughputMonitor logs no `mfu`: the peak of %s in %s is not known. Pass "
                "`ThroughputMonitor(available_flops=...)` to have it.",
                name,
                trainer.precision,
            )

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if self._memory.is_of_another(trainer):
            self._stages.clear()
        for name in ("train", "validate"):
            self._begin(name).pause()  # rates begin anew, totals go on

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._memory.has_trained = True
        self._stages["train"].go()

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        due = trainer.time_to_log
        self._count(trainer, pl_module, "train", batch, due)
        # a process without a batch calls only callbacks of this package
        if due and (trainer.data.is_group_whole() or type(self).__module__ == __name__):
            self._log(trainer, "train")

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._stages["train"].pause()

    def on_validation_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if trainer.sanity_checking:
            return
        if trainer.state.fn == "fit":
            self._stages["train"].pause()
            self._begin("validate").go()
        else:
            self._begin("validate", afresh=True).go()

    def on_validation_batch_end(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        self._evaluated(trainer, pl_module, "validate", batch, batch_idx)

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if trainer.sanity_checking:
            return
        self._end_of_evaluation(trainer, "validate")
        if trainer.state.fn == "fit":
            self._stages["train"].go()

    def on_test_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._begin("test", afresh=True).go()

    def on_test_batch_end(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        self._evaluated(trainer, pl_module, "test", batch, batch_idx)

    def on_test_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._end_of_evaluation(trainer, "test")

    def on_predict_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._begin("predict", afresh=True).go()

    def on_predict_batch_end(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        self._evaluated(trainer, pl_module, "predict", batch, batch_idx)

    def on_predict_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._end_of_evaluation(trainer, "predict")

    # -- counting -----------------------------------------------------------------------------------------------------

    def _begin(self, name: str, afresh: bool = False) -> _Stage:
        """The stage ``name`` with an empty window; ``afresh``: its totals begin at zero, too."""
        if afresh or name not in self._stages:
            throughput = Throughput(window_size=self.window_size, separator=self.separator)
            self._stages[name] = _Stage(throughput)
        stage = self._stages[name]
        stage.kept = replace(stage.totals)
        stage.throughput.available_flops = self._peak
        stage.throughput.reset()
        return stage

    def _count(self, trainer: Trainer, module: LightningModule, name: str, batch: Any, due: bool) -> None:
        stage, sizes = self._stages[name], trainer.data.group_sizes
        if sizes is not None and sizes[trainer.strategy.data_parallel_rank] == 0:  # only other processes have a batch
            return
        totals = stage.totals
        totals.batches += 1
        totals.samples += int(self.batch_size_fn(batch))
        if self.length_fn is not None:
            totals.lengths += int(self.length_fn(batch))
        stage.is_logged = False
        if due and trainer.strategy.root_device.type in ("cuda", "xpu", "mps"):
            torch.accelerator.synchronize()  # what was handed over is done
        stage.throughput.update(
            time=stage.seconds(),
            batches=totals.batches,
            samples=totals.samples,
            lengths=totals.lengths if self.length_fn is not None else None,
            flops=getattr(module, "flops_per_batch", None) if name == "train" else None,
        )

    def _evaluated(self, trainer: Trainer, module: LightningModule, name: str, batch: Any, batch_idx: int) -> None:
        if trainer.sanity_checking:
            return
        every = trainer.log_every_n_steps
        due = every > 0 and (batch_idx + 1) % every == 0 and trainer.data.is_group_whole()
        self._count(trainer, module, name, batch, due)
        if due:
            self._log(trainer, name)

    def _end_of_evaluation(self, trainer: Trainer, name: str) -> None:
        stage = self._stages[name]
        if trainer.log_every_n_steps > 0 and trainer.strategy.broadcast(not stage.is_logged):
            self._log(trainer, name)
        stage.pause()

    # -- logging ------------------------------------------------------------------------------------------------------

    def _log(self, trainer: Trainer, name: str) -> None:
        """Log a stage's figures; to be called on all processes."""
        stage = self._stages[name]
        stage.is_logged = True
        values = stage.throughput.compute()
        everybody = trainer.strategy.gather_objects(
            (stage.totals, [values.get(self._of_device(one)) for one in _RATES])
        )
        alike = _alike(trainer)
        values |= asdict(_added(stage.before, [totals for totals, _ in everybody], alike))
        values["time"] = stage.before.seconds + stage.seconds()
        del values["seconds"]
        if self.length_fn is None:
            del values["lengths"]
        if trainer.world_size > 1:
            for place, rate in enumerate(_RATES):
                rates = [rates[place] for _, rates in everybody]
                if None not in rates:
                    values[rate] = sum(rates) / (1 if rate == "flops_per_sec" else alike)
        named: dict[str, Any] = {f"{name}{self.separator}{key}": value for key, value in values.items()}
        if name == "train":
            named["epoch"] = trainer.current_epoch
        step = trainer.progress.batches_that_stepped if name == "train" else int(values["batches"])
        trainer.metrics.send(named, step)

    def _of_device(self, rate: str) -> str:
        return f"device{self.separator}{rate}"

    # -- resuming -----------------------------------------------------------------------------------------------------

    def on_save_checkpoint(self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]) -> None:
        """Save the totals of all processes, so that any number of them may go on."""
        own = {}
        for name in ("train", "validate"):
            if name in self._stages:
                stage = self._stages[name]
                # a run that goes on from within a validation does the whole of it
                is_open = name == "validate" and trainer.data.moment is not None
                own[name] = stage.kept if is_open else replace(stage.totals, seconds=stage.seconds())
        if trainer.state.status == "interrupted":  # the others may not be here: they have done about as much
            everybody = [own] * trainer.world_size
        else:
            everybody = trainer.strategy.gather_objects(own)
        checkpoint["callbacks"][self.state_key] = {
            name: asdict(_added(self._stages[name].before, [one[name] for one in everybody], _alike(trainer)))
            for name in own
        }

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Go on with the totals of the runs before."""
        for name, totals in state_dict.items():
            self._begin(name, afresh=True).before = _Totals(**totals)
        self._memory.restore()


def _alike(trainer: Trainer) -> int:
    """How many processes work on the same samples, each on a part of the model."""
    return trainer.world_size // trainer.strategy.data_parallel_size


def _added(before: _Totals, everybody: list[_Totals], alike: int) -> _Totals:
    """``before`` and the counts of all; the time is that of one."""
    counts = {name: getattr(before, name) + sum(getattr(one, name) for one in everybody) // alike for name in _COUNTS}
    return _Totals(before.seconds + everybody[0].seconds, **counts)
