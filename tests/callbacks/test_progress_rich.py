"""What a person sees of the rich bar."""

from __future__ import annotations

import codecs
import contextlib
import gc
import logging
import os
import pty
import sys
import termios
import threading
import weakref

import pytest
import torch
from torch.utils.data import DataLoader, Dataset

from fulmen.callbacks.callback import Callback
from fulmen.callbacks.progress.progress_bar import default_progress_bar
from fulmen.callbacks.progress.rich_progress import RichProgressBar, RichProgressBarTheme

from .screen import Model, Screen, ValidatedModel, batches, trainer_with, without_greeting

OFTEN = 1e6  # refreshes per second: whatever can be shown is shown
SELDOM = 1e-6


@pytest.fixture
def screen(monkeypatch):
    """A terminal of 100 columns, the standard output within ``with screen:``."""
    monkeypatch.setenv("COLUMNS", "100")
    monkeypatch.setenv("TERM", "xterm")
    return Screen()


def set_width(screen, monkeypatch, columns):
    monkeypatch.setenv("COLUMNS", str(columns))
    screen.columns = columns


def test_rich_bar_after_fit_shows_the_last_epoch_in_one_line(screen):
    with screen:
        trainer_with(RichProgressBar(OFTEN), max_epochs=3).fit(Model(), batches(12))

    (line,) = screen.lines
    assert line.startswith("Epoch 2/2 ")
    assert " 12/12 " in line
    assert "it/s" in line
    assert "loss: 0." in line


def test_rich_bar_in_training_redraws_its_line_in_place(screen):
    with screen:
        trainer_with(RichProgressBar(OFTEN)).fit(Model(), batches(5))

    assert all(any(f" {n}/5 " in frame for frame in screen.frames) for n in range(6))
    assert not any("\n" in frame for frame in screen.frames)


def test_rich_bar_in_validation_has_a_second_line_that_disappears(screen):
    with screen:
        trainer_with(RichProgressBar(OFTEN)).fit(ValidatedModel(), batches(2), batches(3))

    both = [frame.split("\n") for frame in screen.frames if "Validation" in frame]
    assert both
    assert all(lines[0].startswith("Epoch 0/0") and lines[1].startswith("Validation") for lines in both)
    assert len(screen.lines) == 1
    assert "val_loss: 0." in screen.lines[0]


def test_rich_bar_in_the_sanity_check_has_a_line_that_disappears(screen):
    with screen:
        trainer_with(RichProgressBar(OFTEN), num_sanity_val_steps=2).fit(ValidatedModel(), batches(2), batches(3))

    assert any(frame.startswith("Sanity Checking") and "1/2" in frame for frame in screen.frames)
    assert not any("Sanity" in line for line in screen.lines)


@pytest.mark.parametrize(
    ("verb", "words"), [("validate", "Validation"), ("test", "Testing"), ("predict", "Predicting")]
)
def test_rich_bar_of_a_verb_stays_on_the_screen(screen, verb, words):
    trainer = trainer_with(RichProgressBar(OFTEN))

    with screen:
        getattr(trainer, verb)(ValidatedModel(), batches(4), **({} if verb == "predict" else {"verbose": False}))

    line = screen.lines[0]
    assert line.startswith(words)
    assert " 4/4 " in line


def test_rich_bar_over_two_loaders_counts_the_batches_of_both(screen):
    with screen:
        trainer_with(RichProgressBar(OFTEN)).validate(ValidatedModel(), [batches(2), batches(3)], verbose=False)

    assert " 5/5 " in screen.lines[0]


def test_rich_bar_with_data_of_unknown_length_shows_no_total(screen):
    with screen:
        trainer_with(RichProgressBar(OFTEN)).fit(Model(), batches(4, sized=False))

    assert " 4/-- " in screen.lines[0]
    assert "• -:--" in screen.lines[0]


def test_rich_bar_without_a_limit_of_epochs_shows_none(screen):
    with screen:
        trainer_with(RichProgressBar(OFTEN), max_epochs=-1, max_steps=3).fit(Model(), batches(5))

    assert screen.lines[0].startswith("Epoch 0 ")
    assert " 3/3 " in screen.lines[0]


