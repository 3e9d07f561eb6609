"""LambdaCallback: functions as hooks."""

from __future__ import annotations

import inspect
from typing import Any

import pytest

from fulmen import Trainer
from fulmen.callbacks.callback import Callback
from fulmen.callbacks.lambda_function import LambdaCallback
from fulmen.demos.boring_classes import BoringModel

_HOOKS = [name for name in vars(Callback) if name.startswith("on_") or name in ("setup", "teardown")]


def test_every_hook_of_a_callback_can_be_given():
    parameters = list(inspect.signature(LambdaCallback).parameters)

    assert sorted(parameters) == sorted(_HOOKS)


@pytest.mark.parametrize("hook", _HOOKS)
def test_function_given_for_a_hook_is_that_hook(hook):
    def function(*arguments: Any) -> None: ...

    callback = LambdaCallback(**{hook: function})

    assert getattr(callback, hook) is function


def test_functions_are_called_with_trainer_and_module():
    heard = []
    callback = LambdaCallback(
        setup=lambda trainer, module, stage: heard.append(("setup", str(stage))),
        on_train_batch_end=lambda trainer, module, outputs, batch, batch_idx: heard.append(("batch", batch_idx)),
        on_train_epoch_end=lambda trainer, module: heard.append(("epoch", trainer.current_epoch)),
    )
    trainer = Trainer(
        accelerator="cpu",
        max_epochs=1,
        limit_train_batches=2,
        limit_val_batches=0,
        logger=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        enable_checkpointing=False,
        callbacks=[callback],
    )
    trainer.fit(BoringModel())

    assert heard == [("setup", "fit"), ("batch", 0), ("batch", 1), ("epoch", 0)]


def test_hook_that_does_not_exist_is_refused():
    with pytest.raises(TypeError, match="on_train_epoch_ended"):
        LambdaCallback(on_train_epoch_ended=print)  # type: ignore[call-arg]


def test_what_cannot_be_called_is_refused():
    with pytest.raises(TypeError, match=r"on_fit_start=3"):
        LambdaCallback(on_fit_start=3)  # type: ignore[arg-type]
