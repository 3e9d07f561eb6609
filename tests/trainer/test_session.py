"""How a run ends: normally, by an exception, by Ctrl-C, by a signal."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest
import torch

import fulmen
from fulmen import Callback
from fulmen.callbacks import ModelCheckpoint
from fulmen.loggers import CSVLogger

from .counting import Trains, Validates, batches


class Status(CSVLogger):
    """Notes how it was finalised."""

    status = None

    def finalize(self, status):
        self.status = status
        super().finalize(status)


class Notes(Callback):
    def __init__(self):
        self.calls = []

    def on_exception(self, trainer, pl_module, exception):
        self.calls.append(("on_exception", exception))

    def teardown(self, trainer, pl_module, stage):
        self.calls.append(("teardown", stage))


class Raises(Trains):
    """Raises in the third batch, having logged in each."""

    def __init__(self, error: BaseException) -> None:
        super().__init__()
        self.error = error

    def training_step(self, batch, batch_idx):
        self.log("x", float(batch_idx))
        if batch_idx == 2:
            raise self.error
        return super().training_step(batch, batch_idx)


def test_normal_end_finalises_the_loggers_with_success(trainer_of, tmp_path):
    logger, notes = Status(tmp_path), Notes()
    trainer = trainer_of(max_epochs=1, logger=logger, callbacks=notes)
    trainer.fit(Trains(), batches(2))

    assert logger.status == "success"
    assert notes.calls == [("teardown", "fit")]
    assert trainer.state.status == "finished"
    assert trainer.state.stage is None


def test_exception_is_told_to_all_and_raised(trainer_of, tmp_path):
    logger, notes, error = Status(tmp_path), Notes(), ArithmeticError("wrong")
    trainer = trainer_of(max_epochs=1, logger=logger, callbacks=notes, log_every_n_steps=1)
    with pytest.raises(ArithmeticError) as raised:
        trainer.fit(Raises(error), batches(5))

    assert raised.value is error
    assert notes.calls == [("on_exception", error)]
    assert logger.status == "failed"
    assert trainer.interrupted
    with open(Path(logger.log_dir) / "metrics.csv") as file:
        assert len(file.readlines()) == 1 + 2


def test_ctrl_c_exits_with_code_one(trainer_of):
    class Interrupts(Trains):
        def training_step(self, batch, batch_idx):
            os.kill(os.getpid(), signal.SIGINT)
            return super().training_step(batch, batch_idx)

    before = signal.signal(signal.SIGINT, signal.default_int_handler)  # a job in the background may ignore it
    try:
        with pytest.raises(SystemExit) as raised:
            trainer_of(max_epochs=1).fit(Interrupts(), batches(5))
    finally:
        signal.signal(signal.SIGINT, before)

    assert raised.value.code == 1


def test_keyboard_interrupt_exits_with_code_one_and_finalises_the_loggers(trainer_of, tmp_path):
    logger, notes, error = Status(tmp_path), Notes(), KeyboardInterrupt()
    trainer = trainer_of(max_epochs=1, logger=logger, callbacks=notes)
    with pytest.raises(SystemExit) as raised:
        trainer.fit(Raises(error), batches(5))

    assert raised.value.code == 1
    assert notes.calls == [("on_exception", error)]
    assert logger.status == "failed"
    assert trainer.interrupted


@pytest.mark.parametrize("first", [ArithmeticError, KeyboardInterrupt])
def test_exception_in_on_exception_hides_nothing(trainer_of, tmp_path, first):
    class FailsToo(Callback):
        def on_exception(self, trainer, pl_module, exception):
            raise LookupError("second")

    logger, notes = Status(tmp_path), Notes()
    trainer = trainer_of(max_epochs=1, logger=logger, callbacks=[FailsToo(), notes])
    expected = SystemExit if first is KeyboardInterrupt else first
    with pytest.warns(UserWarning, match="second"), pytest.raises(expected):
        trainer.fit(Raises(first("first")), batches(5))

    assert [name for name, _ in notes.calls] == ["on_exception"]
    assert logger.status == "failed"


@pytest.mark.parametrize("hook", ["setup", "on_fit_start", "on_train_start", "on_validation_end", "on_fit_end"])
def test_exception_in_any_hook_ends_the_run(trainer_of, hook):
    notes, fails = Notes(), Callback()

    def fail(*args, **kwargs):
        raise LookupError

    setattr(fails, hook, fail)
    trainer = trainer_of(max_epochs=1, callbacks=[fails, notes])
    module = Validates()
    with pytest.raises(LookupError):
        trainer.fit(module, batches(2), batches(1))

    assert [name for name, _ in notes.calls] == ["on_exception"]
    assert trainer.interrupted
    setattr(fails, hook, None)
    trainer.max_epochs = 2
    trainer.fit(module, batches(2), batches(1))  # and the trainer can be used again
    assert trainer.state.finished


def test_exception_leaves_no_hook_on_the_optimizer(trainer_of):
    class ByHand(Raises):
        def __init__(self, error):
            super().__init__(error)
            self.automatic_optimization = False

    trainer = trainer_of(max_epochs=1)
    with pytest.raises(ArithmeticError):
        trainer.fit(ByHand(ArithmeticError()), batches(5))

    (optimizer,) = trainer.optimizers
    assert not optimizer._optimizer_step_post_hooks
    assert not optimizer._optimizer_step_pre_hooks


def test_exception_while_validating_leaves_gradients_on(trainer_of):
    class Fails(Validates):
        def validation_step(self, batch, batch_idx):
            raise ArithmeticError

    with pytest.raises(ArithmeticError):
        trainer_of().validate(Fails(), batches(1), verbose=False)

    assert torch.is_grad_enabled()
    assert not torch.is_inference_mode_enabled()


def test_handler_of_the_signal_is_the_users_again_after_the_run(trainer_of):
    def mine(number, frame): ...

    before = signal.signal(signal.SIGTERM, mine)
    try:
        trainer_of(max_epochs=1).fit(Trains(), batches(1))
        assert signal.getsignal(signal.SIGTERM) is mine
    finally:
        signal.signal(signal.SIGTERM, before)


_PROGRAM = """
    import os, signal, sys, time, warnings
    warnings.simplefilter("ignore")
    import torch
    from fulmen import Callback, Trainer
    from fulmen.callbacks import ModelCheckpoint
    from fulmen.demos.boring_classes import BoringModel
    from fulmen.loggers import CSVLogger

    class Ends(Callback):
        def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx):
            if batch_idx == 3:
                os.kill(os.getpid(), signal.SIGTERM)
            print("batch", batch_idx, flush=True)

        def on_exception(self, trainer, pl_module, exception):
            print("told", type(exception).__name__, flush=True)

    class Told(CSVLogger):
        def finalize(self, status):
            print("logger", status, flush=True)

    module = BoringModel()
    trainer = Trainer(
        accelerator="cpu", max_epochs=1, callbacks=Ends(), logger=Told(sys.argv[1]), default_root_dir=sys.argv[1],
        enable_progress_bar=False, enable_model_summary=False, enable_checkpointing=False, limit_val_batches=0,
    )
    trainer.fit(module)
    print("not reached")
