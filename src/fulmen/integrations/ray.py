"""Fulmen in the workers of Ray Train and in the trials of Ray Tune. The names are those of ``ray.train.lightning`` and
``ray.tune.integration.pytorch_lightning``.
"""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Generator, Mapping, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import torch

from fulmen.callbacks.callback import Callback
from fulmen.plugins.environments.cluster_environment import ClusterEnvironment
from fulmen.strategies.ddp import DDPStrategy
from fulmen.strategies.fsdp import FSDPStrategy
from fulmen.strategies.parallel import ParallelStrategy
from fulmen.utilities.exceptions import MisconfigurationException
from fulmen.utilities.rank_zero import rank_zero_warn

try:
    import ray.train
    import ray.train.torch
    import ray.tune
except ImportError as error:
    raise ModuleNotFoundError(
        f"`fulmen.integrations.ray` needs Ray with its parts Train and Tune ({error}). Run `pip install 'fulmen[ray]'`."
    ) from error

if TYPE_CHECKING:
    from fulmen.core.module import LightningModule
    from fulmen.strategies.launchers.launcher import Launcher
    from fulmen.trainer.trainer import Trainer

CHECKPOINT_NAME = "checkpoint.ckpt"  #: of the file within a checkpoint of Ray

_UPLOAD = "checkpoint_upload_mode"
_MOMENTS = ("train_epoch_end", "validation_end", "train_batch_end", "train_end")
_OF_THE_GROUP = {
    "process_group_backend": "backend='...'",
    "timeout": "timeout_s=...",
    "start_method": None,
    "rendezvous_timeout": None,
}


# -- which worker this is ---------------------------------------------------------------------------------------------


def _context() -> Any:
    """What Ray Train says about this worker.

    Raises:
        MisconfigurationException: it is none.
    """
    try:
        return ray.train.get_context()
    except (RuntimeError, DeprecationWarning) as error:  # Ray's answers outside of its workers, and in a trial
        raise MisconfigurationException(
            "this process is no worker of Ray Train, and only those can use RayDDPStrategy, RayFSDPStrategy and "
            "RayLightningEnvironment. Make the Trainer inside of the function that `ray.train.torch.TorchTrainer` "
            "gets; anywhere else, leave the strategy out."
        ) from error


class RayLightningEnvironment(ClusterEnvironment):
    """The workers of a ``TorchTrainer``: Ray has started them and made their process group. The strategies of this
    module know it without being told.
    """

    def __eq__(self, other: object) -> bool:
        return isinstance(other, RayLightningEnvironment)  # two of them know the same

    def __hash__(self) -> int:
        return hash(RayLightningEnvironment)

    @property
    def creates_processes_externally(self) -> bool:
        return True

    @property
    def main_address(self) -> str:
        return os.environ["MASTER_ADDR"]

    @property
    def main_port(self) -> int:
        return int(os.environ["MASTER_PORT"])

    @staticmethod
    def detect() -> bool:
        try:
            return _context() is not None
        except MisconfigurationException:
            return False

    def world_size(self) -> int:
        return _context().get_world_size()

    def set_world_size(self, size: int) -> None:
        pass  # Ray knows

    def global_rank(self) -> int:
        return _context().get_world_rank()

    def set_global_rank(self, rank: int) -> None:
        pass  # Ray knows

    def local_rank(self) -> int:
        return _context().get_local_rank()

    def node_rank(self) -> int:
        return _context().get_node_rank()


