"""Real runs of Lightning 2.6.6 and of Fulmen that go on from each other's files.

They need an interpreter that has Lightning: that of ``FULMEN_LIGHTNING_PYTHON``, that of ``make lightning``, or the one
that runs the tests.
"""

from __future__ import annotations

import importlib.util
import json
import os
import subprocess
import sys
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import pytest
import torch
from by_hand import same

from fulmen.__main__ import main

from .toys import BATCHES, Run, run

pytestmark = pytest.mark.slow

RECORDED = Path(__file__).with_name("recorded")
INSTALLED = Path(__file__).parents[2] / ".venv-lightning"
CONVERTED = ["version_1_4", "version_0_8"]

WITHOUT_VALIDATION = {"limit_val_batches": 0}
ACCUMULATED = {"accumulate_grad_batches": 2}
WATCHED = [
    ("ModelCheckpoint", {"dirpath": "kept", "monitor": "val_loss", "save_top_k": 2}),
    ("EarlyStopping", {"monitor": "val_loss"}),
]
AVERAGED = [("EMAWeightAveraging", {"decay": 0.9})]
#: runs of two epochs, the moment at which a file is written, and where that file goes on: epoch, batch, steps made
OURS: dict[str, tuple[Run, str, tuple[int, int, int]]] = {
    "first_batch": (Run(), "boundary 1", (0, 1, 1)),
    "mid_epoch": (Run(), "boundary 3", (0, 3, 3)),
    "last_batch": (Run(), "boundary 5", (1, 0, 5)),
    "second_epoch": (Run(), "boundary 7", (1, 2, 7)),
    "in_a_hook": (Run(), "on_train_batch_end 3", (0, 3, 3)),
    "in_validation": (Run(), "on_validation_end 1", (1, 0, 5)),
    "end_of_epoch": (Run(), "on_train_epoch_end 1", (1, 0, 5)),
    "end_of_epoch_without_validation": (Run(trainer=WITHOUT_VALIDATION), "on_train_epoch_end 1", (1, 0, 5)),
    "last_batch_without_validation": (Run(trainer=WITHOUT_VALIDATION), "boundary 5", (1, 0, 5)),
    "in_a_window": (Run(trainer=ACCUMULATED), "boundary 3", (0, 3, 1)),
    "between_two_windows": (Run(trainer=ACCUMULATED), "boundary 7", (1, 2, 4)),
    "after_a_validation": (Run(trainer={"val_check_interval": 2}), "boundary 2", (0, 2, 2)),
    "manual": (Run("Rivals", WITHOUT_VALIDATION), "boundary 3", (0, 3, 6)),
    "manual_second_epoch": (Run("Rivals", WITHOUT_VALIDATION), "boundary 7", (1, 2, 14)),
    "watched": (Run(callbacks=WATCHED), "on_train_epoch_end 1", (1, 0, 5)),
    "averaged": (Run(callbacks=AVERAGED), "on_train_epoch_end 1", (1, 0, 5)),
    "end_of_training": (Run(trainer={"max_epochs": 1}), "after", (1, 0, 5)),
}
#: the same of Lightning's; recorded files stand for the other moments
THEIRS: dict[str, tuple[Run, str]] = {
    "watched": (Run(callbacks=WATCHED), "on_train_epoch_end 1"),
    "mid_epoch": (Run(), "on_train_batch_end 3"),
    "averaged": (Run(callbacks=AVERAGED), "on_train_batch_end 3"),
    "averaged_alike": (Run(callbacks=[("WeightAveraging", {})]), "on_train_epoch_end 1"),
    "manual": (Run("Rivals", WITHOUT_VALIDATION), "on_train_batch_end 7"),
}


def of_two_epochs(what: Run, **attributes: Any) -> Run:
    return replace(what, trainer={"max_epochs": 2, **what.trainer}, **attributes)


@pytest.fixture(scope="module")
def lightning() -> str:
    """An interpreter that has Lightning."""
    if named := os.environ.get("FULMEN_LIGHTNING_PYTHON"):
        return named
    if (INSTALLED / "stamp").exists():
        return str(INSTALLED / "bin" / "python")
    if importlib.util.find_spec("lightning") is None:
        pytest.skip("Lightning is not installed: `make lightning` does it, or FULMEN_LIGHTNING_PYTHON names a Python")
    return sys.executable


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("interchange")


