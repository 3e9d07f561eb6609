"""What to keep."""

from __future__ import annotations

import pytest
import torch

from fulmen.callbacks.checkpointing.retention import Retention
from fulmen.utilities.exceptions import MisconfigurationException

NAN = float("nan")


def _files(retention: Retention, scores: list[float]) -> set[str]:
    """The names of the files that are left, when files named by their position come with ``scores``."""
    kept, files = retention.none(), set()
    for position, score in enumerate(scores):
        value = torch.tensor(score) if retention.ranked else None
        if retention.wants(kept, value):
            kept, dropped = retention.add(kept, str(position), value)
            files.add(str(position))
            files.discard(dropped)
    return files


@pytest.mark.parametrize(
    ("keep", "mode", "scores", "left"),
    [
        (1, "min", [3.0, 1.0, 2.0, 4.0], "1"),
        (2, "max", [3.0, 1.0, 2.0, 4.0], "03"),
        (2, "min", [3.0, 1.0, 2.0, 4.0], "12"),
        (-1, "min", [3.0, 1.0, 2.0, 4.0], "0123"),
        (0, "min", [3.0, 1.0, 2.0, 4.0], ""),
        (1, "min", [1.0, 1.0, 1.0], "0"),
        (2, "min", [1.0, 1.0, 0.0], "12"),
        (2, "min", [NAN, 1.0, NAN, 0.0], "13"),
        (1, "max", [NAN, NAN], "0"),
        (1, "max", [NAN, -5.0], "1"),
        (3, "min", [NAN, 1.0], "01"),
    ],
)
def test_retention_by_score_leaves_the_best(keep, mode, scores, left):
    assert _files(Retention(keep, mode, ranked=True), scores) == set(left)


@pytest.mark.parametrize(("keep", "left"), [(1, "2"), (-1, "012"), (0, "")])
def test_retention_by_age_leaves_the_newest_all_or_none(keep, left):
    assert _files(Retention(keep, "min", ranked=False), [0.0, 0.0, 0.0]) == set(left)


def test_kept_names_the_best_and_the_next_to_go():
    retention = Retention(3, "max", ranked=True)
    kept = retention.none()
    for path, score in (("a", 2.0), ("b", 5.0), ("c", 1.0)):
        kept, _ = retention.add(kept, path, torch.tensor(score))

    assert (kept.best_model_path, kept.best_model_score) == ("b", 5.0)
    assert (kept.kth_best_model_path, kept.kth_value) == ("c", 1.0)
    assert kept.current_score == 1.0
    assert kept.best_k_models == {"a": 2.0, "b": 5.0, "c": 1.0}


def test_kept_nothing_is_worse_than_every_score():
    assert Retention(1, "min", ranked=True).none().kth_value == float("inf")
    assert Retention(1, "max", ranked=True).none().kth_value == -float("inf")


def test_retention_when_a_kept_file_is_written_over_drops_no_other():
    retention = Retention(2, "min", ranked=True)
    kept, _ = retention.add(retention.none(), "a", torch.tensor(1.0))
    kept, _ = retention.add(kept, "b", torch.tensor(2.0))
    kept, dropped = retention.add(kept, "a", torch.tensor(0.5))

    assert dropped == ""
    assert kept.best_k_models == {"b": 2.0, "a": 0.5}


def test_retention_does_not_change_what_it_was_given():
    retention = Retention(1, "min", ranked=True)
    before, _ = retention.add(retention.none(), "a", torch.tensor(1.0))
    after, dropped = retention.add(before, "b", torch.tensor(0.0))

    assert (list(before.best_k_models), list(after.best_k_models), dropped) == (["a"], ["b"], "a")


@pytest.mark.parametrize(
    ("save_top_k", "mode", "monitor", "named"),
    [
        (1, "mean", "loss", "mode='mean'"),
        (-2, "min", "loss", "save_top_k=-2"),
        (1.5, "min", "loss", "save_top_k=1.5"),
        (2, "min", None, "save_top_k=2, monitor=None"),
    ],
)
def test_retention_with_arguments_that_cannot_be_names_them(save_top_k, mode, monitor, named):
    with pytest.raises(MisconfigurationException, match=named):
        Retention.from_arguments(save_top_k, mode, monitor)
