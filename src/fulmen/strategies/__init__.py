"""Where a run happens and how its processes work together."""

from fulmen.strategies.single_device import SingleDeviceStrategy
from fulmen.strategies.single_xla import SingleDeviceXLAStrategy
from fulmen.strategies.strategy import Strategy

__all__ = ["SingleDeviceStrategy", "SingleDeviceXLAStrategy", "Strategy"]
