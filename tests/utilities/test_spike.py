"""A loss that is suddenly far from those before is a spike, in a loop of one's own."""

from __future__ import annotations

import json
import pickle
from pathlib import Path
from typing import Any

import pytest
import torch

from fulmen.strategies import SingleDeviceStrategy
from fulmen.utilities.spike import SpikeDetection, TrainingSpikeException

NAN, INF = float("nan"), float("inf")


class Loop:
    """What a loop of one's own has: a strategy."""

    def __init__(self) -> None:
        self.strategy = SingleDeviceStrategy(torch.device("cpu"))


def spikes(detection: SpikeDetection, losses: list[float], first: int = 0) -> list[int]:
    """The numbers of the batches whose losses are found to be spikes."""
    found = []
    for batch_idx, loss in enumerate(losses, first):
        try:
            detection.on_train_batch_end(Loop(), torch.tensor(loss), None, batch_idx)
        except TrainingSpikeException as error:
            found.append(error.batch_idx)
    return found


@pytest.fixture(autouse=True)
def in_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def noted(folder: Path) -> Any:
    return json.loads((folder / "skip_batches.json").read_text())


@pytest.mark.parametrize(
    ("settings", "losses", "expected"),
    [
        ({}, [1, 1, 1, 5, 1, 1], [3]),
        ({}, [1, 1, 1, 2.9, 1, 1], []),  # not twice the mean away
        ({}, [9, 1, 1, 1], []),  # better
        ({}, [1, 1, 1, 5, 5, 5], [3, 4, 5]),  # spikes do not enter the mean
        ({}, [-1, -1, -1, -0.5, 9], [4]),
        ({"atol": 2.0, "rtol": None}, [1, 1, 1, 4, 2.9], [3]),
        ({"atol": 2.0, "rtol": 10.0}, [1, 1, 1, 4], []),  # both must be passed
        ({"atol": None, "rtol": None}, [1, 1, 1.5, 1, 0.5], [2]),  # any that is worse
        ({"mode": "max"}, [1, 1, 1, -9, 9], [3]),
        ({"warmup": 3}, [1, 9, 99, 1, 999], [4]),
        ({"warmup": 0}, [1, 9, 1], [1]),
        ({"window": 1}, [9, 1, 4], [2]),
        ({"window": 2}, [9, 1, 4], []),
        ({}, [1, 1, NAN, 1, INF, 1], [2, 4]),
        ({}, [NAN, 1, 1], [0]),  # also at the very first
        ({"finite_only": False}, [1, 1, NAN, 1, INF, 5], [5]),  # as if they were not there
    ],
)
def test_spike_is_worse_than_the_loss_before_and_far_from_the_mean(
    settings: dict[str, Any], losses: list[float], expected: list[int]
) -> None:
    assert spikes(SpikeDetection(**settings), losses) == expected


def test_warmup_counts_the_batches_of_the_run_and_not_of_the_epoch() -> None:
    detection = SpikeDetection(warmup=2)
    assert spikes(detection, [1, 1, 1]) == []
    assert spikes(detection, [9, 1, 1]) == [0]


def test_batches_are_noted_with_the_one_before(in_folder: Path) -> None:
    detection = SpikeDetection()
    spikes(detection, [1, 1, 1, 5, 5])
    assert detection.bad_batches == noted(in_folder) == [2, 3, 4]


def test_first_batch_of_an_epoch_is_noted_alone(in_folder: Path) -> None:
    detection = SpikeDetection()
    spikes(detection, [1, 1])
    spikes(detection, [5])
    assert noted(in_folder) == [0]


@pytest.mark.parametrize("path", ["notes", "notes/skip_batches.json"])
def test_path_is_a_file_or_its_folder(path: str, in_folder: Path) -> None:
    spikes(SpikeDetection(exclude_batches_path=path), [1, 5])
    assert noted(in_folder / "notes") == [0, 1]


def test_what_an_earlier_run_has_noted_stays(in_folder: Path) -> None:
    (in_folder / "skip_batches.json").write_text("[7, 1]")
    spikes(SpikeDetection(), [1, 5])
    assert noted(in_folder) == [7, 1, 0]


@pytest.mark.parametrize("content", ['{"a": 1}', "[1, 2", '["a"]'])
def test_file_of_another_kind_is_left_as_it_is_and_told(content: str, in_folder: Path) -> None:
    (in_folder / "skip_batches.json").write_text(content)
    with pytest.warns(UserWarning, match=r"is no list of batches, and is left as it is: \[0, 1\] could not be added"):
        assert spikes(SpikeDetection(), [1, 5]) == [1]
    assert (in_folder / "skip_batches.json").read_text() == content


def test_spike_is_raised_also_if_its_batch_cannot_be_noted(in_folder: Path) -> None:
    (in_folder / "file").write_text("")
    with pytest.warns(UserWarning, match=r"\[0, 1\] could not be noted there"):
        assert spikes(SpikeDetection(exclude_batches_path="file/notes"), [1, 5]) == [1]


def test_detection_goes_on_with_what_it_has_seen() -> None:
    losses = [3, 2, 2.5, 9, 1, 2, 1, 5, 0.5, 2]
    whole = SpikeDetection(window=3)
    expected = spikes(whole, losses)
    assert expected
    for stop in range(1, len(losses)):
        first, second = SpikeDetection(window=3), SpikeDetection(window=3)
        found = spikes(first, losses[:stop])
        second.load_state_dict(json.loads(json.dumps(first.state_dict())))
        assert found + spikes(second, losses[stop:], stop) == expected
        assert second.state_dict() == whole.state_dict()


def test_state_of_lightning_gives_the_batches_that_it_has_found() -> None:
    detection = SpikeDetection()
    detection.load_state_dict({"last_val": 1.0, "mode": "min", "bad_batches": [2, 3], "running": {}, "mean": {}})
    assert detection.bad_batches == [2, 3]
    assert spikes(detection, [1, 1, 5]) == [2]


def test_exception_says_what_was_seen_and_survives_pickling() -> None:
    detection = SpikeDetection()
    spikes(detection, [1, 2])
    with pytest.raises(TrainingSpikeException) as caught:
        detection.on_train_batch_end(Loop(), torch.tensor(9.0), None, 2)
    text = (
        "Training spike detected in batch 2: the loss is 9. The one before was 2, and the mean of the last 2 was 1.5."
    )
    copy = pickle.loads(pickle.dumps(caught.value))
    assert str(copy) == str(caught.value) == text
    assert copy.batch_idx == 2


@pytest.mark.parametrize(
    ("argument", "value"),
    [("mode", "least"), ("window", 0), ("warmup", -1), ("atol", NAN), ("rtol", "2"), ("exclude_batches_path", 3)],
)
def test_argument_that_cannot_be_is_refused(argument: str, value: Any) -> None:
    with pytest.raises(ValueError, match=rf"SpikeDetection\({argument}={value!r}"):
        SpikeDetection(**{argument: value})
