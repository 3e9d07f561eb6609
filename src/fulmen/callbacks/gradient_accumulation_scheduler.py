"""Change the number of batches per optimizer step from epoch to epoch."""

from __future__ import annotations

from typing import TYPE_CHECKING

from fulmen.callbacks.callback import Callback
from fulmen.utilities.exceptions import MisconfigurationException
from fulmen.utilities.model_helpers import is_overridden
from fulmen.utilities.rank_zero import rank_zero_warn
from fulmen.utilities.warnings import PossibleUserWarning

if TYPE_CHECKING:
    from fulmen.core.module import LightningModule
    from fulmen.trainer.trainer import Trainer


class GradientAccumulationScheduler(Callback):
    """Sets ``trainer.accumulate_grad_batches`` at the beginning of given epochs.

    Args:
        scheduling: batches per optimizer step, by the epoch (from 0) from which on they hold. Before the first of them
            every batch makes a step: ``{4: 2, 8: 4}`` is 1 for epochs 0 to 3, then 2, and from epoch 8 on 4.

    Raises:
        TypeError: ``scheduling`` is empty.
        MisconfigurationException: an epoch is no whole number from 0 on, or a number of batches none from 1 on.
        RuntimeError: when training begins, in manual optimization and with strategies that accumulate themselves.
        ValueError: when training begins, if the trainer has an ``accumulate_grad_batches`` of its own.
    """

    def __init__(self, scheduling: dict[int, int]) -> None:
        super().__init__()  # of another class that a user may have put behind this one
        if not scheduling:
            raise TypeError(
                f"GradientAccumulationScheduler(scheduling={scheduling!r}) has nothing to schedule. "
                f"Write for example {{4: 2}}: from epoch 4 on, two batches per step."
            )
        for epoch, batches in scheduling.items():
            if not isinstance(epoch, int) or epoch < 0:
                raise MisconfigurationException(
                    f"GradientAccumulationScheduler(scheduling={scheduling!r}) has the epoch {epoch!r}: "
                    f"epochs are whole numbers from 0 on."
                )
            if not isinstance(batches, int) or batches < 1:
                raise MisconfigurationException(
                    f"GradientAccumulationScheduler(scheduling={scheduling!r}) asks for {batches!r} batches per step "
                    f"in epoch {epoch}: write a whole number from 1 on."
                )
        self.scheduling = dict(sorted({0: 1, **scheduling}.items()))
        self.epochs = list(self.scheduling)

    def going_to_accumulate_grad_batches(self) -> bool:
        """Whether some epoch has more than one batch per step."""
        return any(batches > 1 for batches in self.scheduling.values())

    def get_accumulate_grad_batches(self, epoch: int) -> int:
        """Batches per step in the epoch with the index ``epoch``."""
        return self.scheduling[max(start for start in self.epochs if start <= epoch)]

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if not pl_module.automatic_optimization:
            raise RuntimeError(
                "GradientAccumulationScheduler cannot accumulate in manual optimization, where the module itself calls "
                "`backward` and `step`. Step every n-th batch in `training_step` instead."
            )
        if trainer.accumulate_grad_batches != 1:
            raise ValueError(
                f"Trainer(accumulate_grad_batches={trainer.accumulate_grad_batches}) and GradientAccumulationScheduler "
                f"both say how many batches make a step. Leave the trainer's argument out."
            )
        if getattr(trainer.strategy, "handles_gradient_accumulation", False):
            raise RuntimeError(
                f"{type(trainer.strategy).__name__} accumulates by a number that is fixed when it starts, so "
                f"GradientAccumulationScheduler cannot change it. Write Trainer(accumulate_grad_batches=...)."
            )
        written = [name for name in ("optimizer_step", "optimizer_zero_grad") if is_overridden(name, pl_module)]
        if written and self.going_to_accumulate_grad_batches():
            rank_zero_warn(
                f"With GradientAccumulationScheduler, `{'` and `'.join(written)}` of {type(pl_module).__name__} will "
                f"be called once per accumulation window, not for every batch.",
                category=PossibleUserWarning,
            )

    def on_train_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        trainer.accumulate_grad_batches = self.get_accumulate_grad_batches(trainer.current_epoch)

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        trainer.accumulate_grad_batches = 1

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        trainer.accumulate_grad_batches = 1
