"""Stop when the loss is suddenly far from the losses before."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from torch import Tensor

from fulmen.callbacks.callback import Callback
from fulmen.utilities import spike
from fulmen.utilities.exceptions import MisconfigurationException

if TYPE_CHECKING:
    from fulmen.core.module import LightningModule
    from fulmen.trainer.trainer import Trainer


class SpikeDetection(spike.SpikeDetection, Callback):
    """Looks at the loss of each training batch, and ends the run by
    :class:`~fulmen.utilities.spike.TrainingSpikeException` when it is a spike.

    Arguments, what a spike is, and the file in which batches are noted are those of
    :class:`fulmen.utilities.spike.SpikeDetection`; the file lies in ``trainer.default_root_dir``, unless
    ``exclude_batches_path`` says otherwise. A batch that ``training_step`` left out (None) is not looked at. A run that
    is resumed goes on with the losses that it has seen.

    Raises:
        MisconfigurationException: in manual optimization, if ``training_step`` returns no loss.
    """

    def on_train_batch_end(  # type: ignore[override]
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        outputs = outputs if isinstance(outputs, Mapping) else {"loss": outputs}
        loss = outputs.get("loss")
        if isinstance(loss, Tensor) and "loss_sum" not in outputs:
            loss = loss * trainer.progress.window  # a mean comes as its share of the accumulation window
        if loss is None and not pl_module.automatic_optimization and trainer.world_size == 1:
            raise MisconfigurationException(
                "SpikeDetection needs the loss of each batch, and `training_step` returned none. In manual "
                "optimization, too, write `return loss`."
            )
        self._look(trainer.strategy, loss, batch_idx, trainer.default_root_dir)
