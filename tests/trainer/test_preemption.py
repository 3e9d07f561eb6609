"""A run that has to end before its time: by a signal, by Ctrl-C, by the deadline; and how it goes on."""

from __future__ import annotations

import json
import logging
import os
import random
import signal
import subprocess
import sys
import textwrap
import threading
import time
from pathlib import Path
from typing import Any

import pytest
import torch

import fulmen
from fulmen import Callback, Trainer
from fulmen.callbacks import LambdaCallback, ModelCheckpoint, Timer
from fulmen.callbacks.checkpoint import Checkpoint
from fulmen.loggers import CSVLogger
from fulmen.plugins import ExitCodeRequeue, SLURMEnvironment
from fulmen.plugins.io import index
from fulmen.utilities.exceptions import MisconfigurationException

from .counting import Trains, Validates, batches

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="signals are sent otherwise")

ENVIRONMENT = {**os.environ, "PYTHONPATH": str(Path(fulmen.__file__).parents[1]), "OMP_NUM_THREADS": "1"}


class Sends(Callback):
    """Sends this process a signal in the hook, when it comes for the n-th time."""

    def __init__(self, hook: str, number: int = signal.SIGTERM, at: int = 1, times: int = 1) -> None:
        self.left = at

        def send(*args: Any) -> None:
            self.left -= 1
            if self.left == 0:
                for _ in range(times):
                    os.kill(os.getpid(), number)

        setattr(self, hook, send)


@pytest.fixture
def slurm_job(monkeypatch, tmp_path) -> Path:
    """A job of SLURM, with a program ``scontrol`` that writes what it is called with into the file."""
    folder, told = tmp_path / "bin", tmp_path / "scontrol.txt"
    folder.mkdir()
    program = folder / "scontrol"
    program.write_text(f'#!/bin/sh\necho "$@" >> {told}\n')
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{folder}{os.pathsep}{os.environ['PATH']}")
    monkeypatch.setenv("SLURM_JOB_ID", "4711")
    monkeypatch.setenv("SLURM_JOB_NAME", "train")
    for name in ("SLURM_ARRAY_JOB_ID", "SLURM_ARRAY_TASK_ID", "SLURM_RESTART_COUNT", "SLURM_PROCID"):
        monkeypatch.delenv(name, raising=False)
    return told


