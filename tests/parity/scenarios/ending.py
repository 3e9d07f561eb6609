"""How a run ends or leaves things out: stopping, skipping, exceptions."""

from __future__ import annotations

from typing import Any

from ..recorder import Listed, Run, rows
from .registry import full, light, scenario, scheduled, with_batches

# ------------------------------------------------------------------------------------------------ stopping


def stopping_when(run: Run, hook: str, **when: int) -> Any:
    """A callback that sets ``should_stop`` in ``hook`` at the given epoch (and batch)."""

    def stop(self: Any, trainer: Any, module: Any, *args: Any, **kwargs: Any) -> None:
        place = (trainer.current_epoch, *args[-1:]) if "batch" in when else (trainer.current_epoch,)
        if place == tuple(when.values()) and not trainer.sanity_checking:
            run.lines.append("should_stop = True")
            trainer.should_stop = True

    return type("Stopper", (run.framework.Callback,), {hook: stop})()


@scenario
def early_stopping(run: Run) -> None:
    class Module(run.Module):
        def validation_step(self, batch: Any, batch_idx: int) -> None:
            super().validation_step(batch, batch_idx)
            self.log("v", float(self.current_epoch))

    run.make_trainer(max_epochs=9, callbacks=[run.framework.EarlyStopping("v", patience=2)])
    run.fit(Module())


@scenario
def stop_in_mid_epoch(run: Run) -> None:
    run.make_trainer(max_epochs=3, callbacks=[stopping_when(run, "on_train_batch_end", epoch=0, batch=1)])
    run.fit(with_batches(run, train=4))


@light
def stop_before_a_batch(run: Run) -> None:
    run.make_trainer(max_epochs=3, callbacks=[stopping_when(run, "on_train_batch_start", epoch=0, batch=1)])
    run.fit(with_batches(run, train=4))


@light
def stop_at_epoch_start(run: Run) -> None:
    run.make_trainer(max_epochs=3, callbacks=[stopping_when(run, "on_train_epoch_start", epoch=1)])
    run.fit(with_batches(run, train=4))


@light
def stop_at_epoch_end(run: Run) -> None:
    run.make_trainer(max_epochs=3, callbacks=[stopping_when(run, "on_train_epoch_end", epoch=0)])
    run.fit()


@light
def stop_at_train_start(run: Run) -> None:
    run.make_trainer(max_epochs=3, callbacks=[stopping_when(run, "on_train_start", epoch=0)])
    run.fit()


@light
def stop_at_validation_end(run: Run) -> None:
    stopper = stopping_when(run, "on_validation_end", epoch=0)
    run.make_trainer(max_epochs=3, val_check_interval=0.5, callbacks=[stopper])
    run.fit(with_batches(run, train=4))


@light
def stop_in_mid_epoch_without_validation(run: Run) -> None:
    stopper = stopping_when(run, "on_train_batch_end", epoch=0, batch=1)
    run.make_trainer(max_epochs=3, limit_val_batches=0, callbacks=[stopper])
    run.fit(with_batches(run, train=4))


@light
def stop_not_before_min_epochs(run: Run) -> None:
    stopper = stopping_when(run, "on_train_batch_end", epoch=0, batch=0)
    run.make_trainer(max_epochs=5, min_epochs=2, callbacks=[stopper])
    run.fit()


@light
def stop_not_before_min_steps(run: Run) -> None:
    stopper = stopping_when(run, "on_train_batch_end", epoch=0, batch=0)
    run.make_trainer(max_epochs=5, min_steps=3, callbacks=[stopper])
    run.fit()


@light
def stop_not_before_min_epochs_and_min_steps(run: Run) -> None:
    stopper = stopping_when(run, "on_train_epoch_end", epoch=0)
    run.make_trainer(max_epochs=5, min_epochs=2, min_steps=5, callbacks=[stopper])
    run.fit()


@scenario
def max_steps_in_mid_epoch(run: Run) -> None:
    run.make_trainer(max_steps=4, max_epochs=-1, callbacks=[run.checkpoint(save_last=True)])
    run.fit(with_batches(run, train=3))


@light
def max_steps_at_the_end_of_an_epoch(run: Run) -> None:
    run.make_trainer(max_steps=4, max_epochs=-1)
    run.fit()


@full
def max_epochs_zero(run: Run) -> None:
    run.make_trainer(max_epochs=0)
    run.fit()


@full
def max_steps_zero(run: Run) -> None:
    run.make_trainer(max_steps=0, max_epochs=-1)
    run.fit()


@full
def max_epochs_and_steps_left_out(run: Run) -> None:
    run.make_trainer(max_epochs=None, max_steps=2)
    run.lines.append(f"max_epochs {run.trainer.max_epochs} min_epochs {run.trainer.min_epochs}")
    run.fit()
    run.lines.append(f"max_epochs {run.trainer.max_epochs} min_epochs {run.trainer.min_epochs}")


