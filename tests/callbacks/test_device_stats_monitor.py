"""DeviceStatsMonitor: which figures go to the loggers, and when."""

from __future__ import annotations

import sys

import pytest

from fulmen.accelerators.cpu import CPUAccelerator
from fulmen.callbacks import DeviceStatsMonitor
from fulmen.demos.boring_classes import BoringModel
from fulmen.loggers.csv_logs import CSVLogger
from fulmen.utilities.exceptions import MisconfigurationException

CPU = {"cpu_percent", "cpu_vm_percent", "cpu_swap_percent"}


class Rows(CSVLogger):
    """Remembers what it is given; has a separator of its own."""

    group_separator = "-"

    def __init__(self, folder):
        super().__init__(folder)
        self.rows = []

    def log_metrics(self, metrics, step=None):
        self.rows.append((step, dict(metrics)))


class Chip(CPUAccelerator):
    """A kind of device with figures of its own."""

    def get_device_stats(self, device):
        return {"heat": 41.5}


def hooks(logger):
    """The steps at which each hook was logged, and the figures."""
    found = {}
    for step, row in logger.rows:
        for name in row:
            monitor, hook, figure = name.replace("-", ".").split(".")
            assert monitor == "DeviceStatsMonitor"
            found.setdefault((hook, figure), []).append(step)
    return found


def test_figures_of_the_device_are_logged_at_the_start_and_end_of_batches(trainer_of, tmp_path):
    logger = Rows(tmp_path)
    trainer = trainer_of(
        max_epochs=1,
        limit_train_batches=6,
        limit_val_batches=5,
        limit_test_batches=3,
        log_every_n_steps=2,
        logger=logger,
        accelerator=Chip(),
        callbacks=DeviceStatsMonitor(),
    )
    trainer.fit(BoringModel())
    trainer.test(BoringModel())
    found = hooks(logger)
    training = [0, 1, 3, 5]  # the first step, and every second
    assert found == {
        ("on_train_batch_start", "heat"): training,
        ("on_train_batch_end", "heat"): training,
        ("on_validation_batch_start", "heat"): [5, 5],  # of five batches the second and the fourth
        ("on_validation_batch_end", "heat"): [5, 5],
        ("on_test_batch_start", "heat"): [6],
        ("on_test_batch_end", "heat"): [6],
    }
    assert logger.rows[0][1] == {"DeviceStatsMonitor.on_train_batch_start-heat": 41.5}


@pytest.mark.parametrize(("cpu_stats", "figures"), [(None, CPU), (True, CPU), (False, set())])
def test_figures_of_the_cpu_can_be_left_out(cpu_stats, figures, trainer_of, tmp_path):
    pytest.importorskip("psutil")
    logger = Rows(tmp_path)
    trainer = trainer_of(
        max_steps=1, limit_val_batches=0, logger=logger, callbacks=DeviceStatsMonitor(cpu_stats=cpu_stats)
    )
    trainer.fit(BoringModel())
    assert {figure for _, figure in hooks(logger)} == figures
    assert all(0 <= value <= 100 for _, row in logger.rows for value in row.values())


def test_monitor_without_a_logger_is_refused(trainer_of):
    with pytest.raises(MisconfigurationException, match="DeviceStatsMonitor logs, but the trainer has no logger"):
        trainer_of(max_steps=1, callbacks=DeviceStatsMonitor()).fit(BoringModel())


def test_figures_of_the_cpu_without_psutil_say_what_to_install(trainer_of, tmp_path, monkeypatch):
    from fulmen.utilities import imports

    monkeypatch.setitem(sys.modules, "psutil", None)
    monkeypatch.setattr(imports, "unmet", lambda requirement: f"Run `pip install '{requirement}'`.")
    trainer = trainer_of(max_steps=1, logger=Rows(tmp_path), callbacks=DeviceStatsMonitor())
    with pytest.raises(ModuleNotFoundError, match=r"needs psutil.*pip install 'psutil'"):
        trainer.fit(BoringModel())


def test_prediction_needs_no_logger(trainer_of):
    trainer_of(callbacks=DeviceStatsMonitor(), limit_predict_batches=1).predict(BoringModel())
