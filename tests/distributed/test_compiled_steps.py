"""Steps that torch compiles, of a module that is spread over processes."""

from __future__ import annotations

from typing import Any

import torch
from tests.distributed.processes import run
from tests.loops.by_hand import Regressor, loader

from fulmen import Trainer


def trained(strategy: str, compile: Any) -> list[torch.Tensor]:
    torch.manual_seed(1)
    module = Regressor()
    trainer = Trainer(
        accelerator="cpu",
        devices=2,
        strategy=strategy,
        compile=compile,
        max_epochs=2,
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
    )
    trainer.fit(module, loader(16))
    return [getattr(one, "full_tensor", lambda one=one: one)().detach() for one in module.parameters()]


def test_compiled_steps_under_fsdp_train_as_those_of_ddp() -> None:
    compiled, _ = run(2, trained, "fsdp", {"backend": "eager"}, timeout=120)
    plain, _ = run(2, trained, "ddp", None)
    for one, other in zip(compiled, plain):
        torch.testing.assert_close(one, other, rtol=1e-6, atol=1e-7)
