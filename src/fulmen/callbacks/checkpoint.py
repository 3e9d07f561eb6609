"""The mark of callbacks that write checkpoints."""

from __future__ import annotations

from fulmen.callbacks.callback import Callback


class Checkpoint(Callback):
    """Derive from this to write checkpoints your own way: such callbacks are called after all others."""
