"""Fulmen: a PyTorch training framework."""

__version__ = "0.1.0"
