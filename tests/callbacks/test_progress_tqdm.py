"""What a person sees of tqdm's bar."""

from __future__ import annotations

import sys

import pytest

from fulmen.callbacks.progress import tqdm_progress
from fulmen.callbacks.progress.tqdm_progress import TQDMProgressBar

from .screen import Model, Screen, ValidatedModel, batches, trainer_with


@pytest.fixture
def screen(monkeypatch):
    """A terminal, the standard output within ``with screen:``."""
    monkeypatch.setenv("COLUMNS", "200")
    monkeypatch.setenv("LINES", "50")
    return Screen(columns=200)


class Counting(TQDMProgressBar):
    """Counts how often the metrics are read."""

    reads = 0

    def get_metrics(self, trainer, pl_module):
        self.reads += 1
        return super().get_metrics(trainer, pl_module)


def test_tqdm_bar_after_fit_shows_the_last_epoch(screen):
    with screen:
        trainer_with(TQDMProgressBar(), max_epochs=2).fit(Model(), batches(4))

    (line,) = screen.lines
    assert line.startswith("Epoch 1: 100%|")
    assert "| 4/4 [00:00<00:00, " in line
    assert ", loss=0." in line or ", loss=1." in line


def test_tqdm_bar_leave_keeps_a_bar_for_each_epoch(screen):
    with screen:
        trainer_with(TQDMProgressBar(leave=True), max_epochs=3).fit(Model(), batches(4))

    assert [line[:13] for line in screen.lines] == ["Epoch 0: 100%", "Epoch 1: 100%", "Epoch 2: 100%"]


def test_tqdm_bar_in_validation_is_below_and_disappears(screen):
    with screen:
        trainer_with(TQDMProgressBar()).fit(ValidatedModel(), batches(2), [batches(2), batches(3)])

    below = [frame.split("\n")[1] for frame in screen.frames if "\nValidation" in frame]
    assert any(line.startswith("Validation DataLoader 1: ") and "| 3/3 [" in line for line in below)
    assert len(screen.lines) == 1
    assert "val_loss/dataloader_idx_1=" in screen.lines[0]


def test_tqdm_bar_of_the_sanity_check_disappears(screen):
    with screen:
        trainer_with(TQDMProgressBar(), num_sanity_val_steps=2).fit(ValidatedModel(), batches(2), batches(3))

    assert any("Sanity Checking DataLoader 0: 100%" in frame for frame in screen.frames)
    assert [line[:8] for line in screen.lines] == ["Epoch 0:"]


@pytest.mark.parametrize(("verb", "words"), [("test", "Testing DataLoader 0"), ("predict", "Predicting DataLoader 0")])
def test_tqdm_bar_of_a_verb_stays_on_the_screen(screen, verb, words):
    with screen:
        getattr(trainer_with(TQDMProgressBar()), verb)(Model(), batches(4))

    assert screen.lines[0].startswith(f"{words}: 100%")
    assert "| 4/4 [" in screen.lines[0]


def test_tqdm_bar_updates_every_refresh_rate_batches(screen, monkeypatch):
    monkeypatch.setattr(tqdm_progress, "SECONDS_BETWEEN_READS", 0.0)

    with screen:
        trainer_with(TQDMProgressBar(refresh_rate=3)).fit(Model(), batches(7))

    shown = [n for n in range(8) if any(f"| {n}/7 [" in frame for frame in screen.frames)]
    assert shown == [0, 3, 6, 7]


def test_tqdm_bar_of_fast_batches_reads_metrics_five_times_per_second(screen):
    bar = Counting()

    with screen:
        trainer_with(bar, max_epochs=20).fit(Model(), batches(10))

    assert bar.reads < 50
    assert "| 10/10 [" in screen.lines[0]


def test_tqdm_bar_with_data_of_unknown_length_shows_no_total(screen):
    with screen:
        trainer_with(TQDMProgressBar()).fit(Model(), batches(4, sized=False))

    assert "| 4/? [" in screen.lines[0]


def test_tqdm_bar_with_refresh_rate_0_shows_nothing(screen):
    with screen:
        trainer_with(TQDMProgressBar(refresh_rate=0)).fit(ValidatedModel(), batches(2), batches(2))

    assert screen.written == ""


def test_tqdm_bar_prints_above_itself(screen):
    class Prints(Model):
        def training_step(self, batch, batch_idx):
            self.print("step", batch_idx)
            return super().training_step(batch, batch_idx)

    with screen:
        trainer_with(TQDMProgressBar()).fit(Prints(), batches(2))

    assert screen.lines[:-1] == ["step 0", "step 1"]
    assert screen.lines[-1].startswith("Epoch 0: 100%")


def test_tqdm_bar_after_an_exception_is_closed_and_a_second_fit_begins_anew(screen):
    class FailsOnce(Model):
        failed = False

        def training_step(self, batch, batch_idx):
            if batch_idx == 2 and not self.failed:
                self.failed = True
                raise ValueError("once")
            return super().training_step(batch, batch_idx)

    model, trainer = FailsOnce(), trainer_with(TQDMProgressBar())
    with screen:
        with pytest.raises(ValueError, match="once"):
            trainer.fit(model, batches(4))
        assert screen.written.endswith("\n")
        trainer.fit(model, batches(4))

    assert ["| 4/4 [" in line for line in screen.lines] == [False, True]


def test_tqdm_bar_uses_the_bars_that_a_subclass_makes(screen):
    class Own(TQDMProgressBar):
        def init_train_tqdm(self):
            bar = super().init_train_tqdm()
            bar.bar_format = "{desc}<{n_fmt}>"
            return bar

    with screen:
        trainer_with(Own()).fit(Model(), batches(3))

    assert screen.lines == ["Epoch 0: <3>"]


def test_tqdm_bar_before_it_exists_raises():
    with pytest.raises(TypeError, match="`train_progress_bar` was read while there is no such bar"):
        _ = TQDMProgressBar().train_progress_bar


def test_tqdm_bar_in_colab_is_refreshed_less_often(monkeypatch):
    monkeypatch.setenv("COLAB_GPU", "1")

    assert TQDMProgressBar().refresh_rate == 20
    assert TQDMProgressBar(refresh_rate=5).refresh_rate == 5


def test_tqdm_bar_obeys_the_environment(monkeypatch):
    monkeypatch.setenv("TQDM_MINITERS", "7")

    assert TQDMProgressBar().refresh_rate == 7
    assert TQDMProgressBar(refresh_rate=9).refresh_rate == 9
    assert TQDMProgressBar(refresh_rate=0).refresh_rate == 0


def test_tqdm_bar_with_a_negative_refresh_rate_raises():
    with pytest.raises(ValueError, match="write a number of batches, or 0 for no bar"):
        TQDMProgressBar(refresh_rate=-1)


def test_tqdm_bar_without_tqdm_says_how_to_install_it(monkeypatch):
    tqdm_progress.tqdm_class.cache_clear()
    monkeypatch.setitem(sys.modules, "tqdm", None)

    with pytest.raises(ModuleNotFoundError, match=r"pip install 'fulmen\[tqdm\]'"):
        TQDMProgressBar()


@pytest.mark.parametrize(
    ("number", "text"), [(1.24, "1.240"), (2.0, "2.000"), (3, "3"), (1e-9, "1e-9"), ("abc", "abc")]
)
def test_tqdm_numbers_keep_their_width(number, text):
    assert tqdm_progress.Tqdm.format_num(number) == text