@pytest.fixture
def ctrl_c():
    """Python's own way with Ctrl-C, which a job in the background does not have."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


def saves(folder: Path, **arguments: Any) -> ModelCheckpoint:
    return ModelCheckpoint(folder / "checkpoints", **arguments)


def entries(folder: Path) -> list[index.Entry]:
    return index.read(str(folder / "checkpoints")).entries


def fit(trainer: Trainer, module: Any, *loaders: Any, **arguments: Any) -> int | str | None:
    """The exit code of a ``fit`` that ends the process."""
    with pytest.raises(SystemExit) as raised:
        trainer.fit(module, *loaders, **arguments)
    return raised.value.code


# -- at random instants ------------------------------------------------------------------------------------------------


def at_random_instants(folder: Path, cases: int, *options: str, seed: int | None = None) -> None:
    """Ask runs to end at random, and see that each becomes the run that nobody asked; a failure names the seed."""
    seed = random.randrange(10**6) if seed is None else seed
    program = Path(__file__).with_name("preempted.py")
    done = subprocess.run(
        [sys.executable, str(program), str(folder), str(seed), str(cases), *options],
        env=ENVIRONMENT,
        capture_output=True,
        text=True,
        timeout=1200,
    )
    assert done.returncode == 0, done.stderr
    result = json.loads(done.stdout)
    assert not result["failed"], json.dumps(result, indent=1)
    assert result["ended"] >= cases // 2, "many signals come while the run lasts"


@pytest.mark.parametrize(
    ("cases", "options"), [pytest.param(3, ["workers"], id="workers"), pytest.param(1, ["slow-validation"], id="slow")]
)
def test_run_that_is_asked_to_end_at_random_instants_becomes_the_run_that_was_not(tmp_path, cases, options):
    at_random_instants(tmp_path, cases, *options, seed=11)


@pytest.mark.slow
@pytest.mark.parametrize(
    "options", [[], ["workers"], ["ctrl-c"], ["workers", "ctrl-c"], ["slow-validation", "workers"]], ids=" ".join
)
def test_two_hundred_signals_at_random_instants_lose_nothing(tmp_path, options):
    at_random_instants(tmp_path, 40, *options)


# -- where a run ends, and what it leaves ------------------------------------------------------------------------------


def test_sigterm_within_an_accumulation_window_saves_there_and_the_window_goes_on(trainer_of, tmp_path):
    def weights(module: Any) -> list[float]:
        return [parameter.item() for parameter in module.parameters()]

    torch.manual_seed(5)
    whole = Trains()
    state = {name: value.clone() for name, value in whole.state_dict().items()}
    trainer_of(max_epochs=1, accumulate_grad_batches=4).fit(whole, batches(8))

    cut, resumed = Trains(), Trains()
    cut.load_state_dict(state)
    arguments = dict(max_epochs=1, accumulate_grad_batches=4, enable_checkpointing=True)
    trainer = trainer_of(**arguments, callbacks=[saves(tmp_path), Sends("on_train_batch_start", at=6)])
    assert fit(trainer, cut, batches(8)) == 143
    trainer_of(**arguments, callbacks=saves(tmp_path)).fit(resumed, batches(8), ckpt_path="auto")

    assert len(cut.trained) == 6
    assert cut.trained + resumed.trained == whole.trained
    assert weights(resumed) == weights(whole)


def test_sigterm_leaves_one_checkpoint_named_by_its_reason_and_says_where(trainer_of, tmp_path, caplog):
    caplog.set_level(logging.INFO)
    trainer = trainer_of(
        max_epochs=2, enable_checkpointing=True, callbacks=[saves(tmp_path), Sends("on_train_batch_end", at=3)]
    )
    assert fit(trainer, Trains(), batches(5)) == 143

    (entry,) = entries(tmp_path)
    assert (entry.reason, entry.batch, entry.step) == ("SIGTERM", 3, 3)
    said = [message for message in caplog.messages if "SIGTERM" in message]
    assert len(said) == 1
    assert str(tmp_path / "checkpoints" / entry.path) in said[0]
    assert "ckpt_path='auto'" in said[0]


def test_sigterm_where_a_checkpoint_is_due_writes_no_second_one(trainer_of, tmp_path):
    checkpoint = saves(tmp_path, every_n_train_steps=3)
    trainer = trainer_of(
        max_epochs=2, enable_checkpointing=True, callbacks=[checkpoint, Sends("on_train_batch_start", at=3)]
    )
    assert fit(trainer, Trains(), batches(5)) == 143

    assert [(entry.reason, entry.batch) for entry in entries(tmp_path)] == [("step", 3)]


def test_signal_while_a_checkpoint_is_written_finishes_the_file(trainer_of, tmp_path):
    checkpoint = saves(tmp_path, every_n_train_steps=3)
    trainer = trainer_of(max_epochs=2, enable_checkpointing=True, callbacks=[checkpoint, Sends("on_save_checkpoint")])
    assert fit(trainer, Trains(), batches(5)) == 143

    known = index.read(str(tmp_path / "checkpoints"))
    assert [(entry.batch, known.damage(entry)) for entry in known.entries] == [(3, None)]


@pytest.mark.parametrize("hook", ["on_train_epoch_end", "on_save_checkpoint"])
def test_signal_between_two_epochs_ends_there_with_the_file_of_the_epoch(trainer_of, tmp_path, hook):
    module = Trains()
    trainer = trainer_of(max_epochs=2, enable_checkpointing=True, callbacks=[saves(tmp_path), Sends(hook)])
    assert fit(trainer, module, batches(4)) == 143

    assert len(module.trained) == 4
    assert [(entry.reason, entry.batch) for entry in entries(tmp_path)] == [("epoch", 4)]
    resumed = Trains()
    trainer_of(max_epochs=2, enable_checkpointing=True, callbacks=saves(tmp_path)).fit(
        resumed, batches(4), ckpt_path="auto"
    )
    assert resumed.trained == [(1, batch) for batch in range(4)]


def test_signal_after_the_last_batch_lets_the_run_become_whole_and_exits_with_143(trainer_of, tmp_path):
    trainer = trainer_of(
        max_steps=4, enable_checkpointing=True, callbacks=[saves(tmp_path), Sends("on_train_batch_end", at=4)]
    )
    assert fit(trainer, Trains(), batches(5)) == 143

    assert trainer.state.finished
    assert entries(tmp_path)[-1].step == 4


@pytest.mark.parametrize("hook", ["prepare_data", "setup", "on_fit_start", "on_sanity_check_start"])
def test_signal_before_training_ends_before_the_first_step(trainer_of, tmp_path, hook, caplog):
    caplog.set_level(logging.INFO)
    module = Validates()
    callback = Callback()
    if hook == "prepare_data":
        module.prepare_data = lambda: os.kill(os.getpid(), signal.SIGTERM)
    else:
        callback = Sends(hook)
    trainer = trainer_of(max_epochs=1, enable_checkpointing=True, callbacks=[saves(tmp_path), callback])
    assert fit(trainer, module, batches(2), batches(2)) == 143

    assert module.trained == []
    assert not (tmp_path / "checkpoints").exists() or not entries(tmp_path)
    assert "SIGTERM: ending; there is nothing to save." in caplog.messages


@pytest.mark.parametrize("verb", ["validate", "test", "predict"])
def test_sigterm_while_evaluating_ends_before_the_next_batch(trainer_of, verb):
    class Evaluates(Validates):
        test_step = Validates.validation_step

        def predict_step(self, batch: Any, batch_idx: int) -> Any:
            self.checked.append(batch)
            return batch

    module = Evaluates()
    trainer = trainer_of(callbacks=Sends(f"on_{'validation' if verb == 'validate' else verb}_batch_end", at=2))
    with pytest.raises(SystemExit) as raised:
        getattr(trainer, verb)(module, batches(5))

    assert raised.value.code == 143
    assert len(module.checked) == 2


def test_signal_in_a_validation_leaves_it_and_the_next_start_does_it_again(trainer_of, tmp_path):
    class Silent(Validates):
        on_validation_start = None

    module, again = Silent(), Silent()
    arguments = dict(max_epochs=1, enable_checkpointing=True, num_sanity_val_steps=0, val_check_interval=2)
    module.validation_step = lambda batch, batch_idx: (  # a hook of the user's would make it wait
        Silent.validation_step(module, batch, batch_idx),
        os.kill(os.getpid(), signal.SIGTERM) if len(module.checked) == 3 else None,
    )
    trainer = trainer_of(**arguments, callbacks=saves(tmp_path))
    assert fit(trainer, module, batches(6), batches(5)) == 143
    trainer_of(**arguments, callbacks=saves(tmp_path)).fit(again, batches(6), batches(5), ckpt_path="auto")

    assert (len(module.trained), len(module.checked)) == (2, 3)
    assert (len(again.trained), len(again.checked)) == (4, 15)


def test_validation_with_a_hook_that_may_change_weights_is_not_left(trainer_of, tmp_path):
    class Swaps(Callback):
        """Validates with other weights, as averages are."""

        def on_validation_start(self, trainer: Any, pl_module: Any) -> None:
            self.own = pl_module.layer.weight.data.clone()
            pl_module.layer.weight.data.zero_()

        def on_validation_end(self, trainer: Any, pl_module: Any) -> None:
            pl_module.layer.weight.data.copy_(self.own)

    module = Validates()
    trainer = trainer_of(
        max_epochs=1,
        enable_checkpointing=True,
        num_sanity_val_steps=0,
        val_check_interval=2,
        callbacks=[saves(tmp_path), Swaps(), Sends("on_validation_batch_end")],
    )
    assert fit(trainer, module, batches(6), batches(5)) == 143

    assert len(module.checked) == 5
    saved = torch.load(tmp_path / "checkpoints" / entries(tmp_path)[-1].path)
    assert saved["state_dict"]["layer.weight"].item() == module.layer.weight.item() != 0


def test_all_checkpoint_callbacks_save_although_one_fails(trainer_of, tmp_path):
    class Fails(Checkpoint):
        def save_now(self, trainer: Any, reason: str) -> None:
            raise OSError("the disk is full")

    trainer = trainer_of(
        max_epochs=1, enable_checkpointing=True, callbacks=[Fails(), saves(tmp_path), Sends("on_train_batch_end")]
    )
    with pytest.raises(OSError, match="full") as raised:
        trainer.fit(Trains(), batches(4))

    assert [entry.batch for entry in entries(tmp_path)] == [1]
    assert entries(tmp_path)[0].path in raised.value.__notes__[0]


def test_fit_in_a_thread_listens_to_no_signal_and_works(trainer_of):
    module, before = Trains(), signal.getsignal(signal.SIGTERM)
    thread = threading.Thread(target=lambda: trainer_of(max_epochs=1).fit(module, batches(3)))
    thread.start()
    thread.join(30)

    assert len(module.trained) == 3
    assert signal.getsignal(signal.SIGTERM) is before


def test_handler_that_was_there_before_is_called_too(trainer_of):
    heard: list[int] = []
    before = signal.signal(signal.SIGTERM, lambda number, frame: heard.append(number))
    try:
        assert fit(trainer_of(max_epochs=1, callbacks=Sends("on_train_batch_end")), Trains(), batches(3)) == 143
    finally:
        signal.signal(signal.SIGTERM, before)
    assert heard == [signal.SIGTERM]


def test_process_that_a_run_forks_can_be_terminated(trainer_of):
    codes: list[int] = []

    class Forks(Callback):
        def on_train_start(self, trainer: Any, pl_module: Any) -> None:
            reads, writes = os.pipe()
            child = os.fork()
            if not child:
                os.write(writes, b".")
                time.sleep(30)
                os._exit(0)
            os.read(reads, 1)
            os.kill(child, signal.SIGTERM)
            codes.append(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))

    module = Trains()
    trainer_of(max_epochs=1, callbacks=Forks()).fit(module, batches(2))

    assert codes == [-signal.SIGTERM]
    assert len(module.trained) == 2


# -- Ctrl-C ------------------------------------------------------------------------------------------------------------


def test_ctrl_c_ends_after_the_step_with_a_checkpoint_and_says_so_at_once(trainer_of, tmp_path, ctrl_c, capfd):
    told: list[BaseException] = []

    class Told(Callback):
        def on_train_batch_end(self, *args: Any) -> None:
            if len(module.trained) == 3:
                os.kill(os.getpid(), signal.SIGINT)
                assert "Press Ctrl-C again" in capfd.readouterr().err

        def on_exception(self, trainer: Any, pl_module: Any, exception: BaseException) -> None:
            told.append(exception)

    module = Trains()
    trainer = trainer_of(max_epochs=1, enable_checkpointing=True, callbacks=[saves(tmp_path), Told()])
    assert fit(trainer, module, batches(5)) == 1

    assert [type(exception) for exception in told] == [KeyboardInterrupt]
    assert [(entry.reason, entry.batch) for entry in entries(tmp_path)] == [("SIGINT", 3)]
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


def test_second_ctrl_c_ends_a_step_that_hangs(trainer_of, tmp_path, ctrl_c):
    class Hangs(Trains):
        def training_step(self, batch: Any, batch_idx: int) -> Any:
            if batch_idx == 2:
                for seconds in (0.1, 0.4):
                    threading.Timer(seconds, os.kill, (os.getpid(), signal.SIGINT)).start()
                time.sleep(60)
            return super().training_step(batch, batch_idx)

    module, began = Hangs(), time.monotonic()
    trainer = trainer_of(max_epochs=1, enable_checkpointing=True, callbacks=saves(tmp_path))
    assert fit(trainer, module, batches(5)) == 1

    assert time.monotonic() - began < 20
    assert len(module.trained) == 2
    assert not (tmp_path / "checkpoints").exists() or not entries(tmp_path)


def test_first_ctrl_c_ends_at_once_where_there_is_nothing_to_save(trainer_of, ctrl_c):
    module = Validates()
    with pytest.raises(SystemExit) as raised:
        trainer_of(callbacks=Sends("on_validation_batch_start", signal.SIGINT)).validate(module, batches(4))

    assert raised.value.code == 1
    assert module.checked == []


def test_own_way_with_ctrl_c_is_left_to_the_program(trainer_of):
    heard: list[int] = []
    before = signal.signal(signal.SIGINT, lambda number, frame: heard.append(number))
    module = Trains()
    try:
        trainer_of(max_epochs=1, callbacks=Sends("on_train_batch_end", signal.SIGINT)).fit(module, batches(3))
    finally:
        signal.signal(signal.SIGINT, before)
    assert heard == [signal.SIGINT]
    assert len(module.trained) == 3


# -- coming back -------------------------------------------------------------------------------------------------------


def test_slurm_job_is_saved_and_put_back_into_the_queue_by_its_signal(trainer_of, tmp_path, slurm_job):
    trainer = trainer_of(
        max_epochs=1,
        enable_checkpointing=True,
        callbacks=[saves(tmp_path), Sends("on_train_batch_end", signal.SIGUSR1, at=2)],
    )
    code = fit(trainer, Trains(), batches(5))

    assert slurm_job.read_text() == "requeue 4711\n"
    assert [(entry.reason, entry.batch) for entry in entries(tmp_path)] == [("SIGUSR1", 2)]
    assert code == 128 + signal.SIGUSR1


def test_task_of_a_slurm_array_is_put_back_by_its_own_number(trainer_of, slurm_job, monkeypatch):
    monkeypatch.setenv("SLURM_ARRAY_JOB_ID", "4700")
    monkeypatch.setenv("SLURM_ARRAY_TASK_ID", "11")
    fit(trainer_of(max_epochs=1, callbacks=Sends("on_train_batch_end", signal.SIGUSR1)), Trains(), batches(3))

    assert slurm_job.read_text() == "requeue 4700_11\n"


def test_other_tasks_of_a_slurm_job_leave_the_queue_to_the_first(trainer_of, slurm_job, monkeypatch):
    monkeypatch.setenv("SLURM_PROCID", "1")
    fit(trainer_of(max_epochs=1, callbacks=Sends("on_train_batch_end", signal.SIGUSR1)), Trains(), batches(3))

    assert not slurm_job.exists()


def test_sigterm_of_slurm_saves_and_is_no_requeue(trainer_of, slurm_job):
    assert fit(trainer_of(max_epochs=1, callbacks=Sends("on_train_batch_end")), Trains(), batches(3)) == 143
    assert not slurm_job.exists()


def test_slurm_signal_before_its_sigterm_still_is_a_requeue(trainer_of, slurm_job):
    both = [Sends("on_train_batch_end"), Sends("on_train_batch_end", signal.SIGUSR1)]
    assert fit(trainer_of(max_epochs=1, callbacks=both), Trains(), batches(3)) == 138
    assert slurm_job.exists()


def test_slurm_uses_the_signal_that_it_was_told(trainer_of, slurm_job):
    plugin = SLURMEnvironment(requeue_signal=signal.SIGUSR2)
    trainer = trainer_of(max_epochs=1, plugins=plugin, callbacks=Sends("on_train_batch_end", signal.SIGUSR2))
    assert fit(trainer, Trains(), batches(3)) == 128 + signal.SIGUSR2
    assert slurm_job.exists()


def test_slurm_without_requeue_leaves_the_signal_alone(trainer_of, slurm_job):
    heard: list[int] = []
    before = signal.signal(signal.SIGUSR1, lambda number, frame: heard.append(number))
    try:
        trainer_of(
            max_epochs=1,
            plugins=[SLURMEnvironment(auto_requeue=False)],
            callbacks=Sends("on_train_batch_end", signal.SIGUSR1),
        ).fit(Trains(), batches(3))
    finally:
        signal.signal(signal.SIGUSR1, before)
    assert heard == [signal.SIGUSR1]


def test_own_way_with_the_signal_of_slurm_is_kept_and_told(trainer_of, slurm_job):
    before = signal.signal(signal.SIGUSR1, lambda number, frame: None)
    try:
        with pytest.warns(UserWarning, match="its own way with SIGUSR1"):
            trainer_of(max_epochs=1, callbacks=Sends("on_train_batch_end", signal.SIGUSR1)).fit(Trains(), batches(3))
    finally:
        signal.signal(signal.SIGUSR1, before)
    assert not slurm_job.exists()


@pytest.mark.parametrize("name", ["bash", "interactive"])
def test_shell_in_slurm_is_no_job(slurm_job, monkeypatch, trainer_of, name):
    monkeypatch.setenv("SLURM_JOB_NAME", name)
    assert not SLURMEnvironment.detect()
    assert SLURMEnvironment.job_id() is None
    assert trainer_of().signals.requeue is None


def test_requeue_that_fails_is_shown_and_the_checkpoint_stays(trainer_of, tmp_path, slurm_job):
    (tmp_path / "bin" / "scontrol").write_text("#!/bin/sh\necho 'Job is not requeueable' >&2\nexit 1\n")
    trainer = trainer_of(
        max_epochs=1,
        enable_checkpointing=True,
        callbacks=[saves(tmp_path), Sends("on_train_batch_end", signal.SIGUSR1, at=2)],
    )
    with pytest.raises(RuntimeError, match=r"scontrol requeue 4711.*Job is not requeueable"):
        trainer.fit(Trains(), batches(5))

    assert [entry.batch for entry in entries(tmp_path)] == [2]


def test_slurm_job_that_was_started_again_goes_on_by_itself(trainer_of, tmp_path, slurm_job, monkeypatch, caplog):
    caplog.set_level(logging.INFO)
    arguments = dict(max_epochs=1, enable_checkpointing=True)
    sends = Sends("on_train_batch_end", signal.SIGUSR1, at=2)
    fit(trainer_of(**arguments, callbacks=[saves(tmp_path), sends]), Trains(), batches(5))
    monkeypatch.setenv("SLURM_RESTART_COUNT", "1")
    module = Trains()
    trainer_of(**arguments, callbacks=saves(tmp_path)).fit(module, batches(5))

    assert module.trained == [(0, 2), (0, 3), (0, 4)]
    assert any("the job was started again" in message for message in caplog.messages)


def test_slurm_job_that_was_started_again_goes_on_from_the_file_that_lightning_has_left(
    trainer_of, tmp_path, slurm_job, monkeypatch
):
    arguments = dict(max_epochs=1, enable_checkpointing=True)
    sends = Sends("on_train_batch_end", signal.SIGUSR1, at=2)
    fit(trainer_of(**arguments, callbacks=[saves(tmp_path), sends]), Trains(), batches(6))
    left = [tmp_path / f"hpc_ckpt_{number}.ckpt" for number in (2, 10, 11)]
    other = trainer_of(max_epochs=1, callbacks=Sends("on_train_batch_end", signal.SIGTERM, at=4))
    fit(other, Trains(), batches(6))
    for path in left:
        other.save_checkpoint(path)
    os.truncate(left[-1], 1000)
    monkeypatch.setenv("SLURM_RESTART_COUNT", "1")
    again = trainer_of(**arguments, callbacks=[saves(tmp_path), Sends("on_train_batch_end", signal.SIGUSR1)])
    with pytest.warns(UserWarning, match=r"hpc_ckpt_11\.ckpt is not whole"):
        fit(again, Trains(), batches(6))
    left[-1].unlink()
    last = trainer_of(**arguments, callbacks=saves(tmp_path))
    last.fit(Trains(), batches(6))

    assert again.loaded_ckpt_path == str(left[1])
    assert Path(last.loaded_ckpt_path).parent.name == "checkpoints"  # which is newer


def test_job_that_was_not_started_again_leaves_files_of_lightning_alone(trainer_of, tmp_path, slurm_job):
    first = trainer_of(max_epochs=1)
    first.fit(Trains(), batches(2))
    first.save_checkpoint(tmp_path / "hpc_ckpt_1.ckpt")
    module = Trains()
    trainer_of(max_epochs=1, enable_checkpointing=True, callbacks=saves(tmp_path)).fit(module, batches(2))

    assert len(module.trained) == 2


def test_slurm_job_that_was_started_again_warns_of_a_path_that_goes_back(trainer_of, tmp_path, slurm_job, monkeypatch):
    first = trainer_of(max_epochs=1, enable_checkpointing=True, callbacks=saves(tmp_path))
    first.fit(Trains(), batches(2))
    monkeypatch.setenv("SLURM_RESTART_COUNT", "1")
    again = trainer_of(max_epochs=2, enable_checkpointing=True, callbacks=saves(tmp_path))
    with pytest.warns(UserWarning, match="Write `ckpt_path='auto'`"):
        again.fit(Trains(), batches(2), ckpt_path=first.checkpoint_callback.best_model_path)


def test_files_of_a_slurm_job_are_in_a_directory_of_its_own(trainer_of, slurm_job, tmp_path):
    trainer = trainer_of(logger=True)

    assert trainer.log_dir == str(tmp_path / "lightning_logs" / "version_4711")


def test_exit_code_asks_the_scheduler_for_another_start(trainer_of):
    trainer = trainer_of(max_epochs=1, plugins=ExitCodeRequeue(85), callbacks=Sends("on_train_batch_end"))
    assert fit(trainer, Trains(), batches(3)) == 85


@pytest.mark.parametrize("code", [0, 256, -1, True, "75"])
def test_exit_code_that_is_none_is_refused(code):
    with pytest.raises(MisconfigurationException, match="from 1 to 255"):
        ExitCodeRequeue(code)


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGINT, 999])
def test_signal_that_no_program_can_catch_is_refused(number):
    with pytest.raises(MisconfigurationException, match="SIGUSR1"):
        SLURMEnvironment(requeue_signal=number)


# -- the deadline ------------------------------------------------------------------------------------------------------


def of_time(seconds: float, **arguments: Any) -> Timer:
    return Timer({"seconds": seconds}, verbose=False, **arguments)


class UsesUpTheTime(Callback):
    """Lets the Timer's time pass in the batch of this number."""

    def __init__(self, timer: Timer, batch: int) -> None:
        self.timer, self.batch = timer, batch

    def on_train_batch_start(self, trainer: Any, *args: Any) -> None:
        if trainer.progress.total_batches == self.batch:
            self.timer._train_time_before = 1e6


