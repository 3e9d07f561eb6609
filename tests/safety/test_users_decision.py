"""`weights_only=False` and torch's switches in the environment are the user's decision: honoured, with one warning."""

from __future__ import annotations

import pickle
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from fulmen.plugins.io import TorchCheckpointIO
from fulmen.utilities import cloud_io
from fulmen.utilities.warnings import UnsafeLoadWarning

from .reading import Data, Model, honest_checkpoint, trainer_in

NO_ONLY, ONLY = "TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD", "TORCH_FORCE_WEIGHTS_ONLY_LOAD"


class Own:
    """A class of a user's, of which its unpickling is counted."""

    made = 0

    def __setstate__(self, state: dict[str, Any]) -> None:
        Own.made += 1

    def __getstate__(self) -> dict[str, Any]:
        return {"x": 1}


@pytest.fixture
def path(tmp_path: Path) -> Path:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of a run that is only there to write a file
        checkpoint = honest_checkpoint(tmp_path / "run")
    Own.made = 0
    torch.save(checkpoint | {"own": Own()}, tmp_path / "own.ckpt")
    return tmp_path / "own.ckpt"


def _run(verb: str) -> Callable[..., Any]:
    def run(path: Path, **given: Any) -> None:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", ".*(workers|bottleneck|not empty|log)")
            getattr(trainer_in(path.parent), verb)(Model(), datamodule=Data(), ckpt_path=path, **given)

    return run


WAYS: dict[str, Callable[..., Any]] = {
    **{verb: _run(verb) for verb in ("fit", "validate", "test", "predict")},
    "module": Model.load_from_checkpoint,
    "datamodule": Data.load_from_checkpoint,
    "plugin": TorchCheckpointIO().load_checkpoint,
    "function": cloud_io.load,
}


@pytest.mark.parametrize("way", WAYS)
def test_weights_only_false_is_honoured_with_one_warning_for_a_file(path, way) -> None:
    with pytest.warns(
        UnsafeLoadWarning, match=r"own\.ckpt is read with `weights_only=False`: .*can run any code"
    ) as caught:
        _ = [WAYS[way](path, weights_only=False) for _ in range(2)]

    assert Own.made == 2
    assert len(caught) == 1
    assert caught[0].filename == __file__


@pytest.mark.parametrize("way", WAYS)
def test_switch_in_the_environment_is_honoured_where_nothing_was_said(path, way, monkeypatch) -> None:
    monkeypatch.setenv(NO_ONLY, "1")

    with pytest.warns(UnsafeLoadWarning, match=rf"own\.ckpt is read with `{NO_ONLY}` in the environment"):
        WAYS[way](path)
    assert Own.made == 1
    with pytest.raises(pickle.UnpicklingError, match="Own"):
        WAYS[way](path, weights_only=True)
    assert Own.made == 1


@pytest.mark.parametrize("way", WAYS)
def test_strict_switch_wins_over_weights_only_false(path, way, monkeypatch) -> None:
    monkeypatch.setenv(ONLY, "1")

    with pytest.raises(pickle.UnpicklingError, match="Own"):
        WAYS[way](path, weights_only=False)
    assert Own.made == 0


def test_both_switches_at_once_raise_and_say_so(path, monkeypatch) -> None:
    monkeypatch.setenv(ONLY, "1")
    monkeypatch.setenv(NO_ONLY, "yes")

    with pytest.raises(RuntimeError, match=r"contradict each other\. Unset one of them"):
        cloud_io.load(path)


@pytest.mark.parametrize("way", WAYS)
def test_class_that_the_user_allows_is_loaded_without_a_warning(path, way) -> None:
    with torch.serialization.safe_globals([Own]):
        WAYS[way](path)

    assert Own.made == 1