@full
def no_training_batches(run: Run) -> None:
    run.make_trainer(limit_train_batches=0)
    run.fit()


# ------------------------------------------------------------------------------------------------ skipping


@scenario
def batch_start_returns_minus_one(run: Run) -> None:
    class Module(scheduled(run)):
        train_batches = 3

        def on_train_batch_start(self, batch: Any, batch_idx: int) -> int | None:
            super().on_train_batch_start(batch, batch_idx)
            return -1 if batch_idx == 1 else None

    run.make_trainer(max_epochs=2)
    run.fit(Module())


@light
def batch_start_returns_minus_one_at_the_first_batch(run: Run) -> None:
    class Module(run.Module):
        def on_train_batch_start(self, batch: Any, batch_idx: int) -> int:
            return -1

    run.make_trainer(max_epochs=2)
    run.fit(Module())


@light
def batch_start_of_a_callback_returns_minus_one(run: Run) -> None:
    class Skipper(run.framework.Callback):
        def on_train_batch_start(self, trainer: Any, module: Any, batch: Any, batch_idx: int) -> int:
            return -1

    run.make_trainer(callbacks=[Skipper()])
    run.fit()


@scenario
def training_step_returns_none(run: Run) -> None:
    class Module(scheduled(run, interval="step")):
        def training_step(self, batch: Any, batch_idx: int) -> Any:
            loss = super().training_step(batch, batch_idx)
            return None if batch_idx == 0 else loss

    run.make_trainer()
    run.fit(Module())


@light
def training_step_returns_none_while_accumulating(run: Run) -> None:
    class Module(run.Module):
        train_batches = 4

        def training_step(self, batch: Any, batch_idx: int) -> Any:
            loss = super().training_step(batch, batch_idx)
            return None if batch_idx in (0, 3) else loss

    run.make_trainer(accumulate_grad_batches=2)
    run.fit(Module())


@scenario
def none_batch(run: Run) -> None:
    first, second = (row[None] for row in rows(2))
    run.make_trainer(limit_val_batches=0)
    run.fit(None, Listed(first, None, second))


# ------------------------------------------------------------------------------------------------ exceptions


def failing(run: Run, method: str, error: BaseException) -> Any:
    """A recording module whose ``method`` raises at its second call."""
    calls = []

    def fail(self: Any, *args: Any) -> Any:
        result = getattr(super(kind, self), method)(*args)
        calls.append(None)
        if len(calls) == 2:
            raise error
        return result

    kind = type("Module", (run.Module,), {method: fail})
    return kind()


@scenario
def exception_in_training_step(run: Run) -> None:
    run.make_trainer(callbacks=[run.checkpoint()])
    run.fit(failing(run, "training_step", ValueError("asked for")), datamodule=run.DataModule())


@scenario
def exception_in_validation_step(run: Run) -> None:
    run.make_trainer()
    run.fit(failing(run, "validation_step", ValueError("asked for")))


@scenario
def exception_in_a_callback(run: Run) -> None:
    class Failing(run.framework.Callback):
        def on_train_batch_end(self, *args: Any) -> None:
            raise KeyError("asked for")

    run.make_trainer(callbacks=[Failing()])
    run.fit()


@full
def exception_in_setup(run: Run) -> None:
    class Module(run.Module):
        def setup(self, stage: str) -> None:
            super().setup(stage)
            raise ValueError("asked for")

    run.make_trainer()
    run.fit(Module(), datamodule=run.DataModule())


@full
def exception_in_configure_optimizers(run: Run) -> None:
    class Module(run.Module):
        def make_optimizers(self) -> Any:
            raise ValueError("asked for")

    run.make_trainer()
    run.fit(Module())


@light
def exception_in_test_and_predict(run: Run) -> None:
    for verb in ("test", "predict"):
        run.make_trainer()
        run.call(verb, failing(run, f"{verb}_step", ValueError("asked for")))


@light
def exception_then_fit_again(run: Run) -> None:
    run.make_trainer(max_epochs=2)
    module = failing(run, "training_step", ValueError("asked for"))
    run.fit(module)
    run.fit(module)


@scenario
def keyboard_interrupt(run: Run) -> None:
    run.make_trainer()
    run.fit(failing(run, "training_step", KeyboardInterrupt()), datamodule=run.DataModule())
    run.lines.append(f"status {run.trainer.state.status.value} interrupted {run.trainer.interrupted}")


@light
def state_after_runs(run: Run) -> None:
    def told() -> None:
        state = run.trainer.state
        words = [getattr(word, "value", word) for word in (state.status, state.fn, state.stage)]
        run.lines.append(f"state {words} should_stop {run.trainer.should_stop}")

    run.make_trainer()
    told()
    for verb in ("fit", "validate", "test", "predict"):
        run.call(verb, run.Module())
        told()
    run.make_trainer()
    run.fit(failing(run, "training_step", ValueError("asked for")))
    told()
