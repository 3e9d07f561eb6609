"""How numbers are kept while training. Each is imported when it is first used."""

from __future__ import annotations

from typing import TYPE_CHECKING

from fulmen.utilities.imports import at_first_use

if TYPE_CHECKING:
    from fulmen.plugins.precision.amp import MixedPrecision as MixedPrecision
    from fulmen.plugins.precision.bitsandbytes import BitsandbytesPrecision as BitsandbytesPrecision
    from fulmen.plugins.precision.deepspeed import DeepSpeedPrecision as DeepSpeedPrecision
    from fulmen.plugins.precision.double import DoublePrecision as DoublePrecision
    from fulmen.plugins.precision.half import HalfPrecision as HalfPrecision
    from fulmen.plugins.precision.precision import Precision as Precision
    from fulmen.plugins.precision.transformer_engine import TransformerEnginePrecision as TransformerEnginePrecision
    from fulmen.plugins.precision.xla import XLAPrecision as XLAPrecision

__all__ = [
    "BitsandbytesPrecision",
    "DeepSpeedPrecision",
    "DoublePrecision",
    "HalfPrecision",
    "MixedPrecision",
    "Precision",
    "TransformerEnginePrecision",
    "XLAPrecision",
]
__getattr__, __dir__ = at_first_use(
    __name__,
    {
        "BitsandbytesPrecision": "bitsandbytes",
        "DeepSpeedPrecision": "deepspeed",
        "DoublePrecision": "double",
        "HalfPrecision": "half",
        "MixedPrecision": "amp",
        "Precision": "precision",
        "TransformerEnginePrecision": "transformer_engine",
        "XLAPrecision": "xla",
    },
)
