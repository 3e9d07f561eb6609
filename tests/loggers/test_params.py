"""Hyperparameters and metrics in the forms that loggers, and the packages beside them, write."""

from __future__ import annotations

import dataclasses
from argparse import Namespace
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

from fulmen.callbacks import ModelCheckpoint
from fulmen.loggers.params import flattened, prefixed, simple, without_functions
from fulmen.loggers.written_checkpoints import newly_written


@dataclasses.dataclass
class Sizes:
    width: int = 1


def test_flattened_takes_mappings_namespaces_and_dataclasses_apart_and_leaves_values():
    items = [1, {"x": 2}]
    nested = {"a": {"b": 1, "c": Namespace(d=2)}, 1: 2, "list": items, "sizes": Sizes(), "none": None, "empty": {}}
    flat = flattened(nested)
    assert flat == {"a/b": 1, "a/c/d": 2, "1": 2, "list": items, "sizes/width": 1, "none": None}
    assert flat["list"] is items
    assert flattened({"a": {"b": 1}}, delimiter=".", parent_key="p") == {"p.a.b": 1}


def test_without_functions_calls_what_needs_nothing_and_names_the_rest():
    def raises() -> None:
        raise RuntimeError

    params = {"ready": lambda: 3, "needs": lambda x: x, "cls": Sizes, "again": lambda: print, "bad": raises, "n": 1}
    assert without_functions(params) == {
        "ready": 3,
        "needs": "<lambda>",
        "cls": "Sizes",
        "again": "<lambda>",
        "bad": "raises",
        "n": 1,
    }


def test_simple_keeps_numbers_texts_and_tensors_and_writes_the_rest():
    tensor = torch.tensor(1.0)
    found = simple({"f": 0.5, "b": True, "none": None, "t": tensor, "np": np.float32(0.5), "list": [1, 2]})
    assert found == {"f": 0.5, "b": True, "none": "None", "t": tensor, "np": 0.5, "list": "[1, 2]"}
    assert type(found["np"]) is float


def test_prefixed_puts_the_separator_between_only_if_there_is_a_prefix():
    assert prefixed({"a": 1}, "p", "-") == {"p-a": 1}
    assert prefixed({"a": 1}, "", "-") == {"a": 1}


@pytest.fixture
def saved(tmp_path) -> Any:
    """What a callback says that it keeps, of which one file is gone."""
    for name in ("best", "second", "last"):
        (tmp_path / name).write_text(name)
    paths = {name: str(tmp_path / name) for name in ("best", "second", "last", "gone")}
    return SimpleNamespace(
        best_model_path=paths["best"],
        best_model_score=torch.tensor(0.5),
        last_model_path=paths["last"],
        current_score=torch.tensor(2.0),
        save_last=True,
        best_k_models={paths["best"]: torch.tensor(0.5), paths["second"]: torch.tensor(1.0), paths["gone"]: 3.0},
    )


def test_newly_written_names_what_is_there_and_what_it_is(saved, tmp_path):
    found = newly_written(saved, {})
    assert {(path, float(score), rank) for _, path, score, rank in found} == {
        (str(tmp_path / "best"), 0.5, "best"),
        (str(tmp_path / "second"), 1.0, "best_k"),
        (str(tmp_path / "last"), 2.0, "latest"),
    }
    assert [time for time, *_ in found] == sorted(time for time, *_ in found)


def test_newly_written_leaves_out_what_was_sent_and_has_not_changed(saved, tmp_path):
    sent = {path: time for time, path, *_ in newly_written(saved, {})}
    assert newly_written(saved, sent) == []
    sent[str(tmp_path / "second")] -= 1
    assert [path for _, path, *_ in newly_written(saved, sent)] == [str(tmp_path / "second")]


def test_newly_written_leaves_out_the_last_file_that_nobody_has_asked_for(saved, tmp_path):
    saved.save_last = None
    assert str(tmp_path / "last") not in {path for _, path, *_ in newly_written(saved, {})}


def test_newly_written_warns_of_what_lies_elsewhere():
    callback = ModelCheckpoint()
    callback.best_model_path = "memory://far/best.ckpt"
    with pytest.warns(UserWarning, match=r"memory://far/best.ckpt lies in a remote folder: it is not sent"):
        assert newly_written(callback, {}) == []
