"""What several packages read of the inside of Lightning's Trainer, as views of the parts here.

=========================================  ==========================================
``_accelerator_connector.is_distributed``  optuna-integration, darts
=========================================  ==========================================
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from fulmen.strategies.strategy import Strategy


@dataclass(frozen=True, slots=True)
class AcceleratorView:
    """``trainer._accelerator_connector``."""

    strategy: Strategy

    @property
    def is_distributed(self) -> bool:
        """Whether the strategy is one for several processes, however many there are."""
        from fulmen.strategies.parallel import ParallelStrategy

        return isinstance(self.strategy, ParallelStrategy)
