"""What all progress bars have in common: descriptions, totals, metrics and the choice of the default one."""

from __future__ import annotations

import os
import sys
from typing import TYPE_CHECKING, Any

from fulmen.callbacks.callback import Callback
from fulmen.utilities.rank_zero import rank_zero_warn

if TYPE_CHECKING:
    from collections.abc import Sequence

    from fulmen.core.module import LightningModule
    from fulmen.trainer.trainer import Trainer


class ProgressBar(Callback):
    """Derive from this to show progress your own way: write the hooks you need and read from here what to show.

    On every rank but the first the bar is disabled when a run begins; ask :attr:`is_enabled` before you show something.

    A small bar of one's own::

        class Dots(ProgressBar):
            def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx):
                if self.is_enabled:
                    print(".", end="", flush=True)
    """

    # class attributes, so that a subclass whose constructor does not call this one works all the same
    _trainer: Trainer | None = None
    _enabled: bool = True
    _current_eval_dataloader_idx: int | None = None

    @property
    def trainer(self) -> Trainer:
        """The trainer of the run that is going on.

        Raises:
            TypeError: outside a run. Inside hooks the argument ``trainer`` is always there.
        """
        if self._trainer is None:
            raise TypeError(
                f"`{type(self).__name__}.trainer` was read outside a run: a progress bar knows its trainer from "
                "`setup` to `teardown` only. In a hook use its argument `trainer`."
            )
        return self._trainer

    @property
    def is_enabled(self) -> bool:
        """Whether anything is shown."""
        return self._enabled

    @property
    def is_disabled(self) -> bool:
        """The opposite of :attr:`is_enabled`."""
        return not self.is_enabled

    @property
    def sanity_check_description(self) -> str:
        return "Sanity Checking"

    @property
    def train_description(self) -> str:
        return "Training"

    @property
    def validation_description(self) -> str:
        return "Validation"

    @property
    def test_description(self) -> str:
        return "Testing"

    @property
    def predict_description(self) -> str:
        return "Predicting"

    @property
    def total_train_batches(self) -> int | float:
        """The number of training batches of the epoch that begins; ``inf`` when the data has no length.

        With ``max_epochs=-1`` and ``max_steps`` the epoch in which the steps run out is shorter.
        """
        trainer = self.trainer
        batches = trainer.num_training_batches
        if trainer.max_epochs == -1 and trainer.max_steps > 0:
            accumulate, done = trainer.accumulate_grad_batches, trainer.progress.batches_done
            remaining_steps = max(trainer.max_steps - trainer.global_step, 0)
            return min(batches, done - done % accumulate + remaining_steps * accumulate)
        return batches

    @property
    def total_val_batches_current_dataloader(self) -> int | float:
        """The number of batches of the validation loader that is running (in the sanity check: those of the check)."""
        trainer = self.trainer
        return self._of_current_loader(
            trainer.num_sanity_val_batches if trainer.sanity_checking else trainer.num_val_batches
        )

    @property
    def total_test_batches_current_dataloader(self) -> int | float:
        """The number of batches of the test loader that is running."""
        return self._of_current_loader(self.trainer.num_test_batches)

    @property
    def total_predict_batches_current_dataloader(self) -> int | float:
        """The number of batches of the predict loader that is running."""
        return self._of_current_loader(self.trainer.num_predict_batches)

    @property
    def total_val_batches(self) -> int | float:
        """The number of validation batches over all loaders; 0 when nothing is validated."""
        return sum(self.trainer.num_val_batches) if self.trainer.enable_validation else 0

    def _of_current_loader(self, batches: Sequence[int | float]) -> int | float:
        return batches[self._current_eval_dataloader_idx or 0]

    def has_dataloader_changed(self, dataloader_idx: int) -> bool:
        """Remember ``dataloader_idx``; True when it is another one than at the last call."""
        changed = self._current_eval_dataloader_idx != dataloader_idx
        self._current_eval_dataloader_idx = dataloader_idx
        return changed

    def reset_dataloader_idx_tracker(self) -> None:
        """Forget which loader was running."""
        self._current_eval_dataloader_idx = None

    def disable(self) -> None:
        """Show nothing from now on."""
        self._enabled = False

    def enable(self) -> None:
        """Show again what there is to show."""
        self._enabled = True

    def print(self, *args: Any, **kwargs: Any) -> None:
        """Print as ``print`` does, without disturbing the bar."""
        print(*args, **kwargs)

    def get_metrics(
        self, trainer: Trainer, pl_module: LightningModule
    ) -> dict[str, int | str | float | dict[str, float]]:
        """What is shown beside the bar: ``v_num`` (the logger's version) and what was logged with ``prog_bar=True``.

        Override this to add, change or remove entries. Reading the logged values waits for the device, so bars call
        this only when they are about to show something.
        """
        standard = get_standard_metrics(trainer)
        logged = trainer.progress_bar_metrics
        if clash := standard.keys() & logged.keys():
            rank_zero_warn(
                f"The progress bar shows {', '.join(sorted(clash))} by itself; the metric of the same name that is "
                "logged with `prog_bar=True` takes its place. Log it under another name to see both."
            )
        return {**standard, **logged}

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        self._trainer = trainer
        if not trainer.is_global_zero:
            self.disable()

    def teardown(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        self._trainer = None

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        self._trainer = None


def get_standard_metrics(trainer: Trainer) -> dict[str, int | str]:
    """``{"v_num": version}`` of the loggers, or ``{}``: the last four characters of a text, several joined by ``_``."""
    versions = list(dict.fromkeys(logger.version for logger in trainer.loggers))
    version = versions[0] if len(versions) == 1 else "_".join(str(version) for version in versions)
    if version is None or version == "":
        return {}
    return {"v_num": version[-4:] if isinstance(version, str) else version}


def in_notebook() -> bool:
    """Whether this process is the kernel of a notebook."""
    ipython = sys.modules.get("IPython")
    shell = ipython.get_ipython() if ipython is not None else None
    return type(shell).__name__ == "ZMQInteractiveShell" or "google.colab" in type(shell).__module__


def default_progress_bar() -> ProgressBar:
    """The bar that is used when none is given.

    In a terminal or a notebook :class:`~fulmen.callbacks.progress.rich_progress.RichProgressBar`; where lines cannot be
    redrawn (a file, a pipe, the log of a cluster) :class:`~fulmen.callbacks.progress.plain_progress.PlainProgress`.
    """
    from fulmen.callbacks.progress.plain_progress import PlainProgress
    from fulmen.callbacks.progress.rich_progress import RichProgressBar

    terminal = sys.stdout is not None and sys.stdout.isatty() and os.environ.get("TERM", "") not in ("dumb", "unknown")
    return RichProgressBar() if terminal or in_notebook() else PlainProgress()
