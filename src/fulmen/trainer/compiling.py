"""Steps that are compiled: ``Trainer(compile=True)``, or a module that ``torch.compile`` returned."""

from __future__ import annotations

from collections.abc import Generator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from fulmen.core.module import LightningModule
from fulmen.loops.plan import written
from fulmen.utilities.exceptions import MisconfigurationException

if TYPE_CHECKING:
    from fulmen.trainer.trainer import Trainer

_STEPS = ("training_step", "validation_step", "test_step", "predict_step", "forward")


def checked_options(compile: Any) -> bool | dict[str, Any] | None:
    """The Trainer's argument ``compile``, checked."""
    if compile is not None and not isinstance(compile, (bool, dict)):
        raise MisconfigurationException(
            f"`compile={compile!r}`: must be True, False or a dict of torch.compile's arguments."
        )
    return compile


def uncompiled(model: Any) -> Any:
    """The module inside of what ``torch.compile(module)`` returned; anything else as it is."""
    inner = model.__dict__.get("_modules", {}).get("_orig_mod") if isinstance(model, nn.Module) else None
    return inner if isinstance(inner, LightningModule) else model


@contextmanager
def compiled_steps(trainer: Trainer, model: Any, compile: bool | dict[str, Any] | None) -> Generator[None, None, None]:
    """Replace the steps of the module by compiled ones, for the length of one run.

    ``self.log`` inside of them breaks no graph: a traced call only notes the value in a list, which is read after the
    step.
    """
    module = trainer.lightning_module
    context = getattr(model, "dynamo_ctx", None) if model is not module else None
    if context is None and not compile:
        yield
        return
    compile_one = context if context is not None else _compiler(compile)
    attributes = module.__dict__
    compiled = [
        name for name in _STEPS if written(module, name, LightningModule) is not None and name not in attributes
    ]
    for name in compiled:
        attributes[name] = compile_one(getattr(module, name))
    logging = [child for child in module.modules() if isinstance(child, LightningModule)]
    logs: list[Any] = []
    for child in logging:
        child.__dict__["_compiled_logs"] = logs
    try:
        yield
    finally:
        for name in compiled:
            attributes.pop(name, None)
        for child in logging:
            child.__dict__.pop("_compiled_logs", None)


def _compiler(compile: bool | dict[str, Any] | None) -> Any:
    options = compile if isinstance(compile, dict) else {}
    return lambda function: torch.compile(function, **options)