"""


@pytest.mark.skipif(sys.platform == "win32", reason="signals are sent otherwise")
def test_sigterm_ends_the_process_with_code_143_after_the_step(tmp_path):
    environment = {**os.environ, "PYTHONPATH": str(Path(fulmen.__file__).parents[1])}
    program = textwrap.dedent(_PROGRAM)
    done = subprocess.run(
        [sys.executable, "-c", program, str(tmp_path)],
        env=environment,
        capture_output=True,
        text=True,
        timeout=60,
    )

    lines = done.stdout.splitlines()
    assert done.returncode == 143, done.stderr
    assert lines == [*(f"batch {index}" for index in range(4)), "told SIGTERMException", "logger failed"]


@pytest.mark.skipif(sys.platform == "win32", reason="signals are sent otherwise")
@pytest.mark.parametrize(
    ("hook", "trained", "status"),
    [
        ("on_train_start", 1, "interrupted"),
        ("on_train_batch_start", 1, "interrupted"),
        ("on_validation_batch_end", 2, "interrupted"),
        ("on_train_end", 2, "finished"),
    ],
)
def test_sigterm_ends_the_run_at_the_end_of_the_step(trainer_of, hook, trained, status):
    module, sends = Validates(), Callback()
    setattr(sends, hook, lambda *args: os.kill(os.getpid(), signal.SIGTERM))
    trainer = trainer_of(max_epochs=1, callbacks=sends, num_sanity_val_steps=0)
    with pytest.raises(SystemExit) as raised:
        trainer.fit(module, batches(2), batches(2))

    assert raised.value.code == 143
    assert len(module.trained) == trained
    assert len(module.checked) == (0 if trained < 2 else 2)
    assert trainer.received_sigterm
    assert trainer.state.status == status
    assert signal.getsignal(signal.SIGTERM) is signal.SIG_DFL


def test_sigterm_of_the_last_run_does_not_end_the_next(trainer_of):
    class Sends(Callback):
        def on_train_batch_start(self, trainer, pl_module, batch, batch_idx):
            if pl_module.trained == []:
                os.kill(os.getpid(), signal.SIGTERM)

    module = Trains()
    trainer = trainer_of(max_epochs=1, callbacks=Sends())
    with pytest.raises(SystemExit):
        trainer.fit(module, batches(2))
    trainer.fit(module, batches(2))

    assert not trainer.received_sigterm
    assert len(module.trained) == 3


def test_second_run_after_an_exception_writes_a_checkpoint_as_ever(trainer_of, tmp_path):
    class FailsOnce(Trains):
        fails = True

        def training_step(self, batch, batch_idx):
            if self.fails:
                self.fails = False
                raise ArithmeticError
            return super().training_step(batch, batch_idx)

    module = FailsOnce()
    trainer = trainer_of(max_epochs=1, enable_checkpointing=True, callbacks=ModelCheckpoint(tmp_path, filename="end"))
    with pytest.raises(ArithmeticError):
        trainer.fit(module, batches(2))
    trainer.fit(module, batches(2))

    assert (tmp_path / "end.ckpt").exists()


@pytest.mark.parametrize("verb", ["fit", "validate", "predict"])
def test_exception_while_evaluating_gives_the_modes_back(trainer_of, verb):
    class Fails(Validates):
        def validation_step(self, batch, batch_idx):
            raise ArithmeticError

        predict_step = validation_step

    module = Fails()
    module.frozen = torch.nn.Dropout().eval()
    with pytest.raises(ArithmeticError):
        getattr(trainer_of(max_epochs=1, num_sanity_val_steps=0), verb)(
            module, *[batches(1)] * (2 if verb == "fit" else 1)
        )

    assert module.training
    assert module.layer.training
    assert not module.frozen.training


def test_second_ctrl_c_leaves_a_trainer_that_can_run_again(trainer_of):
    class Again(Callback):
        def on_exception(self, trainer, pl_module, exception):
            raise KeyboardInterrupt

    again = Again()
    trainer = trainer_of(max_epochs=1, callbacks=again)
    with pytest.raises(KeyboardInterrupt):
        trainer.fit(Raises(KeyboardInterrupt()), batches(3))

    trainer.callbacks.remove(again)
    trainer.fit(Trains(), batches(3))
    assert trainer.global_step == 3
