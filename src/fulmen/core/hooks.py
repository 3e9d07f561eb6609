"""Every hook there is: its empty body, what it is for, and its line in the table :data:`HOOKS`.

A hook that nobody wrote is never called: the plan (:mod:`fulmen.loops.plan`) compares what an object has with the empty
bodies below and flattens each event into the list of those who really listen.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from fulmen.utilities.apply_func import move_data_to_device
from fulmen.utilities.exceptions import MisconfigurationException

if TYPE_CHECKING:
    import torch
    from torch import Tensor
    from torch.optim import Optimizer

Log = Literal["no", "train", "eval", "epoch"]
Owner = Literal["callback", "module", "datamodule", "strategy"]


@dataclass(frozen=True, slots=True)
class Hook:
    """One line of the table.

    Attributes:
        name: the method's name.
        owners: who may write it, in the order in which they are called.
        stage: the verb or stage in which it is called; ``"any"`` for those of every run.
        log: whether ``self.log`` may be called inside it. ``"train"`` and ``"eval"`` allow values per step and per
            epoch (the default is per step in training, per epoch in evaluation); ``"epoch"`` allows values per epoch
            only; ``"no"`` allows none.
    """

    name: str
    owners: tuple[Owner, ...]
    stage: Literal["any", "fit", "validate", "test", "predict"]
    log: Log


def _rows(owners: tuple[Owner, ...], stage: Any, log: Log, *names: str) -> list[Hook]:
    return [Hook(name, owners, stage, log) for name in names]


_MODULE: tuple[Owner, ...] = ("module",)
_CALLBACK: tuple[Owner, ...] = ("callback",)
_BOTH: tuple[Owner, ...] = ("callback", "module")
_ALL: tuple[Owner, ...] = ("callback", "module", "strategy")
_DATA: tuple[Owner, ...] = ("datamodule", "module")

#: Every hook, in the order in which a run first meets it.
HOOKS: tuple[Hook, ...] = (
    # a run begins
    *_rows(_MODULE, "any", "no", "configure_callbacks"),
    *_rows(_DATA, "any", "no", "prepare_data"),
    *_rows(("datamodule", "callback", "module"), "any", "no", "setup"),
    *_rows(_MODULE, "any", "no", "configure_model"),
    *_rows(("module", "callback"), "any", "no", "on_load_checkpoint"),
    *_rows(("datamodule", "callback"), "any", "no", "load_state_dict"),
    *_rows(_MODULE, "fit", "no", "configure_optimizers"),
    *_rows(_BOTH, "fit", "no", "on_fit_start"),
    *_rows(_CALLBACK, "fit", "no", "on_sanity_check_start", "on_sanity_check_end"),
    # data
    *_rows(_DATA, "any", "no", "train_dataloader", "val_dataloader", "test_dataloader", "predict_dataloader"),
    *_rows(_DATA, "any", "no", "on_before_batch_transfer", "transfer_batch_to_device", "on_after_batch_transfer"),
    # training
    *_rows(_ALL, "fit", "epoch", "on_train_start"),
    *_rows(_BOTH, "fit", "epoch", "on_train_epoch_start"),
    *_rows(_ALL, "fit", "train", "on_train_batch_start"),
    *_rows(_MODULE, "fit", "train", "optimizer_step", "training_step"),
    *_rows(_BOTH, "fit", "train", "on_before_zero_grad"),
    *_rows(_MODULE, "fit", "train", "optimizer_zero_grad"),
    *_rows(_BOTH, "fit", "train", "on_before_backward"),
    *_rows(_MODULE, "fit", "train", "backward"),
    *_rows(_BOTH, "fit", "train", "on_after_backward", "on_before_optimizer_step"),
    *_rows(_MODULE, "fit", "train", "configure_gradient_clipping"),
    *_rows(_MODULE, "fit", "no", "lr_scheduler_step"),
    *_rows(_BOTH, "fit", "train", "on_train_batch_end"),
    *_rows(_MODULE, "fit", "no", "on_validation_model_zero_grad"),
    # validation
    *_rows(_MODULE, "validate", "no", "on_validation_model_eval"),
    *_rows(_ALL, "validate", "epoch", "on_validation_start"),
    *_rows(_BOTH, "validate", "epoch", "on_validation_epoch_start"),
    *_rows(_BOTH, "validate", "eval", "on_validation_batch_start"),
    *_rows(_MODULE, "validate", "eval", "validation_step"),
    *_rows(_BOTH, "validate", "eval", "on_validation_batch_end"),
    *_rows(_BOTH, "validate", "epoch", "on_validation_epoch_end"),
    *_rows(_ALL, "validate", "no", "on_validation_end"),
    *_rows(_MODULE, "validate", "no", "on_validation_model_train"),
    # the end of an epoch and of the training
    *_rows(_BOTH, "fit", "epoch", "on_train_epoch_end"),
    *_rows(("datamodule", "callback"), "fit", "no", "state_dict"),
    *_rows(_BOTH, "fit", "no", "on_save_checkpoint"),
    *_rows(_ALL, "fit", "no", "on_train_end"),
    *_rows(_BOTH, "fit", "no", "on_fit_end"),
    # test
    *_rows(_MODULE, "test", "no", "on_test_model_eval"),
    *_rows(_ALL, "test", "epoch", "on_test_start"),
    *_rows(_BOTH, "test", "epoch", "on_test_epoch_start"),
    *_rows(_BOTH, "test", "eval", "on_test_batch_start"),
    *_rows(_MODULE, "test", "eval", "test_step"),
    *_rows(_BOTH, "test", "eval", "on_test_batch_end"),
    *_rows(_BOTH, "test", "epoch", "on_test_epoch_end"),
    *_rows(_ALL, "test", "no", "on_test_end"),
    *_rows(_MODULE, "test", "no", "on_test_model_train"),
    # predict
    *_rows(_MODULE, "predict", "no", "on_predict_model_eval"),
    *_rows(_ALL, "predict", "no", "on_predict_start"),
    *_rows(_BOTH, "predict", "no", "on_predict_epoch_start", "on_predict_batch_start"),
    *_rows(_MODULE, "predict", "no", "predict_step"),
    *_rows(_BOTH, "predict", "no", "on_predict_batch_end", "on_predict_epoch_end"),
    *_rows(_ALL, "predict", "no", "on_predict_end"),
    # a run ends
    *_rows(("callback", "datamodule", "strategy"), "any", "no", "on_exception"),
    *_rows(("datamodule", "callback", "module"), "any", "no", "teardown"),
)

#: The table by name.
HOOK: dict[str, Hook] = {hook.name: hook for hook in HOOKS}


class ModelHooks:
    """The hooks that a :class:`~fulmen.core.module.LightningModule` may write. Callbacks are called before it."""

    def on_fit_start(self) -> None:
        """Called once when ``fit`` begins, after ``setup`` and ``configure_optimizers``; the model is on its device."""

    def on_fit_end(self) -> None:
        """Called once when ``fit`` has ended; the model is back on the CPU."""

    def on_train_start(self) -> None:
        """Called once before the first training epoch, after the sanity check."""

    def on_train_end(self) -> None:
        """Called once after the last training epoch; ``current_epoch`` already counts all of them."""

    def on_validation_start(self) -> None:
        """Called when a validation run begins, also within ``fit`` and the sanity check."""

    def on_validation_end(self) -> None:
        """Called when a validation run has ended. Nothing can be logged here: the values are already written."""

    def on_test_start(self) -> None:
        """Called when testing begins."""

    def on_test_end(self) -> None:
        """Called when testing has ended."""

    def on_predict_start(self) -> None:
        """Called when predicting begins."""

    def on_predict_end(self) -> None:
        """Called when predicting has ended."""

    def on_train_batch_start(self, batch: Any, batch_idx: int) -> int | None:
        """Called before each training step, with the batch already on the device.

        Returns:
            ``-1`` to skip this batch and the rest of the epoch, anything else to go on.
        """

    def on_train_batch_end(self, outputs: Any, batch: Any, batch_idx: int) -> None:
        """Called after each training batch.

        Args:
            outputs: what ``training_step`` returned, detached, as a dict with the key ``loss`` (divided by the number
                of batches in the accumulation window); ``{}`` if it returned None.
            batch: the batch, on the device.
            batch_idx: its position in the epoch, from 0.
        """

    def on_validation_batch_start(self, batch: Any, batch_idx: int, dataloader_idx: int = 0) -> None:
        """Called before each ``validation_step``."""

    def on_validation_batch_end(self, outputs: Any, batch: Any, batch_idx: int, dataloader_idx: int = 0) -> None:
        """Called after each ``validation_step``; ``outputs`` is what it returned."""

    def on_test_batch_start(self, batch: Any, batch_idx: int, dataloader_idx: int = 0) -> None:
        """Called before each ``test_step``."""

    def on_test_batch_end(self, outputs: Any, batch: Any, batch_idx: int, dataloader_idx: int = 0) -> None:
        """Called after each ``test_step``; ``outputs`` is what it returned."""

    def on_predict_batch_start(self, batch: Any, batch_idx: int, dataloader_idx: int = 0) -> None:
        """Called before each ``predict_step``."""

    def on_predict_batch_end(self, outputs: Any, batch: Any, batch_idx: int, dataloader_idx: int = 0) -> None:
        """Called after each ``predict_step``; ``outputs`` is what it returned."""

    def on_validation_model_zero_grad(self) -> None:
        """Free the gradients before a validation within ``fit`` begins; not called in mid-accumulation."""
        self.zero_grad()  # type: ignore[attr-defined]

    def on_validation_model_eval(self) -> None:
        """Put the model into evaluation mode before validation."""
        self.trainer.model.eval()  # type: ignore[attr-defined]

    def on_validation_model_train(self) -> None:
        """Put the model back into training mode after validation.

        When nobody writes it, each sub-module gets back the mode that it had, so frozen ones stay in evaluation mode.
        """
        self.trainer.model.train()  # type: ignore[attr-defined]

    def on_test_model_eval(self) -> None:
        """Put the model into evaluation mode before testing."""
        self.trainer.model.eval()  # type: ignore[attr-defined]

    def on_test_model_train(self) -> None:
        """Put the model back into training mode after testing (see :meth:`on_validation_model_train`)."""
        self.trainer.model.train()  # type: ignore[attr-defined]

    def on_predict_model_eval(self) -> None:
        """Put the model into evaluation mode before predicting."""
        self.trainer.model.eval()  # type: ignore[attr-defined]

    def on_train_epoch_start(self) -> None:
        """Called when a training epoch begins."""

    def on_train_epoch_end(self) -> None:
        """Called when a training epoch has ended, before checkpoints and early stopping look at its metrics."""

    def on_validation_epoch_start(self) -> None:
        """Called before the first validation batch."""

    def on_validation_epoch_end(self) -> None:
        """Called after the last validation batch: the place to log values over the whole validation set."""

    def on_test_epoch_start(self) -> None:
        """Called before the first test batch."""

    def on_test_epoch_end(self) -> None:
        """Called after the last test batch."""

    def on_predict_epoch_start(self) -> None:
        """Called before the first batch to predict."""

    def on_predict_epoch_end(self) -> None:
        """Called after the last predicted batch."""

    def on_before_zero_grad(self, optimizer: Optimizer) -> None:
        """Called before the gradients are set to zero: at the first batch of each accumulation window."""

    def on_before_backward(self, loss: Tensor) -> None:
        """Called before ``backward`` with the loss, already divided by the batches in the accumulation window."""

    def on_after_backward(self) -> None:
        """Called after ``backward``: gradients are there, not yet clipped."""

    def on_before_optimizer_step(self, optimizer: Optimizer) -> None:
        """Called before each optimizer step and before clipping: the place to look at gradients."""

    def configure_model(self) -> None:
        """Build (or wrap) layers here to have them made on the device and in the precision they will be used in.

        Called at the beginning of every run, so it must do nothing when the layers already exist.
        """


class DataHooks:
    """The hooks that deliver data; a datamodule and a module may write them, and the datamodule's win."""

    #: prepare data on every node (True) or only on the first (False)
    prepare_data_per_node: bool = True
    #: do not complain when a loader is empty on some processes
    allow_zero_length_dataloader_with_multiple_devices: bool = False

    def prepare_data(self) -> None:
        """Download or convert data. Called on one process per node; do not assign state here."""

    def setup(self, stage: str) -> None:
        """Called on every process when a run begins; ``stage`` is ``"fit"``, ``"validate"``, ``"test"`` or
        ``"predict"``.
        """

    def teardown(self, stage: str) -> None:
        """Called on every process when a run has ended."""

    def train_dataloader(self) -> Any:
        """Return what ``fit`` trains on: a ``DataLoader``, any iterable, or a list or dict of them."""
        raise _no_loader(self, "train_dataloader", "fit")

    def val_dataloader(self) -> Any:
        """Return what is validated on; several loaders are run one after another."""
        raise _no_loader(self, "val_dataloader", "validate")

    def test_dataloader(self) -> Any:
        """Return what is tested on; several loaders are run one after another."""
        raise _no_loader(self, "test_dataloader", "test")

    def predict_dataloader(self) -> Any:
        """Return what is predicted; several loaders are run one after another."""
        raise _no_loader(self, "predict_dataloader", "predict")

    def transfer_batch_to_device(self, batch: Any, device: torch.device, dataloader_idx: int) -> Any:
        """Move a batch to ``device``. The default moves whatever has a method ``to``, at any depth of the batch."""
        return move_data_to_device(batch, device)

    def on_before_batch_transfer(self, batch: Any, dataloader_idx: int) -> Any:
        """Change a batch on the CPU before it is moved; return the batch."""
        return batch

    def on_after_batch_transfer(self, batch: Any, dataloader_idx: int) -> Any:
        """Change a batch on the device after it was moved (augmentation, say); return the batch."""
        return batch


def _no_loader(owner: object, hook: str, verb: str) -> MisconfigurationException:
    return MisconfigurationException(
        f"`{verb}` needs data, but {type(owner).__name__} has no `{hook}`. "
        f"Define `{hook}(self)`, or pass loaders: `trainer.{verb}(model, dataloader)`."
    )


class CheckpointHooks:
    """The hooks with which a module adds to a checkpoint and reads it back."""

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Add to (or change) ``checkpoint`` in place before it is written; the last to be called."""

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Read from (or change) ``checkpoint`` before the module's ``state_dict`` is loaded."""
