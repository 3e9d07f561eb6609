"""What a progress bar of one's own can rely on."""

from __future__ import annotations

import pytest

from fulmen.callbacks.progress.progress_bar import ProgressBar, get_standard_metrics
from fulmen.loggers.csv_logs import CSVLogger

from .screen import Model, ValidatedModel, batches, trainer_with


class Recording(ProgressBar):
    """A bar of one's own that does not call the constructor of its base."""

    def __init__(self, read=lambda bar: None) -> None:
        self.read, self.seen = read, []

    def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx):
        self.seen.append(self.read(self))

    def on_validation_batch_end(self, trainer, pl_module, outputs, batch, batch_idx, dataloader_idx=0):
        if self.has_dataloader_changed(dataloader_idx):
            self.seen.append(self.total_val_batches_current_dataloader)


def test_progress_bar_outside_a_run_has_no_trainer():
    bar = Recording(lambda bar: bar.trainer)
    trainer = trainer_with(bar)
    with pytest.raises(TypeError, match=r"`Recording.trainer` was read outside a run"):
        _ = bar.trainer

    trainer.fit(Model(), batches(1))

    assert bar.seen == [trainer]
    bar.seen.clear()
    with pytest.raises(TypeError, match="outside a run"):
        _ = bar.trainer


def test_progress_bar_after_an_exception_has_no_trainer():
    class Fails(Model):
        def training_step(self, batch, batch_idx):
            raise ValueError("no")

    bar = Recording()
    with pytest.raises(ValueError, match="no"):
        trainer_with(bar).fit(Fails(), batches(1))

    with pytest.raises(TypeError, match="outside a run"):
        _ = bar.trainer


def test_progress_bar_is_enabled_until_it_is_disabled():
    bar = ProgressBar()
    assert bar.is_enabled

    bar.disable()
    assert (bar.is_enabled, bar.is_disabled) == (False, True)

    bar.enable()
    assert bar.is_enabled


def test_progress_bar_total_of_training_is_the_number_of_batches():
    bar = Recording(lambda bar: bar.total_train_batches)

    trainer_with(bar).fit(Model(), batches(2))

    assert bar.seen == [2, 2]


def test_progress_bar_total_of_training_ends_with_the_steps():
    bar = Recording(lambda bar: bar.total_train_batches)

    trainer_with(bar, max_epochs=-1, max_steps=2, accumulate_grad_batches=2).fit(Model(), batches(9))

    assert bar.seen[0] == 4


def test_progress_bar_total_of_validation_is_over_all_loaders():
    bar = Recording(lambda bar: bar.total_val_batches)

    trainer_with(bar).fit(ValidatedModel(), batches(1), [batches(2), batches(3)])

    assert bar.seen == [5, 2, 3]


def test_progress_bar_metrics_are_the_version_and_what_was_logged(tmp_path):
    bar = Recording(lambda bar: bar.get_metrics(bar.trainer, bar.trainer.lightning_module))

    trainer_with(bar, logger=CSVLogger(tmp_path, version=3)).fit(Model(), batches(1))

    assert bar.seen[0]["v_num"] == 3
    assert isinstance(bar.seen[0]["loss"], float)


def test_progress_bar_metric_with_the_name_of_the_version_wins_with_a_warning(tmp_path):
    class Clashes(Model):
        def training_step(self, batch, batch_idx):
            self.log("v_num", 9.0, prog_bar=True)
            return super().training_step(batch, batch_idx)

    bar = Recording(lambda bar: bar.get_metrics(bar.trainer, bar.trainer.lightning_module))

    with pytest.warns(UserWarning, match=r"shows v_num by itself"):
        trainer_with(bar, logger=CSVLogger(tmp_path)).fit(Clashes(), batches(1))

    assert bar.seen[0]["v_num"] == 9.0


@pytest.mark.parametrize(
    ("versions", "shown"),
    [([], {}), ([5], {"v_num": 5}), (["abcdefgh"], {"v_num": "efgh"}), ([""], {}), ([1, 2], {"v_num": "1_2"})],
)
def test_standard_metrics_show_the_versions_of_the_loggers(tmp_path, versions, shown):
    trainer = trainer_with(logger=[CSVLogger(tmp_path, version=version) for version in versions])

    assert get_standard_metrics(trainer) == shown


def test_progress_bar_print_goes_to_stdout(capsys):
    ProgressBar().print("a", 1, sep="-")

    assert capsys.readouterr().out == "a-1\n"
