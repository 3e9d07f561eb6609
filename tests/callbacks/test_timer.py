"""Timer: measures, and stops in time."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
import torch

from fulmen import Trainer, seed_everything
from fulmen.callbacks import timer as timer_module
from fulmen.callbacks.model_checkpoint import ModelCheckpoint
from fulmen.callbacks.timer import Interval, Timer
from fulmen.demos.boring_classes import BoringModel
from fulmen.utilities.exceptions import MisconfigurationException


class Clock:
    """A monotonic clock that moves on by hand."""

    def __init__(self) -> None:
        self.seconds = 100.0

    def monotonic(self) -> float:
        return self.seconds


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(timer_module, "time", clock)
    return clock


class Slow(BoringModel):
    """Takes ten seconds per batch, and one per validation or test batch."""

    def __init__(self, clock: Clock) -> None:
        super().__init__()
        self.clock = clock

    def training_step(self, batch: Any, batch_idx: int) -> Any:
        self.clock.seconds += 10
        return super().training_step(batch, batch_idx)

    def validation_step(self, batch: Any, batch_idx: int) -> None:
        self.clock.seconds += 1

    def test_step(self, batch: Any, batch_idx: int) -> None:
        self.clock.seconds += 1


def _trainer(*callbacks: Any, **arguments: Any) -> Trainer:
    options: dict[str, Any] = {
        "accelerator": "cpu",
        "max_epochs": 3,
        "limit_train_batches": 4,
        "limit_val_batches": 2,
        "limit_test_batches": 3,
        "logger": False,
        "enable_progress_bar": False,
        "enable_model_summary": False,
        "num_sanity_val_steps": 0,
        **arguments,
    }
    return Trainer(callbacks=list(callbacks), **options)


class Saved(ModelCheckpoint):
    """Writes to the folder that is given, at each epoch."""

    def __init__(self, folder: Any) -> None:
        super().__init__(folder, filename="{epoch}", save_top_k=-1)


def test_run_with_max_time_goes_on_without_it_and_warns_of_no_callback(tmp_path):
    _trainer(Saved(tmp_path), max_epochs=1, max_time="00:01:00:00").fit(BoringModel())

    _trainer(Saved(tmp_path)).fit(BoringModel(), ckpt_path=tmp_path / "epoch=0.ckpt")  # a warning is an error


def test_run_with_a_timer_of_the_users_that_goes_on_without_it_is_warned(tmp_path):
    _trainer(Saved(tmp_path), Timer("00:01:00:00"), max_epochs=1).fit(BoringModel())

    with pytest.warns(UserWarning, match="'Timer'"):
        _trainer(Saved(tmp_path)).fit(BoringModel(), ckpt_path=tmp_path / "epoch=0.ckpt")


@pytest.mark.parametrize(
    ("callbacks", "max_time", "said"),
    [
        ([], "00:00:10:00", "after 3 epochs, or after 00:00:10:00 (max_time)"),
        ([], {"days": 2, "seconds": 3}, "after 3 epochs, or after 02:00:00:03 (max_time)"),
        ([Timer("90min")], None, "after 3 epochs, or after 00:01:30:00 (Timer)"),
        ([Timer()], None, "after 3 epochs"),
    ],
)
def test_explanation_says_when_the_time_is_over(callbacks, max_time, said, capsys):
    _trainer(*callbacks, max_time=max_time).explain()

    assert f"stops         {said}" in capsys.readouterr().out.splitlines()


class Judged(Slow):
    """Logs ``v`` in each validation."""

    def on_validation_epoch_end(self) -> None:
        self.log("v", float(sum(each.sum() for each in self.parameters())))


@pytest.mark.parametrize(
    ("seconds", "counts", "options"),
    [
        (80, True, {}),  # over at the end of the second epoch, with the validation that belongs to it
        (60, True, {"val_check_interval": 2}),  # at the second validation
        (50, False, {}),  # in the middle of an epoch: one that a longer run does not have
    ],
)
def test_last_validation_of_max_time_counts_if_a_longer_run_has_it(seconds, counts, options, clock, tmp_path):
    def run(folder: str, **more: Any) -> tuple[ModelCheckpoint, Any, list[str]]:
        seed_everything(1, verbose=False)
        best = ModelCheckpoint(tmp_path / folder, monitor="v", mode="max", filename="{step}-{v:.4f}", save_top_k=-1)
        module = Judged(clock)
        ckpt_path = more.pop("ckpt_path", None)
        _trainer(best, **options, **more).fit(module, ckpt_path=ckpt_path)
        return best, module, sorted(path.name for path in (tmp_path / folder).glob("*.ckpt"))

    whole, module, files = run("whole")
    short, _, found = run("short", max_time={"seconds": seconds})
    steps = seconds // 10
    assert any(name.startswith(f"step={steps}-") for name in found) == counts
    assert (f"step={steps}-" in "".join(short.best_k_models)) == counts

    resumed, again, left = run("short", ckpt_path="last")

    assert left == files
    names = [[Path(path).name for path in policy.best_k_models] for policy in (whole, resumed)]
    assert names[0] == names[1]
    assert Path(whole.best_model_path).name == Path(resumed.best_model_path).name
    for one, other in zip(module.parameters(), again.parameters()):
        assert torch.equal(one, other)


def test_time_of_each_stage_is_measured(clock):
    timer = Timer()
    trainer = _trainer(timer, enable_checkpointing=False)
    model = Slow(clock)
    trainer.fit(model)
    trainer.test(model, verbose=False)

    assert timer.time_elapsed() == timer.time_elapsed("train") == 3 * (4 * 10 + 2)
    assert timer.time_elapsed("validate") == 2  # of the last one
    assert timer.time_elapsed("test") == 3
    assert timer.time_remaining() is None
    assert (timer.start_time(), timer.end_time()) == (100.0, 226.0)


def test_time_that_was_not_yet_measured_is_zero():
    timer = Timer("1h")

    assert (timer.time_elapsed(), timer.time_remaining()) == (0.0, 3600.0)
    assert (timer.start_time(), timer.end_time()) == (None, None)


@pytest.mark.parametrize(("duration", "steps"), [("60s", 6), ({"seconds": 45}, 5), ("00:00:01:00", 6)])
def test_training_stops_after_the_batch_in_which_its_time_is_used_up(clock, duration, steps):
    trainer = _trainer(Timer(duration), limit_val_batches=0, enable_checkpointing=False)
    trainer.fit(Slow(clock))

    assert trainer.global_step == steps


def test_training_stops_at_the_end_of_the_epoch_when_it_looks_per_epoch(clock):
    trainer = _trainer(Timer(timedelta(seconds=45), interval="epoch"), limit_val_batches=0, enable_checkpointing=False)
    trainer.fit(Slow(clock))

    assert trainer.global_step == 8


def test_minimum_of_epochs_is_kept(clock):
    trainer = _trainer(Timer("5s"), min_epochs=2, limit_val_batches=0, enable_checkpointing=False)
    trainer.fit(Slow(clock))

    assert trainer.current_epoch >= 2


def test_resumed_run_has_what_is_left_of_the_time(clock, tmp_path):
    checkpoint = ModelCheckpoint(tmp_path, every_n_train_steps=2)
    _trainer(Timer("60s"), checkpoint, max_steps=2, limit_val_batches=0).fit(Slow(clock))
    clock.seconds += 10_000
    timer = Timer("60s")
    trainer = _trainer(timer, ModelCheckpoint(tmp_path, every_n_train_steps=2), limit_val_batches=0)
    trainer.fit(Slow(clock), ckpt_path=checkpoint.best_model_path)

    assert trainer.global_step == 6
    assert timer.time_elapsed() == 60.0


def test_resumed_run_without_time_left_does_not_train(clock, tmp_path):
    checkpoint = ModelCheckpoint(tmp_path, every_n_train_steps=2)
    _trainer(Timer("60s"), checkpoint, max_steps=2, limit_val_batches=0).fit(Slow(clock))
    trainer = _trainer(Timer("15s"), ModelCheckpoint(tmp_path, every_n_train_steps=2), limit_val_batches=0)
    with pytest.warns(UserWarning, match="Timer whose time is used up"):
        trainer.fit(Slow(clock), ckpt_path=checkpoint.best_model_path)

    assert trainer.global_step == 2


def test_timer_without_a_duration_asks_nothing_after_a_batch():
    assert Timer().on_train_batch_end is None
    assert Timer("1h").on_train_batch_end is not None
    assert Timer("1h", interval=Interval.epoch).on_train_batch_end is None


@pytest.mark.parametrize(
    ("arguments", "named"),
    [({"interval": "batch"}, "interval='batch'"), ({"duration": "soon"}, "soon"), ({"duration": 5}, "5")],
)
def test_arguments_that_cannot_be_read_are_named(arguments, named):
    with pytest.raises(MisconfigurationException, match=named):
        Timer(**arguments)
