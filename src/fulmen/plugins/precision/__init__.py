"""How numbers are kept while training."""

from fulmen.plugins.precision.amp import MixedPrecision
from fulmen.plugins.precision.precision import Precision
from fulmen.plugins.precision.true import DoublePrecision, HalfPrecision

__all__ = ["DoublePrecision", "HalfPrecision", "MixedPrecision", "Precision"]
