"""TimeProfiler: the parts of a run add up to the whole, and each moment counts for the right one."""

from __future__ import annotations

import re
import threading
from types import SimpleNamespace

import pytest
from torch.optim import SGD

from fulmen.callbacks import Callback, ModelCheckpoint
from fulmen.demos.boring_classes import BoringModel, ManualOptimBoringModel
from fulmen.loggers.csv_logs import CSVLogger
from fulmen.profilers import TimeProfiler, time_spent


class Clock:
    """A clock that moves on by hand, in nanoseconds."""

    def __init__(self):
        self.now = 1000

    def perf_counter_ns(self):
        return self.now


@pytest.fixture
def clock(monkeypatch):
    clock = Clock()
    monkeypatch.setattr(time_spent, "time", SimpleNamespace(perf_counter_ns=clock.perf_counter_ns))
    return clock


def takes(clock, nanoseconds, method):
    """``method``, which takes so long by the clock."""

    def slow(*args, **kwargs):
        clock.now += nanoseconds
        return method(*args, **kwargs)

    return slow


class Loader:
    """Batches for which one waits a second each."""

    def __init__(self, clock, dataset, seconds):
        self.clock, self.dataset, self.seconds = clock, dataset, seconds

    def __len__(self):
        return len(self.dataset)

    def __iter__(self):
        for index in range(len(self.dataset)):
            self.clock.now += self.seconds
            yield self.dataset[index][None]


SECOND = 10**9


def test_time_profiler_each_moment_counts_for_what_ran(clock, trainer_of, tmp_path):
    class Slow(BoringModel):
        def training_step(self, batch, batch_idx):
            clock.now += 7 * SECOND
            with self.trainer.profiler.profile("augment"):
                clock.now += SECOND // 2
            self.log("x", 1.0)
            return super().training_step(batch, batch_idx)

        def backward(self, loss):
            clock.now += 11 * SECOND
            loss.backward()

        def on_train_batch_start(self, batch, batch_idx):
            clock.now += SECOND // 4

        def validation_step(self, batch, batch_idx):
            clock.now += 100 * SECOND

        def train_dataloader(self):
            return Loader(clock, super().train_dataloader().dataset, 2 * SECOND)

        def configure_optimizers(self):
            clock.now += 60 * SECOND
            return SlowSGD(self.parameters(), lr=0.1)

    class SlowSGD(SGD):
        def step(self, closure=None):
            clock.now += 3 * SECOND
            return super().step(closure)

    class Slowing(Callback):
        def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx):
            clock.now += 5 * SECOND

        def on_validation_batch_end(self, trainer, pl_module, outputs, batch, batch_idx):
            clock.now += 30 * SECOND

        def on_save_checkpoint(self, trainer, pl_module, checkpoint):
            clock.now += 17 * SECOND

    logger = CSVLogger(tmp_path)
    logger.log_metrics = takes(clock, SECOND, logger.log_metrics)
    profiler = TimeProfiler()
    trainer = trainer_of(
        max_epochs=1,
        limit_train_batches=4,
        limit_val_batches=2,
        num_sanity_val_steps=1,
        log_every_n_steps=2,
        logger=logger,
        callbacks=[Slowing(), ModelCheckpoint(save_last=False)],
        enable_checkpointing=True,
        profiler=profiler,
    )
    start = clock.now
    trainer.fit(Slow())

    spent = {name: nanoseconds / SECOND for name, nanoseconds in profiler.nanoseconds.items() if nanoseconds}
    assert spent == {
        "set-up": 60,
        "data wait": 8,
        "forward": 28,
        "backward": 44,
        "optimizer step": 12,
        "hooks of the module": 1,
        "callbacks": 20,
        "logging": 3,  # the first step, the second, and the fourth
        "checkpoints": 17,
        "validation": 3 * 130,
        "augment": 2,
    }
    assert sum(profiler.nanoseconds.values()) == clock.now - start


@pytest.mark.parametrize("model", [BoringModel, ManualOptimBoringModel])
@pytest.mark.parametrize("verb", ["fit", "validate", "test", "predict"])
def test_time_profiler_parts_of_a_real_run_add_up_to_the_whole(model, verb, trainer_of):
    profiler = TimeProfiler()
    trainer = trainer_of(max_epochs=2, profiler=profiler)
    getattr(trainer, verb)(model())
    report = profiler.summary()
    parts = profiler.nanoseconds
    assert min(parts.values()) > 0
    assert {"set-up", "data wait", "forward"} <= set(parts)
    assert ("validation" in parts) == (verb == "fit")
    assert ("backward" in parts) == ("optimizer step" in parts) == (verb == "fit")
    shares = [float(share) for name, share in re.findall(r"^(\S.*?)  .* ([\d.]+)%$", report, re.MULTILINE)]
    assert shares[-1] == 100.0
    assert sum(shares[:-1]) == pytest.approx(100, abs=0.06 * len(shares))


