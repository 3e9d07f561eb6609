"""The progress bar of tqdm."""

from __future__ import annotations

import os
import sys
from functools import cache
from math import inf, isfinite
from time import monotonic
from typing import TYPE_CHECKING, Any

from fulmen.callbacks.progress.progress_bar import ProgressBar

if TYPE_CHECKING:
    from fulmen.core.module import LightningModule
    from fulmen.trainer.trainer import Trainer

SECONDS_BETWEEN_READS = 0.2
BARS = ("train", "val", "test", "predict")


def __getattr__(name: str) -> Any:
    if name == "Tqdm":
        return tqdm_class()
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


@cache
def tqdm_class() -> Any:
    """tqdm's class with numbers of a steady width; also importable as ``Tqdm`` from this module.

    Raises:
        ModuleNotFoundError: tqdm is not installed.
    """
    try:
        from tqdm import tqdm
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError(
            "`TQDMProgressBar` needs the package tqdm, which is not installed: `pip install 'fulmen[tqdm]'`. "
            "`RichProgressBar` and `PlainProgress` do without it."
        ) from error
    try:
        import ipywidgets  # type: ignore[import-not-found]  # noqa: F401
        from tqdm.auto import tqdm
    except ModuleNotFoundError:
        pass  # a notebook shows the bar as text

    class Tqdm(tqdm):  # type: ignore[misc]
        monitor_interval = 0  # no thread that watches the bars

        @staticmethod
        def format_num(n: float | str) -> str:
            """``n`` with at least five characters if it is a float, so that the bar does not tremble: ``1.240``."""
            text = n if isinstance(n, str) else tqdm.format_num(n)
            if not isinstance(n, float) or "e" in text or not isfinite(n):
                return text
            return (text if "." in text else f"{text}.").ljust(5, "0")

    return Tqdm


def convert_inf(x: int | float | None) -> int | float | None:
    """``x``, or None where it is infinite or nan: tqdm's way to say that a total is not known."""
    return x if x is not None and isfinite(x) else None


