"""``fulmen search`` runs fit with many values, keeps what came of each, and writes the best one down."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.search.searching import (
    arguments,
    begin,
    environment,
    epochs_begun,
    kill,
    processes_of,
    search,
    states,
    table,
    trials,
    until,
)


def test_a_search_leaves_its_results_its_plots_and_the_best_configuration(tmp_path: Path) -> None:
    code, output = search(tmp_path, *arguments("--trials=4", "--workers=2", "--sampler=random", "--pruner=none"))

    assert code == 0, output
    rows = table(tmp_path)
    best = min(rows, key=lambda row: float(row["score"]))
    assert [row["state"] for row in rows] == ["complete"] * 4
    for row in rows:
        assert float(row["score"]) == pytest.approx((float(row["model.init_args.x"]) - 3) ** 2 + 0.5, rel=1e-5)
    for name in ("history.png", "importance.png", "history.html", "importance.html"):
        assert (tmp_path / "search" / name).stat().st_size > 1000, name
    assert f"best: trial {best['trial']}, score" in output
    fit = subprocess.run(
        [sys.executable, "-c", _FIT, "search/best.yaml"], cwd=tmp_path, env=environment(), capture_output=True, text=True
    )
    assert fit.returncode == 0, fit.stderr
    assert float(fit.stdout.split()[-1]) == pytest.approx(float(best["score"]))


#: in effect ``fulmen fit --config``, which then says what the score was
_FIT = """
import sys
from fulmen.cli import LightningCLI
words, sys.argv = sys.argv[1:], sys.argv[:1]
print(float(LightningCLI(args=["fit", "--config", *words]).trainer.callback_metrics["score"]))
"""


def test_a_trial_that_raises_and_one_that_crashes_are_recorded_and_the_search_goes_on(tmp_path: Path) -> None:
    kinds = "{choice: [raises, crashes, plain, nan]}"

    code, output = search(tmp_path, *arguments("--workers=2", "--sampler=grid", "--model.kind", kinds, x="2"))

    assert code == 0, output
    by_kind = {row["model.init_args.kind"]: row for row in table(tmp_path)}
    assert {kind: row["state"] for kind, row in by_kind.items()} == {
        "raises": "failed", "crashes": "failed", "plain": "complete", "nan": "failed",
    }  # fmt: skip
    assert by_kind["raises"]["error"] == "ValueError: there is no way at 2.0"
    assert by_kind["crashes"]["error"].startswith("crashed by SIGABRT")
    assert by_kind["nan"]["error"] == "score is NaN at the end of the run"
    assert "Traceback" in Path(by_kind["raises"]["folder"], "log.txt").read_text()
    assert f"trial {by_kind['raises']['trial']} failed: ValueError: there is no way at 2.0" in output


# -- interrupted ------------------------------------------------------------------------------------------------------


def test_a_killed_trial_goes_on_from_its_checkpoint_and_counts_once(tmp_path: Path) -> None:
    gate = tmp_path / "gate"
    running = begin(tmp_path, *arguments(f"--model.wait={gate}", "--trials=1"))
    until(lambda: (tmp_path / "search/trial_0/waits").exists())

    kill(*processes_of(tmp_path))
    gate.touch()
    output, _ = running.communicate(timeout=60)

    assert running.returncode == 0, output
    assert "trial 0 was ended by SIGKILL, and goes on" in output
    assert states(tmp_path) == ["COMPLETE"]
    assert epochs_begun(tmp_path) == ["0", "1", "1"]  # the first epoch was not trained again
    assert sorted(trials(tmp_path)[0].intermediate_values) == [0, 1]


def test_a_search_that_was_killed_is_finished_by_the_same_command(tmp_path: Path) -> None:
    gate = tmp_path / "gate"
    words = arguments(f"--model.wait={gate}", "--trials=2")
    running = begin(tmp_path, *words)
    until(lambda: (tmp_path / "search/trial_0/waits").exists())
    chosen = trials(tmp_path)[0].params

    kill(running.pid)
    running.communicate()
    gate.touch()
    code, output = search(tmp_path, *words)

    assert code == 0, output
    assert states(tmp_path) == ["COMPLETE", "COMPLETE"]
    assert trials(tmp_path)[0].params == chosen
    assert epochs_begun(tmp_path).count("0") == 1
    assert not processes_of(tmp_path)


def test_ctrl_c_ends_the_trials_and_the_same_command_goes_on(tmp_path: Path) -> None:
    gate = tmp_path / "gate"
    words = arguments(f"--model.wait={gate}", "--trials=1")
    running = begin(tmp_path, *words)
    until(lambda: (tmp_path / "search/trial_0/waits").exists())

    running.send_signal(2)
    gate.touch()
    output, _ = running.communicate(timeout=60)

    assert running.returncode == 130, output
    assert "run the same command again to go on" in output
    assert not processes_of(tmp_path)
    if states(tmp_path) == ["RUNNING"]:  # it may have come to its end just now
        code, output = search(tmp_path, *words)
        assert code == 0, output
    assert states(tmp_path) == ["COMPLETE"]
    assert epochs_begun(tmp_path).count("0") == 1


def test_a_second_search_in_the_same_folder_is_refused_while_the_first_is_at_work(tmp_path: Path) -> None:
    gate = tmp_path / "gate"
    words = arguments(f"--model.wait={gate}", "--trials=1")
    first = begin(tmp_path, *words)
    until(lambda: (tmp_path / "search/trial_0/waits").exists())

    code, output = search(tmp_path, *words)
    gate.touch()
    first.communicate(timeout=60)

    assert code == 2
    assert re.search(rf"another search is at work in this folder \(process {first.pid}\)", output)
    assert first.returncode == 0
    assert states(tmp_path) == ["COMPLETE"]


# -- mistakes ---------------------------------------------------------------------------------------------------------


def test_a_metric_that_is_never_logged_ends_the_search_and_names_those_that_were(tmp_path: Path) -> None:
    code, output = search(tmp_path, *arguments("--trials=5", "--monitor=scores"))

    assert code == 2
    assert "--monitor scores: trial 0 did not log it. There are: 'score'." in output
    assert states(tmp_path) == ["FAIL"]
    assert os.path.exists(tmp_path / "search/trial_0/log.txt")