def test_time_profiler_reports_until_the_exception_that_ended_the_run(trainer_of, capsys):
    class Raising(BoringModel):
        def training_step(self, batch, batch_idx):
            if batch_idx == 3:
                raise KeyError("batch 3")
            return super().training_step(batch, batch_idx)

    trainer = trainer_of(max_epochs=1, profiler="time")
    with pytest.raises(KeyError):
        trainer.fit(Raising())
    report = capsys.readouterr().out
    assert "Where the time of fit went" in report
    assert "backward" in report


def test_time_profiler_second_run_counts_for_itself_alone(clock):
    profiler = TimeProfiler()
    for nanoseconds in (5, 7):
        profiler.setup("fit")
        with profiler.profile("a"):
            clock.now += nanoseconds
        profiler.describe()
        clock.now += 100  # between runs
        with profiler.profile("save_checkpoint"):
            clock.now += 1000
        assert profiler.nanoseconds["a"] == sum(profiler.nanoseconds.values()) == nanoseconds


def test_time_profiler_action_left_open_by_an_exception_ends_with_what_is_around_it(clock):
    profiler = TimeProfiler()
    profiler.setup("fit")
    profiler.start("outer")
    profiler.start("left open")
    clock.now += 1
    profiler.stop("outer")
    clock.now += 10
    assert profiler.nanoseconds == {"outer": 0, "left open": 1, "other": 10}


def test_time_profiler_checkpoint_within_a_validation_counts_as_a_checkpoint(clock):
    profiler = TimeProfiler()
    profiler.setup("fit")
    with profiler.profile("validation"), profiler.profile("[Callback]Mine.on_validation_end"):
        clock.now += 1
        with profiler.profile("save_checkpoint"):
            clock.now += 10
            with profiler.profile("[Callback]Mine.on_save_checkpoint"):
                clock.now += 100
    assert profiler.nanoseconds == {"checkpoints": 110, "validation": 1, "other": 0}


def test_time_profiler_action_never_started_is_refused():
    profiler = TimeProfiler()
    profiler.setup("fit")
    with pytest.raises(ValueError, match="'a' was stopped but never started"):
        profiler.stop("a")


def test_time_profiler_work_of_another_thread_is_not_counted(clock):
    profiler = TimeProfiler()
    profiler.setup("fit")

    def beside():
        with profiler.profile("beside"):
            clock.now += 3

    thread = threading.Thread(target=beside)
    thread.start()
    thread.join()
    assert profiler.nanoseconds == {"other": 3}


def test_time_profiler_file_is_plain_text_of_aligned_columns(clock, tmp_path):
    profiler = TimeProfiler(dirpath=tmp_path, filename="time")
    profiler.setup("fit", local_rank=1)
    for action, nanoseconds in (
        ("[Data]train_dataloader.next", 30 * SECOND),
        ("[Callback]LearningRateMonitor.on_train_batch_start", SECOND),
        ("[Callback]EarlyStopping{'monitor': 'x'}.on_train_epoch_end", 9 * SECOND),
        ("[LightningModule]Net.training_step", 3960 * SECOND),
    ):
        with profiler.profile(action):
            clock.now += nanoseconds
    profiler.describe()
    text = (tmp_path / "fit-time-1.txt").read_text()
    assert text.splitlines()[1:] == [
        "Where the time of fit went, rank 1",
        "----------------------------",
        "data wait    30.00 s    0.8%",
        "forward    1:06:00 h   99.0%",
        "callbacks    10.00 s    0.2%",
        "----------------------------",
        "whole      1:06:40 h  100.0%",
    ]


def test_time_profiler_much_waiting_for_data_is_said(clock):
    profiler = TimeProfiler()
    profiler.setup("fit")
    with profiler.profile("[Data]train_dataloader.next"):
        clock.now += 3 * SECOND
    clock.now += SECOND
    assert "75% of the time was spent waiting for data" in profiler.summary()


def test_run_without_a_profiler_has_nothing_wrapped(trainer_of):
    class Looking(BoringModel):
        def on_train_start(self):
            self.wrapped = [name for name in vars(self.trainer.metrics) if name.startswith(("finish", "write"))]
            self.measures = self.trainer.data.profiler

    model = Looking()
    trainer_of(max_steps=1).fit(model)
    assert (model.wrapped, model.measures) == ([], None)
