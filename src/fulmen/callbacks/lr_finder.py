"""Find a learning rate when ``fit`` begins, and train with it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from fulmen.callbacks.callback import Callback
from fulmen.tuner.bar import may_show
from fulmen.tuner.holders import Hyperparameter
from fulmen.tuner.lr_finder import MODES, LRFinder, RangeTest, check, run_range_test, set_rate_of_run
from fulmen.tuner.search import within
from fulmen.utilities.rank_zero import rank_zero_info, rank_zero_warn

if TYPE_CHECKING:
    from fulmen.core.module import LightningModule
    from fulmen.trainer.trainer import Trainer


class LearningRateFinder(Callback):
    """Makes a range test when ``fit`` begins, and lets the run have the rate that it suggests: the run that follows is
    the run that begins with this rate.

    A run that is resumed makes no test: it goes on with its rate. To search at other times, override ``on_fit_start``
    so that it does nothing, and call :meth:`lr_find` in ``on_train_epoch_start``.

    Args:
        min_lr: the first rate.
        max_lr: the last rate.
        num_training_steps: how many optimizer steps the test has.
        mode: ``"exponential"``: each rate is the same multiple of the one before. ``"linear"``: each is larger by the
            same amount.
        early_stop_threshold: end the test when the smoothed loss is this many times its least. None: never.
        update_attr: set the suggested rate. False: only test.
        attr_name: the attribute to set, of the module, the datamodule or their hparams. Empty: ``lr`` or
            ``learning_rate``.
        suggest_by: which suggestion to take: ``"steepest"``, ``"valley"`` or ``"minimum/10"``
            (:meth:`fulmen.tuner.lr_finder.LRFinder.suggestion`).

    Attributes:
        optimal_lr: the result of the last test (:class:`fulmen.tuner.lr_finder.LRFinder`); None before the first.

    Raises:
        ValueError: an argument is none of its allowed values.
    """

    SUPPORTED_MODES = MODES
    _calling_place = -1

    def __init__(
        self,
        min_lr: float = 1e-8,
        max_lr: float = 1,
        num_training_steps: int = 100,
        mode: str = "exponential",
        early_stop_threshold: float | None = 4.0,
        update_attr: bool = True,
        attr_name: str = "",
        *,
        suggest_by: str = "steepest",
    ) -> None:
        mode = mode.lower() if isinstance(mode, str) else mode
        self._test = RangeTest(min_lr, max_lr, num_training_steps, mode, early_stop_threshold, suggest_by)
        self._update_attr, self._attr_name = update_attr, attr_name
        self._rate: float | None = None  # that the run has
        self.optimal_lr: LRFinder | None = None

    def lr_find(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Make a test now, and set the rate that it suggests; to be called when ``fit`` or an epoch begins.

        Raises:
            AttributeError: nobody has the attribute that is to be set.
            MisconfigurationException: the module optimizes by hand, or has no optimizer.
        """
        check(trainer, pl_module)
        held = self._held(trainer, pl_module) if self._update_attr else None
        shows = may_show(trainer)
        with within(trainer):
            found = run_range_test(trainer, self._test, shows)
        self.optimal_lr = found
        if held is None or not found.losses or trainer.signals.request is not None:
            return
        rate = found.suggestion(method=self._test.suggest_by)
        if rate is None:
            return
        self._rate = rate
        self._set(trainer, held, rate)
        rank_zero_info("learning rate %.3g, set in %s", rate, " and ".join(held.places))

    def _held(self, trainer: Trainer, pl_module: LightningModule) -> Hyperparameter:
        names = (self._attr_name,) if self._attr_name else ("lr", "learning_rate")
        return Hyperparameter(pl_module, trainer.datamodule, names, "learning rate")

    def _set(self, trainer: Trainer, held: Hyperparameter, rate: float) -> None:
        before, value = _rates(trainer), held.value
        held.set(rate)
        if trainer.progress.in_epoch:  # in the middle of a run, whose optimizers go on
            set_rate_of_run(trainer, rate)
            return
        trainer._configure_anew()  # the run begins, as if with this rate
        if _rates(trainer) == before and value != rate:
            rank_zero_warn(
                f"{' and '.join(held.places)} is {rate:.3g} now, the rate that was found, but the optimizer still has "
                f"{', '.join(f'{one:.3g}' for one in before)}: `configure_optimizers` does not use it. Write "
                f"`lr=self.{held.name}` there."
            )

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if trainer.fast_dev_run:
            rank_zero_warn("LearningRateFinder does nothing with `fast_dev_run`.")
        elif trainer.loaded_ckpt_path is None:
            self.lr_find(trainer, pl_module)
        elif self._rate is not None and self._update_attr:  # the run that goes on has found it
            self._set(trainer, self._held(trainer, pl_module), self._rate)
        else:
            rank_zero_info("the run goes on from %s with its own learning rate", trainer.loaded_ckpt_path)

    def state_dict(self) -> dict[str, Any]:
        return {} if self._rate is None else {"lr": self._rate}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self._rate = state_dict["lr"]


def _rates(trainer: Trainer) -> list[float]:
    return [float(group["lr"]) for optimizer in trainer.optimizers for group in optimizer.param_groups]
