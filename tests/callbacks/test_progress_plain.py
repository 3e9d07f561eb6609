"""The lines of progress in a file or a pipe."""

from __future__ import annotations

import re
import time

import pytest

from fulmen.callbacks.progress.plain_progress import PlainProgress

from .screen import Model, ValidatedModel, batches, trainer_with, without_greeting

NUMBER = r"-?\d+(\.\d+)?(e-?\d+)?"


def shape(text: str) -> list[str]:
    """The lines with times, speeds and values replaced by letters."""
    text = re.sub(rf"(loss|val_loss|test_loss) {NUMBER}", r"\1 X", text)
    text = re.sub(r"\([\d.]+ (it/s|s/it)\)", "(V)", text)
    text = re.sub(r"\d+\.\d s|\d+:\d\d", "T", text)
    return text.splitlines()


def printed(capsys) -> str:
    """What was printed, but for the trainer's greeting."""
    return without_greeting(capsys.readouterr().out)


class Counting(PlainProgress):
    """Counts how often the metrics are read."""

    reads = 0

    def get_metrics(self, trainer, pl_module):
        self.reads += 1
        return super().get_metrics(trainer, pl_module)


def test_plain_progress_of_a_fit_is_one_line_per_epoch(capsys):
    trainer_with(PlainProgress(), max_epochs=2, num_sanity_val_steps=2).fit(ValidatedModel(), batches(3), batches(2))

    assert shape(printed(capsys)) == [
        "epoch 0/1  step 3  loss X  val_loss X  T  (V)",
        "epoch 1/1  step 6  loss X  val_loss X  T  (V)",
    ]


def test_plain_progress_writes_no_control_characters(capsys):
    trainer_with(PlainProgress(interval=1e-9), max_epochs=2).fit(ValidatedModel(), batches(3), batches(2))

    out = printed(capsys)
    assert out.endswith("\n")
    assert all(character.isprintable() for character in out.replace("\n", ""))


def test_plain_progress_after_an_interval_says_how_far_the_epoch_has_come(capsys):
    trainer_with(PlainProgress(interval=1e-9)).fit(ValidatedModel(), batches(2), batches(1))

    assert shape(printed(capsys)) == [
        "epoch 0/0  batch 1/2  step 1  loss X  T, T left  (V)",
        "epoch 0/0  batch 2/2  step 2  loss X  T, T left  (V)",
        "validation  batch 1/1  step 2  T, T left  (V)",
        "epoch 0/0  step 2  loss X  val_loss X  T  (V)",
    ]


def test_plain_progress_prints_one_line_per_interval(capsys):
    class Slow(Model):
        def training_step(self, batch, batch_idx):
            time.sleep(0.01)
            return super().training_step(batch, batch_idx)

    start = time.monotonic()
    trainer_with(PlainProgress(interval=0.05)).fit(Slow(), batches(20))

    running = [line for line in printed(capsys).splitlines() if "batch" in line]
    assert 1 <= len(running) <= (time.monotonic() - start) / 0.05


def test_plain_progress_with_data_of_unknown_length_shows_the_count_alone(capsys):
    trainer_with(PlainProgress(interval=1e-9)).fit(Model(), batches(1, sized=False))

    assert shape(printed(capsys))[0] == "epoch 0/0  batch 1  step 1  loss X  T  (V)"


def test_plain_progress_without_a_limit_of_epochs_shows_none(capsys):
    trainer_with(PlainProgress(), max_epochs=-1, max_steps=2).fit(Model(), batches(2))

    assert shape(printed(capsys)) == ["epoch 0  step 2  loss X  T  (V)"]


def test_plain_progress_of_a_validation_within_the_epoch_is_a_line(capsys):
    trainer_with(PlainProgress(), val_check_interval=2).fit(ValidatedModel(), batches(4), batches(1))

    assert shape(printed(capsys)) == [
        "validation  step 2  loss X  val_loss X  T  (V)",
        "epoch 0/0  step 4  loss X  val_loss X  T  (V)",
    ]


@pytest.mark.parametrize(
    ("verb", "line"), [("test", "testing  test_loss X  T  (V)"), ("predict", "predicting  T  (V)")]
)
def test_plain_progress_of_a_verb_is_a_line(capsys, verb, line):
    getattr(trainer_with(PlainProgress()), verb)(Model(), batches(2))

    assert shape(printed(capsys))[0] == line


def test_plain_progress_shows_what_was_logged_when_the_epoch_ended(capsys):
    class Ends(Model):
        def on_train_epoch_end(self):
            self.log("late", float(self.current_epoch), prog_bar=True)

    trainer_with(PlainProgress(), max_epochs=2).fit(Ends(), batches(1))

    first, second = printed(capsys).splitlines()
    assert "late 0.000" in first
    assert "late 1.000" in second


def test_plain_progress_of_many_short_epochs_stays_below_its_bytes_per_minute(capsys):
    bar = Counting(bytes_per_minute=2000)

    trainer_with(bar, max_epochs=150).fit(Model(), batches(1))

    out = printed(capsys)
    assert 1000 - 256 - 100 <= len(out) <= 2000
    assert out.splitlines()[-1].startswith("epoch 149/149")
    assert bar.reads == len(out.splitlines())


def test_plain_progress_reads_metrics_only_for_what_it_prints(capsys):
    bar = Counting()

    trainer_with(bar).fit(Model(), batches(50))

    assert bar.reads == len(printed(capsys).splitlines()) == 1


def test_plain_progress_shows_small_and_large_numbers(capsys):
    class Numbers(Model):
        def training_step(self, batch, batch_idx):
            for name, value in (("lr", 0.00001), ("tokens", 123456.0), ("accuracy", 0.5)):
                self.log(name, value, prog_bar=True)
            return self.layer(batch).sum()

    trainer_with(PlainProgress()).fit(Numbers(), batches(1))

    assert "lr 1e-05  tokens 1.235e+05  accuracy 0.500" in printed(capsys)


def test_plain_progress_disabled_prints_nothing(capsys):
    bar = PlainProgress(interval=1e-9)
    bar.disable()

    trainer_with(bar).fit(ValidatedModel(), batches(3), batches(2))

    assert printed(capsys) == ""


def test_plain_progress_after_an_exception_begins_anew(capsys):
    class FailsOnce(Model):
        failed = False

        def training_step(self, batch, batch_idx):
            if not self.failed:
                self.failed = True
                raise ValueError("once")
            return super().training_step(batch, batch_idx)

    model, trainer = FailsOnce(), trainer_with(PlainProgress())
    with pytest.raises(ValueError, match="once"):
        trainer.fit(model, batches(2))
    trainer.fit(model, batches(2))

    assert shape(printed(capsys)) == ["epoch 0/0  step 2  loss X  T  (V)"]


@pytest.mark.parametrize("argument", ["interval", "bytes_per_minute"])
def test_plain_progress_without_a_positive_setting_raises(argument):
    with pytest.raises(ValueError, match=rf"{argument}=0\)`: write a number above 0"):
        PlainProgress(**{argument: 0})
