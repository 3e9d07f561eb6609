"""Write predictions to wherever you like, while or after they are made."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Literal

from fulmen.callbacks.callback import Callback
from fulmen.utilities.apply_func import move_data_to_device
from fulmen.utilities.enums import LightningEnum
from fulmen.utilities.exceptions import MisconfigurationException
from fulmen.utilities.signature_utils import is_param_in_hook_signature

if TYPE_CHECKING:
    from fulmen.core.module import LightningModule
    from fulmen.trainer.trainer import Trainer


class WriteInterval(LightningEnum):
    """When a :class:`BasePredictionWriter` writes."""

    BATCH = "batch"
    EPOCH = "epoch"
    BATCH_AND_EPOCH = "batch_and_epoch"

    @property
    def on_batch(self) -> bool:
        return self in (WriteInterval.BATCH, WriteInterval.BATCH_AND_EPOCH)

    @property
    def on_epoch(self) -> bool:
        return self in (WriteInterval.EPOCH, WriteInterval.BATCH_AND_EPOCH)


class BasePredictionWriter(Callback):
    """Derive from this to write predictions: override one of the two ``write_*`` methods, or both.

    Args:
        write_interval: ``"batch"``: :meth:`write_on_batch_end` after each batch; ``"epoch"``:
            :meth:`write_on_epoch_end` once, when all are made; ``"batch_and_epoch"``: both.

    Raises:
        MisconfigurationException: ``write_interval`` is none of these.
        NotImplementedError: when predicting begins, if ``predict_step`` takes a ``dataloader_iter``: it fetches the
            batches itself, so nobody knows which samples they hold.

    Example::

        class Writer(BasePredictionWriter):
            def write_on_epoch_end(self, trainer, pl_module, predictions, batch_indices):
                torch.save((predictions, batch_indices), f"predictions_{trainer.global_rank}.pt")

        trainer.predict(model, loader, return_predictions=False)
    """

    def __init__(self, write_interval: Literal["batch", "epoch", "batch_and_epoch"] = "batch") -> None:
        if write_interval not in tuple(WriteInterval):
            raise MisconfigurationException(
                f"{type(self).__name__}(write_interval={write_interval!r}) is not known: write one of "
                f"{', '.join(repr(interval.value) for interval in WriteInterval)}."
            )
        self.interval = WriteInterval(write_interval)
        self._predictions: list[list[Any]] = []

    def write_on_batch_end(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        prediction: Any,
        batch_indices: Sequence[int] | None,
        batch: Any,
        batch_idx: int,
        dataloader_idx: int,
    ) -> None:
        """Override to write one batch.

        Args:
            trainer: the trainer.
            pl_module: the module.
            prediction: what ``predict_step`` returned.
            batch_indices: positions in the dataset of the samples in the batch; None if the loader does not tell.
            batch: the batch.
            batch_idx: its position in its loader; with several processes, each of which predicts some of the batches,
                no two have the same.
            dataloader_idx: the position of the loader among several.
        """
        raise NotImplementedError(f"{type(self).__name__} writes per batch, so it must have `write_on_batch_end`.")

    def write_on_epoch_end(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        predictions: Sequence[Any],
        batch_indices: Sequence[Any],
    ) -> None:
        """Override to write everything at once.

        Args:
            trainer: the trainer.
            pl_module: the module.
            predictions: what ``predict_step`` returned in this process, on the CPU: a list over batches, or with
                several loaders a list of such lists. Each process writes its own, to a place of its own.
            batch_indices: positions in the dataset: a list over loaders of lists over batches of lists over samples.
        """
        raise NotImplementedError(f"{type(self).__name__} writes per epoch, so it must have `write_on_epoch_end`.")

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        if stage == "predict" and is_param_in_hook_signature(pl_module.predict_step, "dataloader_iter", explicit=True):
            raise NotImplementedError(
                f"{type(self).__name__} cannot tell which samples are predicted, since `predict_step(dataloader_iter)` "
                f"fetches the batches itself. Write `predict_step(self, batch, batch_idx)`."
            )

    def on_predict_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._predictions = []

    def on_predict_batch_end(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        if self.interval.on_batch:
            indices, place = trainer.data.batch_indices, trainer.data.place_in_loader(batch_idx)
            self.write_on_batch_end(trainer, pl_module, outputs, indices, batch, place, dataloader_idx)
        if self.interval.on_epoch and not trainer.keeps_predictions:
            while len(self._predictions) <= dataloader_idx:
                self._predictions.append([])
            self._predictions[dataloader_idx].append(move_data_to_device(outputs, "cpu"))

    def on_predict_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if not self.interval.on_epoch:
            return
        indices = trainer.data.epoch_batch_indices
        predictions, self._predictions = self._predictions, []
        predictions += [[] for _ in range(len(indices) - len(predictions))]  # loaders without a batch
        result: Any = predictions if len(indices) > 1 else predictions[0]
        if trainer.keeps_predictions:
            result = trainer.predictions
        self.write_on_epoch_end(trainer, pl_module, result, indices)
