"""What users do with a trainer, each written once: Lightning's recordings and our own runs come from the same text."""

from . import ending, evaluating, fitting, optimizing, resuming
from .registry import SCENARIOS

__all__ = ["SCENARIOS", "ending", "evaluating", "fitting", "optimizing", "resuming"]
