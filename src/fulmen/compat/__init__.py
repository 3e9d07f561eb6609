"""Code that was written for Lightning, run on Fulmen: ``import lightning`` gives Fulmen's own classes."""

from __future__ import annotations

from fulmen.compat.aliases import install, uninstall
from fulmen.compat.class_paths import resolve

__all__ = ["install", "resolve", "uninstall"]
