"""Log how busy the device is, and how full its memory."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from fulmen.accelerators.cpu import get_cpu_stats
from fulmen.callbacks.callback import Callback
from fulmen.utilities.exceptions import MisconfigurationException

if TYPE_CHECKING:
    from fulmen.core.module import LightningModule
    from fulmen.trainer.trainer import Trainer


class DeviceStatsMonitor(Callback):
    """Logs figures about the device of rank 0 at the start and the end of batches in training, validation and testing,
    under ``DeviceStatsMonitor.<hook>/<figure>``: on CUDA those of ``torch.cuda.memory_stats``, on the CPU how busy it
    and how full its memory is, in percent, else what the accelerator's ``get_device_stats`` gives.

    Training is looked at where its steps are logged, evaluation at every ``log_every_n_steps``-th batch of a loader.

    Args:
        cpu_stats: whether the figures of the CPU are logged. None: only where the CPU is the device. They need
            ``psutil``.

    Raises:
        MisconfigurationException: when a run begins, if there is no logger.
        ModuleNotFoundError: when a run begins, if ``psutil`` is needed and not installed.
    """

    def __init__(self, cpu_stats: bool | None = None) -> None:
        self.cpu_stats = cpu_stats

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        if stage not in ("fit", "validate", "test"):
            return
        if not trainer.loggers:
            raise MisconfigurationException(
                "DeviceStatsMonitor logs, but the trainer has no logger. Pass one, as in "
                "Trainer(logger=CSVLogger('.')), or leave the callback out."
            )
        if self.cpu_stats or (self.cpu_stats is None and _is_cpu(trainer)):
            get_cpu_stats()  # what is busy is measured from one call to the next, so the first one knows nothing

    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int) -> None:
        if trainer.time_to_log:
            self._log(trainer, "on_train_batch_start")

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        if trainer.time_to_log:
            self._log(trainer, "on_train_batch_end")

    def on_validation_batch_start(
        self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int, dataloader_idx: int = 0
    ) -> None:
        if _is_due(trainer, batch_idx):
            self._log(trainer, "on_validation_batch_start")

    def on_validation_batch_end(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        if _is_due(trainer, batch_idx):
            self._log(trainer, "on_validation_batch_end")

    def on_test_batch_start(
        self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int, dataloader_idx: int = 0
    ) -> None:
        if _is_due(trainer, batch_idx):
            self._log(trainer, "on_test_batch_start")

    def on_test_batch_end(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        if _is_due(trainer, batch_idx):
            self._log(trainer, "on_test_batch_end")

    def _log(self, trainer: Trainer, hook: str) -> None:
        if not trainer.is_global_zero:
            return
        figures: dict[str, Any] = {}
        if not (_is_cpu(trainer) and self.cpu_stats is False):
            figures |= trainer.accelerator.get_device_stats(trainer.strategy.root_device)
        if self.cpu_stats and not _is_cpu(trainer):
            figures |= get_cpu_stats()
        if not figures:
            return
        for logger in trainer.loggers:
            separator = getattr(logger, "group_separator", "/")
            named = {f"DeviceStatsMonitor.{hook}{separator}{name}": value for name, value in figures.items()}
            logger.log_metrics(named, step=trainer.progress.batches_that_stepped)


def _is_cpu(trainer: Trainer) -> bool:
    return trainer.strategy.root_device.type == "cpu"


def _is_due(trainer: Trainer, batch_idx: int) -> bool:
    every = trainer.log_every_n_steps
    return every > 0 and (batch_idx + 1) % every == 0 and not trainer.sanity_checking
