from __future__ import annotations

import copy
import pickle
from typing import Any

import pytest

from fulmen.loggers import CSVLogger, Logger
from fulmen.loggers.logger import DummyLogger, merge_dicts, rank_zero_experiment
from fulmen.utilities.rank_zero import rank_zero_only


class Least(Logger):
    """As little as a logger may have."""

    saved = 0

    @property
    def name(self) -> str:
        return "least"

    @property
    def version(self) -> int:
        return 3

    @property
    @rank_zero_experiment
    def experiment(self) -> Any:
        """The thing behind."""
        return "the experiment"

    def log_metrics(self, metrics, step=None) -> None:
        pass

    def log_hyperparams(self, params, *args, **kwargs) -> None:
        pass

    def save(self) -> None:
        self.saved += 1


def test_logger_without_its_four_parts_cannot_be_made():
    with pytest.raises(TypeError, match=r"log_hyperparams.*log_metrics.*name.*version"):
        Logger()  # type: ignore[abstract]


def test_logger_defaults_say_that_there_are_no_files():
    logger = Least()
    assert (logger.save_dir, logger.root_dir, logger.log_dir) == (None, None, None)
    assert logger.group_separator == "/"


def test_logger_finalize_saves():
    logger = Least()
    logger.finalize("failed")
    assert logger.saved == 1


def test_experiment_on_rank_zero_is_the_real_one():
    assert Least().experiment == "the experiment"


def test_experiment_on_other_ranks_swallows_everything(monkeypatch):
    monkeypatch.setattr(rank_zero_only, "rank", 2)
    experiment = Least().experiment
    assert experiment.log_artifact("x", y=1) is None
    assert experiment["run"]["loss"].append(3) is None
    experiment["run"] = 1


def test_dummy_logger_swallows_everything():
    logger = DummyLogger()
    logger.log_metrics({"a": 1}, step=1)
    logger.log_hyperparams({"a": 1})
    assert logger.log_image("x", y=1) is None
    assert logger.experiment.add_figure("x") is None
    assert logger[0].whatever() is None
    assert (logger.name, logger.version) == ("", "")


def test_dummy_logger_can_be_copied_and_pickled():
    assert isinstance(copy.deepcopy(DummyLogger()), DummyLogger)
    assert isinstance(pickle.loads(pickle.dumps(DummyLogger())), DummyLogger)


def test_csv_logger_can_be_pickled_in_mid_run(tmp_path):
    logger = CSVLogger(tmp_path)
    logger.log_metrics({"a": 1.0})
    again = pickle.loads(pickle.dumps(logger))
    again.save()
    assert again.log_dir == logger.log_dir


def test_merge_dicts_takes_means_and_given_functions_at_every_depth():
    merged = merge_dicts(
        [{"a": 1.0, "b": 4.0, "deep": {"x": 1, "y": 3}}, {"a": 3.0, "c": 1, "deep": {"x": 2, "y": 5}}, {"b": None}],
        agg_key_funcs={"b": min, "deep": {"x": sum}},
    )
    assert merged == {"a": 2.0, "b": 4.0, "deep": {"x": 3, "y": 4}, "c": 1}
    assert merge_dicts([{"a": 1}, {"a": 5}], default_func=max) == {"a": 5}
