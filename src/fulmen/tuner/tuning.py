"""The search for a learning rate and a batch size."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NoReturn

from fulmen.utilities.exceptions import MisconfigurationException

if TYPE_CHECKING:
    from fulmen.core.module import LightningModule
    from fulmen.trainer.trainer import Trainer


class Tuner:
    """Will search hyperparameters for ``trainer``. The name has its place already; the search itself is not there yet.

    Raises:
        MisconfigurationException: a search is asked for.
    """

    def __init__(self, trainer: Trainer) -> None:
        self._trainer = trainer

    def lr_find(self, model: LightningModule, *args: Any, **kwargs: Any) -> NoReturn:
        """Search for a learning rate."""
        raise MisconfigurationException(
            "`Tuner.lr_find` is not there yet. Until then try rates by hand: `for lr in (1e-4, 1e-3, 1e-2): "
            "Trainer(max_steps=100).fit(Model(lr=lr))`."
        )

    def scale_batch_size(self, model: LightningModule, *args: Any, **kwargs: Any) -> NoReturn:
        """Search for a batch size."""
        raise MisconfigurationException(
            "`Tuner.scale_batch_size` is not there yet. Until then double the batch size by hand: "
            "`Trainer(max_steps=3).fit(Model(), DataLoader(data, batch_size=64))`."
        )