@pytest.mark.parametrize("validates", [True, False])
@pytest.mark.parametrize("batch", [1, 3, 4, 6])
def test_run_that_ran_out_of_time_goes_on_within_its_epoch(trainer_of, tmp_path, batch, validates):
    class Logs(Validates):
        def training_step(self, batch: Any, batch_idx: int) -> Any:
            loss = super().training_step(batch, batch_idx)
            self.log("loss", loss, on_step=True, on_epoch=True)
            return loss

    def run(module: Any, folder: Path, *callbacks: Any) -> Trainer:
        trainer = trainer_of(
            max_epochs=2,
            enable_checkpointing=True,
            num_sanity_val_steps=0,
            val_check_interval=2,
            limit_val_batches=None if validates else 0,
            accumulate_grad_batches=2,
            log_every_n_steps=2,
            logger=CSVLogger(folder, version=0),
            callbacks=[*callbacks, saves(folder)],
        )
        trainer.fit(module, batches(5), batches(2), ckpt_path="auto")
        return trainer

    def rows(folder: Path) -> str:
        return (folder / "lightning_logs" / "version_0" / "metrics.csv").read_text()

    whole, cut, resumed = Logs(), Logs(), Logs()
    cut.load_state_dict(whole.state_dict())
    run(whole, tmp_path / "whole")

    timer = of_time(3600)
    run(cut, tmp_path, timer, UsesUpTheTime(timer, batch))
    newest = entries(tmp_path)[-1]
    assert newest.batch == batch + 1
    asked_for = batch in (1, 3, 6) if validates else batch == 4  # at validations, or at the ends of epochs
    assert newest.reason == ("epoch" if asked_for else "max_time")
    assert not index.read(str(tmp_path / "checkpoints")).finished
    trainer = run(resumed, tmp_path, of_time(1e9))

    assert cut.trained + resumed.trained == whole.trained
    assert trainer.current_epoch == 2
    assert index.read(str(tmp_path / "checkpoints")).finished
    assert rows(tmp_path) == rows(tmp_path / "whole")
    for name, value in whole.state_dict().items():
        assert torch.equal(resumed.state_dict()[name], value)


