"""Find the largest batch size that fits when a run begins, and run with it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from fulmen.callbacks.callback import Callback
from fulmen.tuner.bar import may_show
from fulmen.tuner.batch_size_scaling import (
    MODES,
    BatchSizeSearch,
    held_batch_size,
    refuse_processes,
    search_batch_size,
    tell_size,
)
from fulmen.utilities.exceptions import MisconfigurationException
from fulmen.utilities.rank_zero import rank_zero_info, rank_zero_warn

if TYPE_CHECKING:
    from fulmen.core.module import LightningModule
    from fulmen.trainer.trainer import Trainer


class BatchSizeFinder(Callback):
    """Searches the largest batch size that fits into memory when ``fit``, ``validate``, ``test`` or ``predict`` begins:
    the run that follows is the run that begins with this size.

    A ``fit`` that is resumed searches nothing: it goes on with its size. To search at other times, override
    ``on_fit_start`` so that it does nothing, and call :meth:`scale_batch_size` in ``on_train_epoch_start``.

    Args:
        mode: ``"power"``: double the size until memory runs out, and take the last one that fitted. ``"binsearch"``:
            then go on halfway between what fits and what does not.
        steps_per_trial: optimizer steps, or batches, of each trial.
        init_val: the first size.
        max_trials: end after so many trials.
        batch_arg_name: the attribute of the module, the datamodule or their hparams that the loaders are made with.
        margin: with ``"binsearch"``, take this fraction less than what fits.
        max_val: the largest size to try. The number of samples is never exceeded.

    Attributes:
        optimal_batch_size: what was found last; None before.

    Raises:
        ValueError: an argument is none of its allowed values.
    """

    SUPPORTED_MODES = MODES
    _calling_place = -2  # before the learning rate, which depends on it

    def __init__(
        self,
        mode: str = "power",
        steps_per_trial: int = 3,
        init_val: int = 2,
        max_trials: int = 25,
        batch_arg_name: str = "batch_size",
        margin: float = 0.05,
        max_val: int = 8192,
    ) -> None:
        mode = mode.lower() if isinstance(mode, str) else mode
        self._search = BatchSizeSearch(mode, steps_per_trial, init_val, max_trials, batch_arg_name, margin, max_val)
        self._size: int | None = None  # that the fit has
        self.optimal_batch_size: int | None = None

    def scale_batch_size(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Search now, and let the run have what is found; to be called when a run or an epoch begins.

        Raises:
            MisconfigurationException: nobody has the attribute, or the loaders cannot be made with another size.
        """
        if trainer.fast_dev_run:
            rank_zero_warn("BatchSizeFinder does nothing with `fast_dev_run`.")
            return
        refuse_processes(trainer, MisconfigurationException)
        verb = str(trainer.state.fn)
        held = held_batch_size(pl_module, trainer.datamodule, self._search)
        size = search_batch_size(trainer, verb, self._search, held, may_show(trainer))
        if size is None:
            return
        self.optimal_batch_size = size
        self._set(trainer, pl_module, size)
        tell_size(size, held)

    def _set(self, trainer: Trainer, pl_module: LightningModule, size: int) -> None:
        held_batch_size(pl_module, trainer.datamodule, self._search).set(size)
        if trainer.state.fn != "fit":
            trainer.data.request_anew(str(trainer.state.fn))
            return
        self._size = size
        if not trainer.progress.in_epoch:
            trainer.data.loaders.clear()
            trainer._configure_anew()  # which may depend on the number of batches
            return
        for stage in ("train", "validate"):
            trainer.data.request_anew(stage)
        trainer.data.start_epoch()
        trainer.set_validation_rhythm()

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if trainer.loaded_ckpt_path is None:
            self.scale_batch_size(trainer, pl_module)
        elif self._size is not None:  # the run that goes on has found it
            self._set(trainer, pl_module, self._size)
        else:
            rank_zero_info("the run goes on from %s with its own batch size", trainer.loaded_ckpt_path)

    def on_validation_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if trainer.state.fn == "validate":
            self.scale_batch_size(trainer, pl_module)

    def on_test_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self.scale_batch_size(trainer, pl_module)

    def on_predict_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self.scale_batch_size(trainer, pl_module)

    def state_dict(self) -> dict[str, Any]:
        return {} if self._size is None else {"batch_size": self._size}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self._size = state_dict["batch_size"]