def placed(what: Run, folder: Path) -> Run:
    """With the checkpoints of its callbacks below ``folder``."""
    callbacks = [
        (name, {**arguments, "dirpath": str(folder)} if "dirpath" in arguments else arguments)
        for name, arguments in what.callbacks
    ]
    return replace(what, callbacks=callbacks)


def same_states(ours: dict[str, Any], theirs: dict[str, Any]) -> bool:
    """Whether the states of callbacks are equal, but for what Lightning does not have, or does not take back, or writes
    only when k files are kept.
    """
    left_out = ("current_score", "kth_best_model_path", "kth_value")
    return ours.keys() == theirs.keys() and all(
        same(ours[key][name], value)
        for key, state in theirs.items()
        for name, value in state.items()
        if name not in left_out
    )


def under_lightning(python: str, runs: dict[str, dict[str, Any]], folder: Path, name: str) -> dict[str, Any]:
    (folder / f"{name}.json").write_text(json.dumps(runs))
    script = Path(__file__).with_name("under_lightning.py")
    command = [python, str(script), str(folder / f"{name}.json"), str(folder / f"{name}.pt")]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=300)
    assert done.returncode == 0, done.stderr[-3000:]
    return torch.load(folder / f"{name}.pt", weights_only=True)


@pytest.fixture(scope="module")
def ours(folder: Path) -> dict[str, dict[str, Any]]:
    """What was seen in the runs of Fulmen that wrote a file each, and went on to their end."""
    seen = {}
    for name, (what, moment, _) in OURS.items():
        here = folder / "ours" / name
        what = placed(of_two_epochs(what, save={moment: str(here / "saved.ckpt")}), here)
        seen[name] = run("fulmen", what, here)
    return seen


@pytest.fixture(scope="module")
def resumed_there(lightning: str, ours: dict[str, Any], folder: Path) -> dict[str, Any]:
    """What was seen in runs of Lightning that went on from our files."""
    runs = {}
    for name, (what, _, _) in OURS.items():
        here = folder / "ours" / name
        what = replace(of_two_epochs(placed(what, here), ckpt_path=str(here / "saved.ckpt")))
        runs[name] = asdict(replace(what, trainer={**what.trainer, "max_epochs": 2}))
    runs["loaded"] = {"ckpt_path": str(folder / "ours" / "mid_epoch" / "saved.ckpt")}
    return under_lightning(lightning, runs, folder, "there")


@pytest.mark.parametrize("name", OURS)
def test_file_of_fulmen_gives_its_state_back_in_lightning(
    resumed_there: dict[str, Any], folder: Path, name: str
) -> None:
    saved = torch.load(folder / "ours" / name / "saved.ckpt", weights_only=True)
    began = resumed_there[name]["began"]

    trained = saved.get("current_model_state", saved["state_dict"])  # where `state_dict` has averages
    torch.testing.assert_close(began["weights"], trained, rtol=0, atol=0)
    torch.testing.assert_close(began["optimizers"], saved["optimizer_states"], rtol=0, atol=0)
    assert began["schedulers"] == saved["lr_schedulers"]
    assert began["step"] == saved["global_step"]


@pytest.mark.parametrize("name", OURS)
def test_counters_in_an_epoch_are_those_that_lightning_goes_on_from(
    ours: dict[str, Any], resumed_there: dict[str, Any], name: str
) -> None:
    _, _, (epoch, batch, step) = OURS[name]
    there = resumed_there[name]
    positions = [(e, i) for e, i, _, _ in there["batches"]]

    assert there["batches"][0][:3] == (epoch, batch, step)
    assert positions == [(e, i) for e in (0, 1) for i in range(BATCHES)][epoch * BATCHES + batch :]
    whole = ours["second_epoch" if name == "end_of_training" else name]["ended"]
    for counter in ("epoch", "step", "batches_that_stepped"):
        assert there["ended"][counter] == whole[counter], counter


