"""A callback made of functions."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from fulmen.callbacks.callback import Callback

Function = Callable[..., Any] | None


class LambdaCallback(Callback):
    """Listens with functions instead of methods.

    Args:
        setup: and every other hook of :class:`~fulmen.callbacks.callback.Callback`: a function that gets what the hook
            gets, ``trainer`` and ``pl_module`` first. None: do not listen there.

    Raises:
        TypeError: there is no hook of a given name, or what was given for it cannot be called.

    Example::

        LambdaCallback(on_train_epoch_end=lambda trainer, pl_module: print(trainer.current_epoch))
    """

    def __init__(
        self,
        setup: Function = None,
        teardown: Function = None,
        on_fit_start: Function = None,
        on_fit_end: Function = None,
        on_sanity_check_start: Function = None,
        on_sanity_check_end: Function = None,
        on_train_batch_start: Function = None,
        on_train_batch_end: Function = None,
        on_train_epoch_start: Function = None,
        on_train_epoch_end: Function = None,
        on_validation_epoch_start: Function = None,
        on_validation_epoch_end: Function = None,
        on_test_epoch_start: Function = None,
        on_test_epoch_end: Function = None,
        on_validation_batch_start: Function = None,
        on_validation_batch_end: Function = None,
        on_test_batch_start: Function = None,
        on_test_batch_end: Function = None,
        on_train_start: Function = None,
        on_train_end: Function = None,
        on_validation_start: Function = None,
        on_validation_end: Function = None,
        on_test_start: Function = None,
        on_test_end: Function = None,
        on_exception: Function = None,
        on_save_checkpoint: Function = None,
        on_load_checkpoint: Function = None,
        on_before_backward: Function = None,
        on_after_backward: Function = None,
        on_before_optimizer_step: Function = None,
        on_before_zero_grad: Function = None,
        on_predict_start: Function = None,
        on_predict_end: Function = None,
        on_predict_batch_start: Function = None,
        on_predict_batch_end: Function = None,
        on_predict_epoch_start: Function = None,
        on_predict_epoch_end: Function = None,
    ) -> None:
        functions = {name: function for name, function in locals().items() if name not in ("self", "__class__")}
        for hook, function in functions.items():
            if function is None:
                continue
            if not callable(function):
                raise TypeError(
                    f"LambdaCallback({hook}={function!r}) cannot be called. Pass a function, as in "
                    f"{hook}=lambda *args: print(args)."
                )
            setattr(self, hook, function)