# -- loader workers ----------------------------------------------------------------------------------------------------

_GROUP = """
    import os, signal, sys, time, warnings
    warnings.simplefilter("ignore")
    import torch
    from torch.utils.data import DataLoader
    from fulmen import Callback, LightningModule, Trainer

    class Data(torch.utils.data.Dataset):
        def __len__(self):
            return 40
        def __getitem__(self, place):
            os.write(1, f"worker {os.getpid()}\\n".encode())  # several write: in one piece
            return torch.ones(1)

    class Model(LightningModule):
        def __init__(self):
            super().__init__()
            self.layer = torch.nn.Linear(1, 1)
        def training_step(self, batch, batch_idx):
            os.write(1, f"batch {batch_idx}\\n".encode())
            time.sleep(0.05)
            return self.layer(batch).sum()
        def configure_optimizers(self):
            return torch.optim.SGD(self.parameters(), 0.1)

    loader = DataLoader(Data(), num_workers=2, multiprocessing_context=sys.argv[2])
    trainer = Trainer(
        accelerator="cpu", max_epochs=1, default_root_dir=sys.argv[1], logger=False,
        enable_progress_bar=False, enable_model_summary=False,
    )
    if __name__ == "__main__":
        trainer.fit(Model(), loader)
"""


def gone(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return True
    return Path(f"/proc/{process}/stat").exists() and Path(f"/proc/{process}/stat").read_text().split()[2] == "Z"


def started_in_a_group(tmp_path: Path, context: str) -> tuple[subprocess.Popen[str], list[int]]:
    """A run of its own process group that has trained some batches, and its workers."""
    program = tmp_path / "program.py"
    program.write_text(textwrap.dedent(_GROUP))
    run = subprocess.Popen(
        [sys.executable, str(program), str(tmp_path), context],
        env=ENVIRONMENT,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )
    assert run.stdout is not None
    workers: set[int] = set()
    for line in run.stdout:
        if line.startswith("worker"):
            workers.add(int(line.split()[1]))
        if line.startswith("batch 3"):
            break
    return run, sorted(workers)


@pytest.mark.parametrize("context", ["fork", pytest.param("spawn", marks=pytest.mark.slow)])
@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 143), (signal.SIGINT, 1)])
def test_workers_outlive_a_signal_to_the_process_group_and_end_with_the_run(tmp_path, context, number, code):
    run, workers = started_in_a_group(tmp_path, context)
    os.killpg(run.pid, number)
    output, _ = run.communicate(timeout=60)

    assert run.returncode == code, output
    assert "saved" in output
    assert "killed by signal" not in output
    assert len(workers) == 2
    assert all(map(gone, workers))


