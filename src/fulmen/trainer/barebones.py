"""``Trainer(barebones=True)``: nothing but the loop, to measure the rest."""

from __future__ import annotations

from typing import Any

_OFF: dict[str, tuple[Any, ...]] = {
    "enable_checkpointing": (None, False),
    "logger": (None, False),
    "enable_progress_bar": (None, False),
    "log_every_n_steps": (None, 0),
    "enable_model_summary": (None, False),
    "num_sanity_val_steps": (None, 0),
    "fast_dev_run": (False, 0),
    "detect_anomaly": (False,),
    "profiler": (None,),
}


def refuse_with_barebones(arguments: dict[str, Any]) -> None:
    """Refuse what barebones switches off.

    Raises:
        ValueError: one of them was asked for.
    """
    for name, off in _OFF.items():
        value = arguments[name]
        if not any(value is allowed or (type(value) is type(allowed) and value == allowed) for allowed in off):
            raise ValueError(
                f"`Trainer(barebones=True, {name}={value!r})`: barebones switches off everything that costs time, "
                f"`{name}` too. Leave out one of them."
            )
