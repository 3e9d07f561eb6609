"""How numbers are kept while training."""

from fulmen.plugins.precision.amp import MixedPrecision
from fulmen.plugins.precision.bitsandbytes import BitsandbytesPrecision
from fulmen.plugins.precision.double import DoublePrecision
from fulmen.plugins.precision.half import HalfPrecision
from fulmen.plugins.precision.precision import Precision
from fulmen.plugins.precision.transformer_engine import TransformerEnginePrecision
from fulmen.plugins.precision.xla import XLAPrecision

__all__ = [
    "BitsandbytesPrecision",
    "DoublePrecision",
    "HalfPrecision",
    "MixedPrecision",
    "Precision",
    "TransformerEnginePrecision",
    "XLAPrecision",
]