def test_rich_bar_leave_keeps_a_line_for_each_epoch(screen):
    with screen:
        trainer_with(RichProgressBar(OFTEN, leave=True), max_epochs=3).fit(ValidatedModel(), batches(4), batches(1))

    assert [line[:9] for line in screen.lines] == ["Epoch 0/2", "Epoch 1/2", "Epoch 2/2"]
    assert all(" 4/4 " in line and "val_loss: " in line for line in screen.lines)


def test_rich_bar_at_the_end_shows_what_was_logged_when_the_epoch_ended(screen):
    class Ends(Model):
        def on_train_epoch_end(self):
            self.log("late", 7.0, prog_bar=True)

    with screen:
        trainer_with(RichProgressBar(OFTEN), max_epochs=2).fit(Ends(), batches(2))

    assert "late: 7.000" in screen.lines[-1]


def test_rich_bar_between_refreshes_reads_no_metrics(screen):
    class Counting(RichProgressBar):
        reads = 0

        def get_metrics(self, trainer, pl_module):
            Counting.reads += 1
            return super().get_metrics(trainer, pl_module)

    with screen:
        trainer_with(Counting(SELDOM)).fit(Model(), batches(50))

    assert Counting.reads == 2  # the end of the epoch, and of the training
    assert " 50/50 " in screen.lines[0]


def test_rich_bar_with_many_short_epochs_is_not_drawn_for_each(screen):
    with screen:
        trainer_with(RichProgressBar(SELDOM), max_epochs=100).fit(Model(), batches(1))

    drawn = {line[:10] for frame in screen.frames for line in frame.split("\n")}
    assert len(drawn) <= 3
    assert screen.lines[0].startswith("Epoch 99/99")


def test_rich_bar_starts_no_thread(screen):
    class Threads(Callback):
        def on_train_batch_end(self, *_):
            self.count = threading.active_count()

    before, callback = threading.active_count(), Threads()
    with screen:
        trainer_with(RichProgressBar(OFTEN), callback).fit(Model(), batches(2))

    assert callback.count == before


def test_rich_bar_while_it_runs_hides_the_cursor_and_gives_it_back(screen):
    class Cursor(Callback):
        def on_train_batch_end(self, *_):
            self.visible = screen.cursor_visible

    callback = Cursor()
    with screen:
        trainer_with(RichProgressBar(OFTEN), callback).fit(Model(), batches(2))

    assert not callback.visible
    assert screen.cursor_visible


@pytest.mark.parametrize(("raised", "seen"), [(ValueError("no"), ValueError), (KeyboardInterrupt(), SystemExit)])
def test_rich_bar_after_an_exception_leaves_the_terminal_as_it_was(screen, raised, seen):
    class Fails(Model):
        def training_step(self, batch, batch_idx):
            if batch_idx == 3:
                raise raised
            return super().training_step(batch, batch_idx)

    stderr = sys.stderr
    with screen:
        with pytest.raises(seen):
            trainer_with(RichProgressBar(OFTEN)).fit(Fails(), batches(9))
        assert sys.stdout is screen

    assert screen.cursor_visible
    assert sys.stderr is stderr
    assert screen.written.endswith("\n\x1b[?25h")
    assert " 3/9 " in screen.lines[0]


def test_rich_bar_in_a_second_fit_begins_anew(screen):
    class FailsOnce(Model):
        failed = False

        def training_step(self, batch, batch_idx):
            if not self.failed:
                self.failed = True
                raise ValueError("once")
            return super().training_step(batch, batch_idx)

    model, trainer = FailsOnce(), trainer_with(RichProgressBar(OFTEN), max_epochs=2)
    with screen:
        with pytest.raises(ValueError, match="once"):
            trainer.fit(model, batches(3))
        trainer.fit(model, batches(3))

    assert [line[:9] for line in screen.lines] == ["Epoch 0/1", "Epoch 1/1"]
    assert " 3/3 " in screen.lines[1]


def test_rich_bar_in_a_resumed_epoch_goes_on_counting(screen, tmp_path):
    class Stops(Callback):
        def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx):
            if batch_idx == 5:
                trainer.save_checkpoint(tmp_path / "middle.ckpt")

    with screen:
        trainer_with(Stops(), enable_progress_bar=False).fit(Model(), batches(8))
    with screen:
        trainer_with(RichProgressBar(OFTEN)).fit(Model(), batches(8), ckpt_path=tmp_path / "middle.ckpt")

    assert " 6/8 " in next(frame for frame in screen.frames if "Epoch" in frame)
    assert " 8/8 " in screen.lines[0]