@pytest.mark.parametrize("name", [name for name, (_, _, (_, batch, _)) in OURS.items() if batch == 0])
def test_run_that_goes_on_in_lightning_with_an_epoch_ends_as_the_run_that_never_stopped(
    ours: dict[str, Any], resumed_there: dict[str, Any], name: str
) -> None:
    whole = ours["second_epoch" if name == "end_of_training" else name]["ended"]
    ended = resumed_there[name]["ended"]

    torch.testing.assert_close(ended["weights"], whole["weights"], rtol=0, atol=0)
    torch.testing.assert_close(ended["optimizers"], whole["optimizers"], rtol=0, atol=0)


def test_callbacks_of_lightning_find_their_state_in_our_file(resumed_there: dict[str, Any], folder: Path) -> None:
    saved = torch.load(folder / "ours" / "watched" / "saved.ckpt", weights_only=True)["callbacks"]
    began = resumed_there["watched"]["began"]["callbacks"]

    assert {key.partition("{")[0] for key in began} == {"ModelCheckpoint", "EarlyStopping"}
    assert same_states(saved, began)


def test_load_from_checkpoint_of_lightning_reads_our_file(resumed_there: dict[str, Any], folder: Path) -> None:
    saved = torch.load(folder / "ours" / "mid_epoch" / "saved.ckpt", weights_only=True)

    torch.testing.assert_close(resumed_there["loaded"]["weights"], saved["state_dict"], rtol=0, atol=0)
    assert resumed_there["loaded"]["hparams"] == {"width": 3, "name": "net"}


@pytest.fixture(scope="module")
def converted_there(lightning: str, folder: Path) -> dict[str, Any]:
    """What Lightning made of converted files: the module that it loaded, and the run that went on."""
    runs: dict[str, dict[str, Any]] = {}
    for name in CONVERTED:
        assert main(["checkpoint", "convert", str(RECORDED / f"{name}.ckpt"), str(folder / f"{name}.ckpt")]) == 0
        runs[f"{name} loaded"] = {"ckpt_path": str(folder / f"{name}.ckpt")}
        runs[f"{name} resumed"] = asdict(Run(trainer={"max_epochs": 2}, ckpt_path=str(folder / f"{name}.ckpt")))
    return under_lightning(lightning, runs, folder, "converted")


@pytest.mark.parametrize("name", CONVERTED)
def test_converted_file_loads_in_lightning_as_plain_data(
    converted_there: dict[str, Any], folder: Path, name: str
) -> None:
    plain = torch.load(folder / f"{name}.ckpt", weights_only=True)
    loaded, resumed = converted_there[f"{name} loaded"], converted_there[f"{name} resumed"]

    assert same(loaded["weights"], plain["state_dict"])
    assert loaded["hparams"] == {"width": 3, "name": "net"}
    assert same(resumed["began"]["weights"], plain["state_dict"])
    assert same(resumed["began"]["optimizers"], plain["optimizer_states"])
    assert [(epoch, batch, step) for epoch, batch, step, _ in resumed["batches"]] == [(1, i, 5 + i) for i in range(5)]


@pytest.fixture(scope="module")
def theirs(lightning: str, folder: Path) -> dict[str, Any]:
    """What was seen in the runs of Lightning that wrote a file each, and went on to their end."""
    runs = {}
    for name, (what, moment) in THEIRS.items():
        here = folder / "theirs" / name
        runs[name] = asdict(placed(of_two_epochs(what, save={moment: str(here / "saved.ckpt")}), here))
    return under_lightning(lightning, runs, folder, "theirs")


@pytest.mark.parametrize("name", THEIRS)
def test_run_that_lightning_began_ends_here_as_the_run_that_never_stopped(
    theirs: dict[str, Any], folder: Path, name: str
) -> None:
    here = folder / "theirs" / name
    what = placed(of_two_epochs(THEIRS[name][0], ckpt_path=str(here / "saved.ckpt")), here)
    seen = run("fulmen", what, here)

    saved = torch.load(here / "saved.ckpt", weights_only=True)
    assert same_states(seen["began"]["callbacks"], saved["callbacks"])
    assert theirs[name]["batches"][-len(seen["batches"]) :] == seen["batches"]
    for part in ("weights", "optimizers", "schedulers", "epoch", "step", "batches_that_stepped"):
        torch.testing.assert_close(seen["ended"][part], theirs[name]["ended"][part], rtol=0, atol=0)
