"""Tracing a model for a picture of its graph, so that nothing of the training changes by it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch.nn import Module

from fulmen.utilities.apply_func import move_data_to_device


@contextmanager
def traced_quietly(model: Module, inputs: Any) -> Iterator[Any]:
    """Give ``inputs`` on the model's device; within the block the model is in evaluation mode without gradients.

    Modes and the state of the random generators are as before when it ends.
    """
    parameter = next(model.parameters(), None)
    device = torch.device("cpu") if parameter is None else parameter.device
    training = [module for module in model.modules() if module.training]
    with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []), torch.no_grad():
        model.eval()
        try:
            yield move_data_to_device(inputs, device)
        finally:
            for module in training:
                module.training = True
