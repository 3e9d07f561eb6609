"""What a LightningModule sees of a Fabric as its ``trainer``."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from fulmen.fabric.fabric import Fabric


class FabricAsTrainer:
    """``self.trainer`` of a LightningModule that Fabric has set up: all that Fabric has, under the names of both.

    Args:
        fabric: the Fabric.
    """

    gradient_clip_val: float | None = None
    gradient_clip_algorithm: str | None = None
    lr_scheduler_configs: tuple[Any, ...] = ()

    def __init__(self, fabric: Fabric) -> None:
        self.fabric = fabric

    @property
    def wrapped_optimizers(self) -> list[Any]:
        """The optimizers that were set up."""
        return self.fabric.optimizers_set_up

    @property
    def optimizers(self) -> list[Any]:
        """The same, as they came."""
        return [one.optimizer for one in self.fabric.optimizers_set_up]

    @property
    def precision_plugin(self) -> Any:
        return self.fabric.strategy.precision_plugin

    def __getattr__(self, name: str) -> Any:
        if name.startswith("_") or not hasattr(self.fabric, name):
            raise AttributeError(
                f"`self.trainer.{name}` is not there: a Fabric runs this module, and no Trainer. Keep what you need of "
                "it in your loop, or run the module by `Trainer().fit(module)`."
            )
        return getattr(self.fabric, name)
