"""Where a run happens and how its processes work together. Each is imported when it is first used."""

from __future__ import annotations

from typing import TYPE_CHECKING

from fulmen.utilities.imports import at_first_use

if TYPE_CHECKING:
    from fulmen.strategies.ddp import DDPStrategy as DDPStrategy
    from fulmen.strategies.deepspeed import DeepSpeedStrategy as DeepSpeedStrategy
    from fulmen.strategies.fsdp import FSDPStrategy as FSDPStrategy
    from fulmen.strategies.model_parallel import ModelParallelStrategy as ModelParallelStrategy
    from fulmen.strategies.parallel import ParallelStrategy as ParallelStrategy
    from fulmen.strategies.registry import StrategyRegistry as StrategyRegistry
    from fulmen.strategies.single_device import SingleDeviceStrategy as SingleDeviceStrategy
    from fulmen.strategies.single_xla import SingleDeviceXLAStrategy as SingleDeviceXLAStrategy
    from fulmen.strategies.strategy import Strategy as Strategy
    from fulmen.strategies.xla import XLAStrategy as XLAStrategy

__all__ = [
    "DDPStrategy",
    "DeepSpeedStrategy",
    "FSDPStrategy",
    "ModelParallelStrategy",
    "ParallelStrategy",
    "SingleDeviceStrategy",
    "SingleDeviceXLAStrategy",
    "Strategy",
    "StrategyRegistry",
    "XLAStrategy",
]
__getattr__, __dir__ = at_first_use(
    __name__,
    {
        "DDPStrategy": "ddp",
        "DeepSpeedStrategy": "deepspeed",
        "FSDPStrategy": "fsdp",
        "ModelParallelStrategy": "model_parallel",
        "ParallelStrategy": "parallel",
        "SingleDeviceStrategy": "single_device",
        "SingleDeviceXLAStrategy": "single_xla",
        "Strategy": "strategy",
        "StrategyRegistry": "registry",
        "XLAStrategy": "xla",
    },
)