class _InWorker(ParallelStrategy):
    """What Ray says instead of the Trainer's arguments: who the processes are, on which devices."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        for name, instead in _OF_THE_GROUP.items():
            if kwargs.get(name) is not None:
                advice = f"Write `TorchTrainer(torch_config=TorchConfig({instead}))`." if instead else "Leave it out."
                rank_zero_warn(
                    f"{type(self).__name__}({name}={kwargs.pop(name)!r}) is ignored: Ray starts the workers and makes "
                    f"their process group. {advice}"
                )
        super().__init__(*args, **kwargs)
        self.cluster_environment = self.cluster_environment or RayLightningEnvironment()

    @property
    def num_processes(self) -> int:
        return _context().get_local_world_size()

    @property
    def world_size(self) -> int:
        return self._environment.world_size()

    @property
    def global_rank(self) -> int:
        return self._environment.global_rank()

    @property
    def root_device(self) -> torch.device:
        _context()
        return ray.train.torch.get_device()

    @property
    def launcher(self) -> Launcher | None:
        return None

    def setup_environment(self) -> None:
        asked, there = len(self.parallel_devices or ()), self.num_processes
        if self.root_device.type == "cpu" and asked != there:
            raise MisconfigurationException(
                f"`Trainer(devices={asked})`, but Ray has started {there} worker{'s' * (there > 1)} on this machine. "
                "Leave `devices` and `num_nodes` out, and say it to Ray: `ScalingConfig(num_workers=...)`."
            )
        super().setup_environment()


class RayDDPStrategy(_InWorker, DDPStrategy):
    """:class:`~fulmen.strategies.ddp.DDPStrategy` in the workers of a ``TorchTrainer``, with its arguments.

    Those that are about the process group (``process_group_backend``, ``timeout``, ``start_method``,
    ``rendezvous_timeout``) are ignored with a warning: see ``ray.train.torch.TorchConfig``.
    """


class RayFSDPStrategy(_InWorker, FSDPStrategy):
    """:class:`~fulmen.strategies.fsdp.FSDPStrategy` in the workers of a ``TorchTrainer``, with its arguments; see
    :class:`RayDDPStrategy` for those that are ignored.
    """


def prepare_trainer(trainer: Trainer) -> Trainer:
    """Check that ``trainer`` trains with the other workers of its ``TorchTrainer``, and return it.

    Raises:
        MisconfigurationException: each worker would train for itself, as the strategy is another one.
    """
    if not isinstance(trainer.strategy, _InWorker):
        raise MisconfigurationException(
            f"the Trainer has the strategy {type(trainer.strategy).__name__}, which does not know of the workers of "
            "Ray. Write `Trainer(strategy=RayDDPStrategy())` or `Trainer(strategy=RayFSDPStrategy())`, both of "
            "`fulmen.integrations.ray`."
        )
    if not isinstance(trainer.strategy.cluster_environment, RayLightningEnvironment):
        raise MisconfigurationException(
            f"{type(trainer.strategy).__name__} has the environment "
            f"{type(trainer.strategy.cluster_environment).__name__}, which does not know of the workers of Ray. "
            "Leave it out, or pass `RayLightningEnvironment()`."
        )
    return trainer


# -- reports ----------------------------------------------------------------------------------------------------------


def _part_of_ray() -> Any:
    """``ray.train`` in one of its workers, ``ray.tune`` in one of its trials, or None."""
    try:
        ray.train.get_context()
    except DeprecationWarning:  # what Ray answers in a trial: that this is asked of `ray.tune`
        return ray.tune
    except RuntimeError:
        return None
    return ray.train


@contextmanager
def reported_checkpoint(filename: str = CHECKPOINT_NAME) -> Generator[str | None, None, None]:
    """Where this run or trial is to go on from: ``with reported_checkpoint() as path: trainer.fit(model,
    ckpt_path=path)``.

    Args:
        filename: as of the callback that reported it.

    Yields:
        The path of the file that was reported last, for as long as the block lasts; None if there is none.

    Raises:
        MisconfigurationException: this is neither a worker of Ray Train nor a trial of Ray Tune.
        FileNotFoundError: the checkpoint that Ray has holds no such file.
    """
    part = _part_of_ray()
    if part is None:
        raise _not_in_ray("reported_checkpoint()")
    checkpoint = part.get_checkpoint()
    if checkpoint is None:
        yield None
        return
    with checkpoint.as_directory() as folder:
        path = os.path.join(folder, filename)
        if not os.path.exists(path):
            raise FileNotFoundError(
                f"the checkpoint of Ray, {checkpoint.path}, has no {filename!r}; it has {sorted(os.listdir(folder))}. "
                "Name the file as the callback that reported it does: `reported_checkpoint('...')`."
            )
        yield path


class RayTrainReportCallback(Callback):
    """Reports metrics, and the whole state of the run, to Ray Train or Ray Tune while ``fit`` lasts.

    Args:
        metrics: which of ``trainer.callback_metrics`` are reported: a name, a list of names, or a dict from the names
            for Ray to those that were logged. None: all. ``epoch`` and ``step`` are always reported.
        on: when: ``"train_epoch_end"``, ``"validation_end"``, ``"train_batch_end"``, ``"train_end"``, or a list of
            them. What is reported is the state at the end of the batch or epoch.
        save_checkpoints: with each report, a checkpoint from which the run goes on exactly,
            see :func:`reported_checkpoint`.
        filename: of the checkpoint's file, within the folder that Ray keeps.
        folder: where the file is written before Ray takes it. None: the folder for temporary files. With shards
            (``state_dict_type="sharded"``) on several machines: one that all of them see.
        **kwargs: of ``ray.train.report``, such as ``checkpoint_upload_mode`` and ``validation``. Not in Ray Tune.

    Raises:
        ValueError: ``on`` or ``metrics`` has none of these forms.
    """

    def __init__(
        self,
        metrics: str | Sequence[str] | Mapping[str, str] | None = None,
        on: str | Sequence[str] = "train_epoch_end",
        save_checkpoints: bool = True,
        filename: str = CHECKPOINT_NAME,
        folder: str | os.PathLike[str] | None = None,
        **kwargs: Any,
    ) -> None:
        self._names = _names(metrics)
        self._moments = [on] if isinstance(on, str) else list(on)
        unknown = [moment for moment in self._moments if moment not in _MOMENTS]
        if unknown or not self._moments:
            raise ValueError(
                f"{type(self).__name__}(on={on!r}): must be one or several of {', '.join(map(repr, _MOMENTS))}."
            )
        self._saves, self._filename, self._folder, self._options = save_checkpoints, filename, folder, kwargs
        self._missed: set[str] = set()
        own = type(self).on_train_batch_end is RayTrainReportCallback.on_train_batch_end
        if own and "train_batch_end" not in self._moments:
            self.on_train_batch_end = None  # type: ignore[assignment]  # costs nothing per batch

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        part = _part_of_ray()
        if part is None:
            raise _not_in_ray(type(self).__name__)
        if part is ray.tune and self._options:
            raise MisconfigurationException(
                f"{type(self).__name__}({', '.join(f'{name}=...' for name in self._options)}): only Ray Train knows of "
                "this, and this is a trial of Ray Tune. Leave it out."
            )

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if "train_epoch_end" in self._moments:
            self._report_at_boundary(trainer)

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if "validation_end" in self._moments and trainer.state.fn == "fit" and not trainer.sanity_checking:
            self._report_at_boundary(trainer)

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        if "train_batch_end" in self._moments:
            self._report_at_boundary(trainer)

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if "train_end" in self._moments:
            self._report(trainer, trainer.current_epoch)

    def _report_at_boundary(self, trainer: Trainer) -> None:
        """Only when schedulers and other callbacks are done with it, too, is a batch or epoch whole."""
        epoch = trainer.current_epoch
        trainer.boundary.defer(lambda: self._report(trainer, epoch))

    def _report(self, trainer: Trainer, epoch: int) -> None:
        part, values = _part_of_ray(), self._values(trainer, epoch)
        if not self._saves:
            part.report(values, **self._options)
            return
        strategy = trainer.strategy
        own, is_taken = tempfile.mkdtemp(prefix="fulmen_ray_", dir=self._folder), False
        try:
            folder = strategy.broadcast(own)  # shards of one checkpoint meet in one place
            trainer.save_checkpoint(os.path.join(folder, self._filename))
            strategy.checkpoint_io.settle()
            checkpoint = part.Checkpoint.from_directory(folder) if strategy.is_global_zero else None
            part.report(values, checkpoint=checkpoint, **self._options)
            # Ray reads it later, and removes it then
            is_taken = strategy.is_global_zero and getattr(self._options.get(_UPLOAD), "name", None) == "ASYNC"
        finally:
            if not is_taken:
                shutil.rmtree(own, ignore_errors=True)

    def _values(self, trainer: Trainer, epoch: int) -> dict[str, float]:
        logged = trainer.callback_metrics
        names = self._names or {name: name for name in logged}
        values: dict[str, Any] = {"epoch": epoch, "step": trainer.global_step}
        for name, source in names.items():
            if source in logged:
                values[name] = logged[source].item()
            elif source not in self._missed:
                self._missed.add(source)
                rank_zero_warn(
                    f"{type(self).__name__} finds no metric {source!r} to report. There are: {sorted(logged)}. Log it "
                    f"by `self.log({source!r}, ...)`, or report when it is there: `on='validation_end'`."
                )
        return values


class TuneReportCheckpointCallback(RayTrainReportCallback):
    """:class:`RayTrainReportCallback` with the arguments and defaults of the callback of this name in Ray: it reports
    after each validation.
    """

    def __init__(
        self,
        metrics: str | Sequence[str] | Mapping[str, str] | None = None,
        filename: str = "checkpoint",
        save_checkpoints: bool = True,
        on: str | Sequence[str] = "validation_end",
    ) -> None:
        super().__init__(metrics, on, save_checkpoints, filename)


def _names(metrics: Any) -> dict[str, str] | None:
    """By the names for Ray, those that were logged; None for all."""
    if metrics is None or isinstance(metrics, Mapping):
        found = None if metrics is None else dict(metrics)
    else:
        found = {name: name for name in ([metrics] if isinstance(metrics, str) else metrics)}
    if found is not None and not (found and all(isinstance(name, str) for pair in found.items() for name in pair)):
        raise ValueError(
            f"`metrics={metrics!r}`: must be a name, a list of names, or a dict from the names for Ray to those that "
            "are logged, as {'loss': 'val_loss'}. To report all, leave it out."
        )
    return found


def _not_in_ray(what: str) -> MisconfigurationException:
    return MisconfigurationException(
        f"{what} talks to Ray, and this process is neither a worker of Ray Train nor a trial of Ray Tune. Leave it out "
        "here, or run the function by `ray.train.torch.TorchTrainer(...).fit()` or `ray.tune.Tuner(...).fit()`."
    )