@pytest.mark.slow
def test_workers_end_when_the_run_is_killed(tmp_path):
    run, workers = started_in_a_group(tmp_path, "fork")
    run.kill()
    run.communicate(timeout=60)
    deadline = time.monotonic() + 20
    while not all(map(gone, workers)) and time.monotonic() < deadline:
        time.sleep(0.1)

    assert all(map(gone, workers))


def test_worker_init_fn_of_the_user_is_called_and_given_back(trainer_of, tmp_path):
    def own(worker: int) -> None:
        (tmp_path / f"worker{worker}").write_text(str(signal.getsignal(signal.SIGTERM)))

    loader = batches(4, num_workers=2, worker_init_fn=own)
    trainer_of(max_epochs=1).fit(Trains(), loader)

    assert loader.worker_init_fn is own
    assert sorted(path.name for path in tmp_path.glob("worker*")) == ["worker0", "worker1"]


def wait_for_file(path: Path) -> None:
    deadline = time.monotonic() + 60
    while not path.exists() and time.monotonic() < deadline:
        time.sleep(0.05)


@pytest.mark.slow
def test_worker_that_hangs_is_ended(trainer_of, tmp_path):
    class Hangs(torch.utils.data.Dataset[Any]):
        def __len__(self) -> int:
            return 4

        def __getitem__(self, place: int) -> Any:
            if place == 3:
                (tmp_path / "process").write_text(str(os.getpid()))
                time.sleep(120)
            return torch.ones(1, 1)

    loader = torch.utils.data.DataLoader(Hangs(), num_workers=1, batch_size=None)
    until_it_hangs = LambdaCallback(on_train_batch_end=lambda *_: wait_for_file(tmp_path / "process"))
    trainer_of(max_epochs=1, limit_train_batches=2, callbacks=until_it_hangs).fit(Trains(), loader)
    deadline = time.monotonic() + 20
    while time.monotonic() < deadline and not gone(int((tmp_path / "process").read_text())):
        time.sleep(0.1)

    assert gone(int((tmp_path / "process").read_text()))
