"""Hyperparameters without a plain form, pickled beside the plain ones for those who load with ``weights_only=False``.

It is done for code that was written for Lightning, which keeps objects among its hyperparameters and expects them back.
In the file a pickle is a tensor of bytes: who reads the file without ``weights_only=False`` reads no object.
"""

from __future__ import annotations

import io
import pickle
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from fulmen.core.plain import LEFT_OUT, component
from fulmen.utilities.rank_zero import rank_zero_warn
from fulmen.utilities.torch_files import reads_strictly


def pickled(hparams: Mapping[str, Any], kinds: Mapping[str, str], owner: str) -> dict[str, Tensor]:
    """By name, the pickle of each of ``hparams`` that ``kinds`` says is left out of the plain ones."""
    found, lost = {}, {}
    for name, value in hparams.items():
        if type(name) is str and kinds.get(component(name)) == LEFT_OUT:
            buffer = io.BytesIO()
            try:
                torch.save(value, buffer)
            except Exception as error:  # each class fails in its own way
                lost[name] = error
            else:
                found[name] = torch.frombuffer(bytearray(buffer.getvalue()), dtype=torch.uint8)
    for name, error in lost.items():
        rank_zero_warn(f"{owner}.hparams[{name!r}] is left out of the checkpoint, as it cannot be pickled: {error}")
    return found


def unpickled(entries: Any, source: str, weights_only: bool | None) -> dict[str, Any]:
    """The objects again; ``{}`` unless ``weights_only=False`` was asked for.

    Raises:
        ValueError: the file has something else there.
    """
    if not entries or reads_strictly(weights_only):
        return {}
    if not isinstance(entries, Mapping) or not all(isinstance(entry, Tensor) for entry in entries.values()):
        raise ValueError(f"{source} has no pickled hyperparameters where they belong.")
    objects = {}
    for name, entry in entries.items():
        try:
            buffer = io.BytesIO(entry.cpu().numpy().tobytes())
            objects[name] = torch.load(buffer, map_location="cpu", weights_only=False)
        except (pickle.UnpicklingError, AttributeError, ImportError, RuntimeError) as error:
            raise ValueError(f"{source} has a hyperparameter {name!r} that cannot be made again: {error}") from error
    return objects
