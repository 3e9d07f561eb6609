"""Hyperparameters of a checkpoint as arguments of the command line."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from fulmen.core.plain import from_plain
from fulmen.plugins.io.torch_plugin import read_checkpoint


def hyperparameters_of(path: str, cls: type[Any]) -> dict[str, Any]:
    """The part ``model`` of a configuration that a checkpoint's hyperparameters make; ``{}`` if it has none.

    Args:
        path: a local file. Only tensors and plain data are read from it.
        cls: the module's class, which says of what kind values are.
    """
    checkpoint: Any = read_checkpoint(path, "cpu", True)
    saved = checkpoint.get(cls.CHECKPOINT_HYPER_PARAMS_KEY) if isinstance(checkpoint, Mapping) else None
    if not isinstance(saved, Mapping) or not saved:
        return {}
    kinds = checkpoint.get(cls.CHECKPOINT_HYPER_PARAMS_KINDS)
    values = from_plain(saved, kinds, cls) if isinstance(kinds, Mapping) else dict(saved)
    values.pop("_instantiator", None)
    path_of_class = values.pop("_class_path", None)
    if path_of_class is None:
        return values
    return {"class_path": path_of_class, "dict_kwargs": values}
