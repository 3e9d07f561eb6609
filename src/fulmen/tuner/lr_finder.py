"""The range test: train for some steps while the learning rate rises, and look at the loss."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from fulmen.callbacks.callback import Callback
from fulmen.core.optimizer import NoOptimizer
from fulmen.tuner.bar import Bar
from fulmen.tuner.suggestions import METHODS, suggested
from fulmen.utilities.exceptions import MisconfigurationException
from fulmen.utilities.rank_zero import rank_zero_warn

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from fulmen.core.module import LightningModule
    from fulmen.trainer.trainer import Trainer

MODES = ("exponential", "linear")
_SMOOTHING = 0.98


@dataclass(frozen=True, slots=True)
class RangeTest:
    """What a range test does; arguments as :meth:`fulmen.tuner.tuning.Tuner.lr_find`.

    Raises:
        ValueError: one of them is none of its allowed values.
    """

    min_lr: float = 1e-8
    max_lr: float = 1.0
    num_training: int = 100
    mode: str = "exponential"
    early_stop_threshold: float | None = 4.0
    suggest_by: str = "steepest"

    def __post_init__(self) -> None:
        if self.mode not in MODES:
            raise ValueError(f"`mode={self.mode!r}`: must be 'exponential' or 'linear'.")
        if self.suggest_by not in METHODS:
            raise ValueError(f"`suggest_by={self.suggest_by!r}`: must be one of {', '.join(map(repr, METHODS))}.")
        if isinstance(self.num_training, bool) or not isinstance(self.num_training, int) or self.num_training < 1:
            raise ValueError(f"`num_training={self.num_training!r}`: must be a whole number of steps from 1.")
        if not (_is_number(self.min_lr) and _is_number(self.max_lr) and 0 <= self.min_lr < self.max_lr < math.inf):
            raise ValueError(
                f"`min_lr={self.min_lr!r}, max_lr={self.max_lr!r}`: must be numbers from 0, and `min_lr` the smaller "
                "one."
            )
        if self.mode == "exponential" and self.min_lr == 0:
            raise ValueError(
                "`min_lr=0` has no multiple that is larger. Write a small number such as `min_lr=1e-8`, or "
                "`mode='linear'`."
            )
        if self.early_stop_threshold is not None and not (
            _is_number(self.early_stop_threshold) and self.early_stop_threshold > 1
        ):
            raise ValueError(
                f"`early_stop_threshold={self.early_stop_threshold!r}`: must be a number above 1, such as 4.0 (stop "
                "when the loss is four times its least), or None."
            )

    def rate(self, step: int) -> float:
        """The learning rate of ``step``, from 0: ``min_lr`` first, ``max_lr`` last."""
        if step == 0:
            return self.min_lr
        done = (step + 1) / self.num_training
        if self.mode == "linear":
            return self.min_lr + done * (self.max_lr - self.min_lr)
        return self.min_lr * (self.max_lr / self.min_lr) ** done


class LRFinder:
    """The result of a range test.

    Args:
        mode: how the rates were spaced: ``"exponential"`` or ``"linear"``.
        lr_min: the first rate.
        lr_max: the rate of the last step, if the test came so far.
        num_training: the steps that were asked for.

    Attributes:
        results: ``{"lr": [...], "loss": [...]}``: the rate of each step, and the loss, smoothed. NaN where
            ``training_step`` gave no loss, or none that is a number.
        losses: the loss of each step as it was: the mean over the batches of the step, and over all processes.
    """

    def __init__(self, mode: str, lr_min: float, lr_max: float, num_training: int) -> None:
        self.mode, self.lr_min, self.lr_max, self.num_training = mode, lr_min, lr_max, num_training
        self.results: dict[str, list[float]] = {"lr": [], "loss": []}
        self.losses: list[float] = []
        self._optimal_idx: int | None = None

    def suggestion(self, skip_begin: int = 10, skip_end: int = 1, method: str = "steepest") -> float | None:
        """A rate to train with.

        Args:
            skip_begin: points to leave out at the beginning, where the smoothed loss knows little yet.
            skip_end: points to leave out at the end, where the loss may explode.
            method: ``"steepest"``: where the smoothed loss falls fastest along the axis of rates (which is logarithmic
                in the mode ``"exponential"``). ``"valley"``: the middle of the longest fall. ``"minimum/10"``: a tenth
                of the rate with the least loss.

        Returns:
            The rate. None if fewer than two points are left, which a warning says.

        Raises:
            ValueError: there is no such method, or a number of points is negative.
        """
        place, rate = self._suggested(skip_begin, skip_end, method)
        self._optimal_idx = place
        return rate

    def plot(
        self,
        suggest: bool | str = False,
        show: bool = False,
        ax: Axes | None = None,
        skip_begin: int = 10,
        skip_end: int = 1,
    ) -> Figure:
        """Draw the losses over the rates.

        Args:
            suggest: True: mark the suggestion of ``"steepest"``, or of the method that :meth:`suggestion` was called
                with last. A method's name: mark its suggestion. ``"all"``: mark those of all methods.
            show: open a window.
            ax: axes of matplotlib to draw into. None: those of a new figure.
            skip_begin: as for :meth:`suggestion`.
            skip_end: as for :meth:`suggestion`.

        Returns:
            The figure.

        Raises:
            ModuleNotFoundError: matplotlib is not installed.
            ValueError: there is no such method.
        """
        from fulmen.tuner.plot import draw

        if suggest not in (True, False, "all", *METHODS):
            raise ValueError(f"`suggest={suggest!r}`: must be True, False, 'all' or one of {', '.join(METHODS)}.")
        methods: tuple[str, ...] = METHODS if suggest == "all" else ("steepest",) if suggest is True else ()
        if isinstance(suggest, str) and suggest != "all":
            methods = (suggest,)
        marks = {}
        for method in methods:
            place, rate = self._suggested(skip_begin, skip_end, method)
            if place is not None and rate is not None:
                marks[method] = (place, rate)
        return draw(self, marks, show, ax)

    def _suggested(self, skip_begin: int, skip_end: int, method: str) -> tuple[int | None, float | None]:
        import numpy as np

        if skip_begin < 0 or skip_end < 0:
            raise ValueError(f"`skip_begin={skip_begin}, skip_end={skip_end}`: must not be negative.")
        if method not in METHODS:
            raise ValueError(f"`method={method!r}`: must be one of {', '.join(map(repr, METHODS))}.")
        rates, losses = np.asarray(self.results["lr"], float), np.asarray(self.results["loss"], float)
        places = np.arange(len(losses))[skip_begin : len(losses) - skip_end]
        places = places[np.isfinite(losses[places])]
        if len(places) < 2:
            rank_zero_warn(
                f"no learning rate can be suggested: of {len(losses)} points {len(places)} are left, without the first "
                f"{skip_begin}, the last {skip_end} and those whose loss is not finite. Write a larger `num_training` "
                "or a smaller `max_lr`."
            )
            return None, None
        inner, rate = suggested(method, rates[places], losses[places], self.mode == "exponential")
        return int(places[inner]), rate


def check(trainer: Trainer, module: LightningModule) -> None:
    """Whether a range test can be made of ``module``.

    Raises:
        MisconfigurationException: it optimizes by hand, or its parameters will be divided among processes.
    """
    if trainer.strategy.forward_is_collective:
        raise MisconfigurationException(
            f"a learning rate cannot be searched with {type(trainer.strategy).__name__}, which divides the parameters "
            "among the processes, so that none of them could put them back. Search with `strategy='ddp'` or on one "
            "device, with fewer layers if need be, and write the rate into the module."
        )
    if not module.automatic_optimization:
        raise MisconfigurationException(
            f"{type(module).__name__} sets `automatic_optimization = False`: with several optimizers, or steps by "
            "hand, there is no one learning rate to find. Try some by hand: `for lr in (1e-4, 1e-3, 1e-2): "
            "Trainer(max_steps=100).fit(Model(lr=lr))`, or search them: `fulmen search`."
        )


def run_range_test(trainer: Trainer, test: RangeTest, shows: bool) -> LRFinder:
    """Make the test within a run that is set up. What its steps change is put back by the caller.

    Args:
        shows: draw a line that says how far it is.

    Raises:
        MisconfigurationException: there is no optimizer.
    """
    if any(isinstance(optimizer, NoOptimizer) for optimizer in trainer.optimizers) or len(trainer.optimizers) != 1:
        raise MisconfigurationException(
            "a range test needs one optimizer, and `configure_optimizers` gave none. Write `return "
            "torch.optim.Adam(self.parameters(), lr=self.lr)` in it."
        )
    found = LRFinder(test.mode, test.min_lr, test.max_lr, test.num_training)
    with Bar("Learning rate", test.num_training, shows) as bar:
        recorder = _Recorder(found, test, bar)
        with trainer._trial("fit", test.num_training, [recorder]) as run:
            run()
    if not found.losses:
        rank_zero_warn("no learning rate can be found: there is no training batch, or each epoch was skipped.")
    return found


class _Recorder(Callback):
    """Sets the rate before each step, and notes the loss after it."""

    def __init__(self, found: LRFinder, test: RangeTest, bar: Bar) -> None:
        self._found, self._test, self._bar = found, test, bar
        self._sum, self._weight = 0.0, 0.0
        self._mean, self._best = 0.0, math.inf
        self._counted = 0  # losses in the mean
        self._at_start_of_epoch = 0

    def on_train_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._at_start_of_epoch = len(self._found.losses)

    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int) -> None:
        if not trainer.progress.starts_accumulation:
            return
        self._sum = self._weight = 0.0
        rate = self._test.rate(len(self._found.losses))
        for group in trainer.optimizer.param_groups:
            set_rate(group, rate)

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        loss = outputs.get("loss") if isinstance(outputs, dict) else None
        if loss is not None:
            window = trainer.window
            weight = 1.0 if window.weight is None else float(outputs["weight"])
            self._sum += float(loss) * (window.size if window.weight is None else weight)
            self._weight += weight
        if trainer.progress.accumulating:
            return
        loss = self._loss_of_all(trainer)
        self._record(trainer, loss)
        if trainer.signals.request is not None:  # the run ends in a moment, and needs no rate any more
            trainer.should_stop = True

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if len(self._found.losses) == self._at_start_of_epoch:  # skipped as a whole, and so would be the next one
            trainer.should_stop = True

    def _loss_of_all(self, trainer: Trainer) -> float | None:
        """The mean loss of the step, over all processes; None if none of them has one."""
        if trainer.world_size > 1:
            mine = (self._sum / self._weight, 1.0) if self._weight else (0.0, 0.0)
            both = trainer.strategy.reduce(
                torch.tensor(mine, dtype=torch.float64 if trainer.strategy.root_device.type != "mps" else None).to(
                    trainer.strategy.root_device
                ),
                reduce_op="sum",
            )
            self._sum, self._weight = both.tolist()
        return self._sum / self._weight if self._weight else None

    def _record(self, trainer: Trainer, loss: float | None) -> None:
        found, step = self._found, len(self._found.losses)
        found.results["lr"].append(self._test.rate(step))
        found.losses.append(math.nan if loss is None else loss)
        if loss is None or not math.isfinite(loss):
            found.results["loss"].append(math.nan)
            self._bar.advance()
            if loss is not None and self._test.early_stop_threshold is not None:
                trainer.should_stop = True  # larger rates will not mend it
            return
        self._counted += 1
        self._mean = _SMOOTHING * self._mean + (1 - _SMOOTHING) * loss
        smoothed = self._mean / (1 - _SMOOTHING**self._counted)  # without the zero that the mean began with
        found.results["loss"].append(smoothed)
        self._bar.advance(lr=f"{found.results['lr'][-1]:.1e}", loss=smoothed)
        threshold = self._test.early_stop_threshold
        if threshold is not None and step and smoothed - self._best > (threshold - 1) * abs(self._best):
            trainer.should_stop = True
        self._best = min(self._best, smoothed)


def set_rate(group: dict[str, Any], rate: float) -> None:
    """Set the learning rate of a group of parameters."""
    if isinstance(group["lr"], Tensor):  # of an optimizer whose steps are compiled or captured
        group["lr"].fill_(rate)
    else:
        group["lr"] = rate


def set_rate_of_run(trainer: Trainer, rate: float) -> None:
    """Let a run that is under way go on with ``rate``: the optimizers have it, and the schedulers go on from it."""
    for optimizer in trainer.optimizers:
        for group in optimizer.param_groups:
            set_rate(group, rate)
            if "initial_lr" in group:
                group["initial_lr"] = rate
    for config in trainer.lr_scheduler_configs:
        for scheduler in (config.scheduler, *getattr(config.scheduler, "_schedulers", ())):
            attributes = vars(scheduler)
            if "base_lrs" in attributes:
                attributes["base_lrs"] = [rate] * len(attributes["base_lrs"])


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and not math.isnan(value)
