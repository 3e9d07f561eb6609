"""How numbers are kept while training."""

from fulmen.plugins.precision.amp import MixedPrecision
from fulmen.plugins.precision.double import DoublePrecision
from fulmen.plugins.precision.half import HalfPrecision
from fulmen.plugins.precision.precision import Precision

__all__ = ["DoublePrecision", "HalfPrecision", "MixedPrecision", "Precision"]
