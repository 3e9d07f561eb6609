"""No file can do more than fail to load: hostile checkpoints, through every way of loading, in a watched process."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections import defaultdict
from pathlib import Path
from typing import Any

import pytest
import torch

import fulmen

from . import corpus, wrong_values

ROOT = Path(__file__).resolve().parents[2]
DOCUMENTED = {"RuntimeError", "UnpicklingError", "ValueError", "TypeError", "MisconfigurationException"}
NAMES = [
    *(f"value: {case}" for case in corpus.VALUES),
    *(f"place: {place}" for place in corpus.PLACES),
    *(f"file: {case}" for case, _ in corpus.files(corpus.saved({"state_dict": {"layer.weight": torch.ones(1)}}))),
    *(f"wrong for training: {case}" for case in wrong_values.WRONG_FOR_TRAINING),
    *(f"wrong for all: {case}" for case in wrong_values.WRONG_FOR_ALL),
    *(f"wrong for constructor: {case}" for case in wrong_values.WRONG_FOR_CONSTRUCTORS),
]


@pytest.fixture(scope="module")
def outcomes(tmp_path_factory: pytest.TempPathFactory) -> dict[str, list[dict[str, Any]]]:
    """What came of each case, in each way of loading it: of one process that reads them all."""
    folder = tmp_path_factory.mktemp("corpus")
    process = subprocess.run(
        [sys.executable, "-m", "tests.safety.reading", str(folder)],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(Path(fulmen.__file__).parents[1]), "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=300,
    )
    found: dict[str, list[dict[str, Any]]] = defaultdict(list)
    for line in process.stdout.splitlines():
        row = json.loads(line)
        found[row["case"]].append(row)
    assert process.returncode == 0, f"after {len(found)} cases: {process.stderr[-2000:]}"
    return found


@pytest.mark.parametrize("name", NAMES)
def test_hostile_checkpoint_is_refused_with_a_clear_error_and_does_nothing(outcomes, name) -> None:
    assert outcomes[name], "this case was not read"
    for row in outcomes[name]:
        did = {key: row[key] for key in ("events", "imported", "marks") if row[key]}
        assert not did, f"{row['way']}: {did}"
        assert DOCUMENTED & set(row["error"]), f"{row['way']}: {row['error'][:1] or 'it was loaded'} {row['text']}"
        assert "hostile.ckpt" in row["text"] or "checkpoint" in row["text"], f"{row['way']}: {row['text']}"
        assert len(row["text"]) < 900
        assert row["seconds"] < 3
        assert row["megabytes"] < 200


#: what in the corpus does something when it is called, and is told from classes whose purpose is not known
RUNS_CODE = [
    "reduce_os_system", "reduce_posix_system", "reduce_canary", "obj", "newobj", "newobj_ex", "eval",
    "exec_by_its_old_name", "getattr", "partial", "attrgetter", "import_module", "load_from_bytes", "hub_load",
    "dotted_name", "rebuild_from_type_of_os_system",
]  # fmt: skip


@pytest.mark.parametrize(
    "name", [*(f"value: {name}" for name in RUNS_CODE), *(f"place: {name}" for name in corpus.PLACES)]
)
def test_error_for_a_file_that_would_run_code_names_it_and_advises_no_way_to_let_it(outcomes, name) -> None:
    for row in outcomes[name]:
        assert re.search(r"holds what would run code: \w+[\w.]+", row["text"]), row["text"]
        assert "Nothing of it was run" in row["text"]
        assert "get the file again from somebody you trust" in row["text"]
        for way in ("add_safe_globals", "safe_globals", "weights_only=False", "convert"):
            assert way not in row["text"]


def test_advice_to_allow_names_is_given_for_the_harmless_alone(outcomes) -> None:
    advised = {name for name in NAMES for row in outcomes[name] if "add_safe_globals" in row["text"]}

    assert advised == {"value: numpy_reconstruct"}


def test_honest_checkpoint_loads_in_every_way_and_imports_nothing(outcomes) -> None:
    assert [row["way"] for row in outcomes["honest"]] == [
        "fit", "validate", "test", "predict", "module", "datamodule", "plugin", "function",
    ]  # fmt: skip
    for row in outcomes["honest"]:
        assert (row["error"], row["events"], row["imported"]) == ([], [], []), row


def test_the_watch_sees_what_a_file_does_when_it_may(outcomes) -> None:
    (row,) = outcomes["control"]

    assert row["marks"] == ["mark_of_a_call", "mark_of_an_import"]
    assert any("open" in event for event in row["events"])
    assert corpus.CANARY in row["imported"]