class TQDMProgressBar(ProgressBar):
    """One bar per epoch, with a second one below it while validation runs, drawn by tqdm on stdout.

    Override ``init_train_tqdm`` and its sisters to make the bars your own way.

    Args:
        refresh_rate: the number of batches between two refreshes; 0 disables the bar. However small it is, metrics are
            read at most five times per second. In Colab 1 becomes 20; ``TQDM_MINITERS`` in the environment raises it.
        process_position: how many other processes show their bars above this one.
        leave: keep the bar of each finished epoch on the screen.

    Raises:
        ModuleNotFoundError: tqdm is not installed.
        ValueError: ``refresh_rate`` is negative.
    """

    BAR_FORMAT = "{l_bar}{bar}| {n_fmt}/{total_fmt} [{elapsed}<{remaining}, {rate_noinv_fmt}{postfix}]"

    _due: float = 0.0
    _batches: int = 0
    _seen: bool = False  # whether the current epoch, or evaluation, has been shown with its metrics

    def __init__(self, refresh_rate: int = 1, process_position: int = 0, leave: bool = False) -> None:
        if refresh_rate < 0:
            raise ValueError(
                f"`TQDMProgressBar(refresh_rate={refresh_rate})`: write a number of batches, or 0 for no bar."
            )
        tqdm_class()
        if refresh_rate == 1 and "COLAB_GPU" in os.environ:
            refresh_rate = 20  # more makes the page of the notebook hang
        if refresh_rate and os.environ.get("TQDM_MINITERS", "").isdigit():
            refresh_rate = max(refresh_rate, int(os.environ["TQDM_MINITERS"]))
        self._refresh_rate = refresh_rate
        self._process_position = process_position
        self._leave = leave
        self._bars: dict[str, Any] = {}

    @property
    def refresh_rate(self) -> int:
        """The number of batches between two refreshes; 0 when the bar is disabled."""
        return self._refresh_rate

    @property
    def process_position(self) -> int:
        """How many other processes show their bars above this one."""
        return self._process_position

    @property
    def is_enabled(self) -> bool:
        return self._enabled and self._refresh_rate > 0

    @property
    def train_progress_bar(self) -> Any:
        """tqdm's bar of the epoch. Reading it (and its sisters) when there is none raises a ``TypeError``."""
        return self._bar("train")

    @train_progress_bar.setter
    def train_progress_bar(self, bar: Any) -> None:
        self._bars["train"] = bar

    @property
    def val_progress_bar(self) -> Any:
        """tqdm's bar of the validation, or of the sanity check."""
        return self._bar("val")

    @val_progress_bar.setter
    def val_progress_bar(self, bar: Any) -> None:
        self._bars["val"] = bar

    @property
    def test_progress_bar(self) -> Any:
        """tqdm's bar of the test."""
        return self._bar("test")

    @test_progress_bar.setter
    def test_progress_bar(self, bar: Any) -> None:
        self._bars["test"] = bar

    @property
    def predict_progress_bar(self) -> Any:
        """tqdm's bar of the prediction."""
        return self._bar("predict")

    @predict_progress_bar.setter
    def predict_progress_bar(self, bar: Any) -> None:
        self._bars["predict"] = bar

    def _bar(self, name: str) -> Any:
        if name not in self._bars:
            raise TypeError(f"`{name}_progress_bar` was read while there is no such bar on the screen.")
        return self._bars[name]

    # the bars

    def _init_tqdm(self, description: str, position: int = 0, leave: bool = True, smoothing: float = 0) -> Any:
        return tqdm_class()(
            desc=description,
            position=2 * self.process_position + position,
            disable=self.is_disabled,
            leave=leave,
            dynamic_ncols=True,
            file=sys.stdout,
            smoothing=smoothing,
            bar_format=self.BAR_FORMAT,
        )

    def init_sanity_tqdm(self) -> Any:
        """Make the bar of the sanity check; it disappears afterwards."""
        return self._init_tqdm(self.sanity_check_description, leave=False)

    def init_train_tqdm(self) -> Any:
        """Make the bar of training."""
        return self._init_tqdm(self.train_description)

    def init_validation_tqdm(self) -> Any:
        """Make the bar of a validation; within ``fit`` it is below the one of training and disappears afterwards."""
        below = "train" in self._bars
        return self._init_tqdm(self.validation_description, position=int(below), leave=not below)

    def init_test_tqdm(self) -> Any:
        """Make the bar of a test."""
        return self._init_tqdm(self.test_description)

    def init_predict_tqdm(self) -> Any:
        """Make the bar of a prediction."""
        return self._init_tqdm(self.predict_description)

    def print(self, *args: Any, sep: str = " ", **kwargs: Any) -> None:
        """Print as ``print`` does, above the bars."""
        if self._bars:
            tqdm_class().write(sep.join(map(str, args)), **kwargs)
        else:
            print(*args, sep=sep, **kwargs)

    # the run

    def disable(self) -> None:
        self._enabled = False
        self._due = inf

    def enable(self) -> None:
        self._enabled = True
        self._due = 0.0

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        self._close_all()
        self._due = 0.0 if self.is_enabled else inf
        super().setup(trainer, pl_module, stage)

    def teardown(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        self._close_all()
        super().teardown(trainer, pl_module, stage)

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        self._close_all()
        super().on_exception(trainer, pl_module, exception)

    def _close(self, name: str) -> None:
        if (bar := self._bars.pop(name, None)) is not None:
            bar.close()

    def _close_all(self) -> None:
        for name in reversed(BARS):
            self._close(name)
        self.reset_dataloader_idx_tracker()

    def _restart(self, bar: Any, total: int | float, description: str) -> None:
        bar.initial = 0
        bar.set_description(description, refresh=False)
        bar.reset(convert_inf(total))

    def _update(self, bar: Any, batches: int, metrics: dict[str, Any] | None) -> None:
        if bar.disable:
            return
        bar.n = batches
        if metrics is not None:
            bar.set_postfix(metrics, refresh=False)
        bar.refresh()
        self._seen = True
        self._due = monotonic() + SECONDS_BETWEEN_READS

    def _is_due(self, batches: int, bar: Any) -> bool:
        return batches % self._refresh_rate == 0 or batches == bar.total

    # training

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self.train_progress_bar = self.init_train_tqdm()

    def on_train_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if self._leave and "train" not in self._bars:
            self.train_progress_bar = self.init_train_tqdm()
        self._batches, self._seen = 0, False
        self._restart(self.train_progress_bar, self.total_train_batches, f"Epoch {trainer.current_epoch}")

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        self._batches = batch_idx + 1
        if monotonic() >= self._due and self._is_due(self._batches, self.train_progress_bar):
            self._update(self.train_progress_bar, self._batches, self.get_metrics(trainer, pl_module))

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if self.is_disabled:
            return
        wanted = self._seen or self._leave or monotonic() >= self._due  # else the epoch is too short for a look
        self._update(self.train_progress_bar, self._batches, self.get_metrics(trainer, pl_module) if wanted else None)
        if self._leave:
            self._close("train")

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if self.is_enabled and "train" in self._bars:
            self._update(self.train_progress_bar, self._batches, self.get_metrics(trainer, pl_module))
        self._close("train")

    # validation, test, predict

    def on_sanity_check_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self.val_progress_bar = self.init_sanity_tqdm()

    def on_sanity_check_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._close("val")
        self.reset_dataloader_idx_tracker()

    def on_validation_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if not trainer.sanity_checking:
            self.val_progress_bar = self.init_validation_tqdm()

    def on_validation_batch_start(
        self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int, dataloader_idx: int = 0
    ) -> None:
        if self.has_dataloader_changed(dataloader_idx):
            words = self.sanity_check_description if trainer.sanity_checking else self.validation_description
            total = self.total_val_batches_current_dataloader
            self._restart(self.val_progress_bar, total, f"{words} DataLoader {dataloader_idx}")

    def on_validation_batch_end(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        self._advance(self.val_progress_bar, batch_idx + 1)

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if trainer.sanity_checking:
            return
        if trainer.state.fn != "fit":
            self._show_results(self.val_progress_bar, trainer, pl_module)
        elif self.is_enabled and monotonic() >= self._due:
            self._update(self.train_progress_bar, self._batches, self.get_metrics(trainer, pl_module))
        self._close("val")
        self.reset_dataloader_idx_tracker()

    def on_test_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self.test_progress_bar = self.init_test_tqdm()

    def on_test_batch_start(
        self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int, dataloader_idx: int = 0
    ) -> None:
        if self.has_dataloader_changed(dataloader_idx):
            total = self.total_test_batches_current_dataloader
            self._restart(self.test_progress_bar, total, f"{self.test_description} DataLoader {dataloader_idx}")

    def on_test_batch_end(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        self._advance(self.test_progress_bar, batch_idx + 1)

    def on_test_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._show_results(self.test_progress_bar, trainer, pl_module)
        self._close("test")
        self.reset_dataloader_idx_tracker()

    def on_predict_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self.predict_progress_bar = self.init_predict_tqdm()

    def on_predict_batch_start(
        self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int, dataloader_idx: int = 0
    ) -> None:
        if self.has_dataloader_changed(dataloader_idx):
            total = self.total_predict_batches_current_dataloader
            self._restart(self.predict_progress_bar, total, f"{self.predict_description} DataLoader {dataloader_idx}")

    def on_predict_batch_end(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        self._advance(self.predict_progress_bar, batch_idx + 1)

    def on_predict_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._close("predict")
        self.reset_dataloader_idx_tracker()

    def _advance(self, bar: Any, batches: int) -> None:
        if batches == bar.total or (monotonic() >= self._due and self._is_due(batches, bar)):
            self._update(bar, batches, None)

    def _show_results(self, bar: Any, trainer: Trainer, pl_module: LightningModule) -> None:
        if self.is_enabled:
            self._update(bar, bar.n, self.get_metrics(trainer, pl_module))