def test_rich_bar_prints_above_itself(screen):
    class Prints(Model):
        def training_step(self, batch, batch_idx):
            print("plain", batch_idx)
            self.print("module [red]x[/red]", batch_idx)
            return super().training_step(batch, batch_idx)

    with screen:
        trainer_with(RichProgressBar(OFTEN)).fit(Prints(), batches(2))

    assert screen.lines[:-1] == ["plain 0", "module [red]x[/red] 0", "plain 1", "module [red]x[/red] 1"]
    assert screen.lines[-1].startswith("Epoch 0/0")


def test_rich_bar_keeps_long_and_coloured_prints_whole(screen):
    class Prints(Model):
        def training_step(self, batch, batch_idx):
            print("\x1b[32mgreen\x1b[0m " + "word " * 30 + "\n\nend")
            return super().training_step(batch, batch_idx)

    with screen:
        trainer_with(RichProgressBar(OFTEN)).fit(Prints(), batches(1))

    assert screen.rows[2:4] == ["", "end"]  # after a line that the terminal wraps, and a blank one
    assert "green " + "word " * 30 in screen.written.replace("\x1b[0m", "")
    assert "\x1b[32mgreen" in screen.written


def test_rich_bar_lets_logging_appear_above_it(screen):
    logger, handler = logging.getLogger("fulmen"), logging.StreamHandler(screen)
    logger.addHandler(handler)

    class Logs(Model):
        def training_step(self, batch, batch_idx):
            logger.warning("careful")
            return super().training_step(batch, batch_idx)

    with screen:
        trainer_with(RichProgressBar(OFTEN)).fit(Logs(), batches(2))
    logger.removeHandler(handler)

    assert screen.lines[:2] == ["careful", "careful"]
    assert screen.lines[2].startswith("Epoch")
    assert handler.stream is screen


def test_rich_bar_shows_names_with_brackets(screen):
    class Brackets(Model):
        def training_step(self, batch, batch_idx):
            self.log("loss[red]", 1.0, prog_bar=True)
            return super().training_step(batch, batch_idx)

    with screen:
        trainer_with(RichProgressBar(OFTEN)).fit(Brackets(), batches(1))

    assert "loss[red]: 1.000" in screen.lines[0]


@pytest.mark.parametrize("columns", [20, 40, 60, 80])
def test_rich_bar_in_a_narrow_terminal_still_takes_one_line(screen, monkeypatch, columns):
    set_width(screen, monkeypatch, columns)

    with screen:
        trainer_with(RichProgressBar(OFTEN)).fit(ValidatedModel(), batches(5), batches(2))

    assert len(screen.lines) == 1
    assert len(screen.lines[0]) <= columns
    assert "5/5" in screen.lines[0]


def test_rich_bar_takes_the_format_of_numbers_from_its_theme(screen):
    class One(Model):
        def training_step(self, batch, batch_idx):
            self.log("one", 1.0, prog_bar=True)
            self.log("two", 2.0, prog_bar=True)
            return self.layer(batch).sum()

    theme = RichProgressBarTheme(metrics_text_delimiter=" | ", metrics_format=".1e")
    with screen:
        trainer_with(RichProgressBar(OFTEN, theme=theme)).fit(One(), batches(1))

    assert screen.lines[0].endswith("one: 1.0e+00 | two: 2.0e+00")


def test_rich_bar_draws_the_columns_that_a_subclass_chooses(screen):
    from rich.progress import MofNCompleteColumn, TextColumn, TimeRemainingColumn

    class Own(RichProgressBar):
        def configure_columns(self, trainer):
            return [TextColumn("{task.description}:"), MofNCompleteColumn(), TimeRemainingColumn()]

    with screen:
        trainer_with(Own(OFTEN)).fit(Model(), batches(3))

    assert screen.lines[0].split() == ["Epoch", "0/0:", "3/3", "0:00:00"]


