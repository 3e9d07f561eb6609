"""Who searches: learning rates and batch sizes."""

from fulmen.tuner.tuning import Tuner

__all__ = ["Tuner"]