def test_rich_bar_with_refresh_rate_0_shows_nothing(screen):
    with screen:
        trainer_with(RichProgressBar(refresh_rate=0)).fit(ValidatedModel(), batches(2), batches(2))

    assert screen.written == ""


def test_rich_bar_with_a_negative_refresh_rate_raises():
    with pytest.raises(ValueError, match=r"refresh_rate=-1\)`: write refreshes per second"):
        RichProgressBar(refresh_rate=-1)


def test_rich_bar_disabled_in_the_middle_stops_and_enabled_goes_on(screen):
    class Switch(Callback):
        def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx):
            if batch_idx == 1:
                trainer.progress_bar_callback.disable()
                self.written = len(screen.written)
            if batch_idx == 5:
                assert len(screen.written) == self.written
                trainer.progress_bar_callback.enable()

    with screen:
        trainer_with(Switch(), RichProgressBar(OFTEN)).fit(Model(), batches(8))

    assert " 8/8 " in screen.lines[-1]


def test_rich_bar_where_nothing_can_be_drawn_over_prints_plain_lines(capsys):
    trainer_with(RichProgressBar(), max_epochs=2).fit(Model(), batches(3))

    first, second = without_greeting(capsys.readouterr().out).splitlines()
    assert first.startswith("epoch 0/1  step 3  loss ")
    assert second.startswith("epoch 1/1  step 6  loss ")


def test_rich_bar_after_a_run_keeps_no_trainer(screen):
    bar = RichProgressBar(OFTEN)
    trainer = trainer_with(bar)
    with screen:
        trainer.fit(Model(), batches(2))
    gone = weakref.ref(trainer)
    del trainer
    gc.collect()

    assert gone() is None


def test_rich_bar_between_refreshes_only_looks_at_the_clock(screen):
    class Watches(Callback):
        def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx):
            calls, bar = [], trainer.progress_bar_callback
            sys.setprofile(lambda frame, event, arg: calls.append(event) if "call" in event else None)
            bar.on_train_batch_end(trainer, pl_module, outputs, batch, batch_idx)
            sys.setprofile(None)
            self.calls = calls

    callback = Watches()
    with screen:
        trainer_with(callback, RichProgressBar(SELDOM)).fit(Model(), batches(2))

    assert callback.calls == ["call", "c_call", "c_call"]  # the hook, the clock, and the end of the watch


def test_rich_bar_on_a_real_terminal_lets_workers_print(monkeypatch):
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.delenv("COLUMNS", raising=False)
    leader, follower = pty.openpty()
    os.set_inheritable(follower, True)
    termios.tcsetwinsize(follower, (24, 100))
    screen, terminal = Screen(), os.fdopen(follower, "w", encoding="utf-8", buffering=1)
    reader = threading.Thread(target=read_into, args=(screen, leader))
    reader.start()
    loader = DataLoader(Talkative(), num_workers=1, multiprocessing_context="fork")

    monkeypatch.setattr(sys, "stdout", terminal)
    trainer_with(RichProgressBar(OFTEN)).fit(Model(), loader)
    terminal.close()
    reader.join(timeout=10)

    assert [line for line in screen.lines if not line.startswith("Epoch")] == ["worker 0", "worker 1", "worker 2"]
    assert screen.lines[-1].startswith("Epoch 0/0 ")
    assert screen.cursor_visible


class Talkative(Dataset):
    def __len__(self):
        return 3

    def __getitem__(self, index):
        print("worker", index, flush=True)
        return torch.ones(2)


def read_into(screen, descriptor):
    """Read until the other end is closed."""
    decoder = codecs.getincrementaldecoder("utf-8")()
    with contextlib.suppress(OSError):
        while piece := os.read(descriptor, 65536):
            screen.write(decoder.decode(piece))
    os.close(descriptor)


def test_default_bar_in_a_terminal_is_rich(screen):
    with screen:
        assert type(default_progress_bar()) is RichProgressBar


def test_default_bar_in_a_dumb_terminal_is_plain(screen, monkeypatch):
    monkeypatch.setenv("TERM", "dumb")

    with screen:
        assert type(default_progress_bar()).__name__ == "PlainProgress"


def test_default_bar_in_a_pipe_is_plain(capsys):
    assert type(default_progress_bar()).__name__ == "PlainProgress"
