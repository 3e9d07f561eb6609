"""``fulmen search`` runs fit with many values, keeps what came of each, and writes the best one down."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

import pytest
from tests.search.searching import (
    arguments,
    begin,
    epochs_begun,
    kill,
    processes_of,
    search,
    states,
    table,
    trials,
    until,
)

from fulmen.search.fit import run_fit

Search = Callable[..., tuple[int, str]]


def test_trials_that_raise_or_crash_are_recorded_and_the_search_goes_on_to_the_best(
    tmp_path: Path, search_here: Search
) -> None:
    kinds = "{choice: [raises, crashes, plain]}"

    code, output = search_here(*arguments("--workers=2", "--sampler=grid", "--model.kind", kinds, x="2"))

    assert code == 0, output
    by_kind = {row["model.init_args.kind"]: row for row in table(tmp_path)}
    states_of = {kind: row["state"] for kind, row in by_kind.items()}
    assert states_of == {"raises": "failed", "crashes": "failed", "plain": "complete"}
    assert float(by_kind["plain"]["score"]) == 1.5
    assert by_kind["raises"]["error"] == "ValueError: there is no way at 2.0"
    assert by_kind["crashes"]["error"].startswith("crashed by SIGABRT")
    assert "Traceback" in Path(by_kind["raises"]["folder"], "log.txt").read_text()
    assert f"trial {by_kind['raises']['trial']} failed: ValueError: there is no way at 2.0" in output
    assert f"best: trial {by_kind['plain']['trial']}, score = 1.5" in output
    trainer = run_fit(["--config", "search/best.yaml", "--trainer.default_root_dir=again"], [])
    assert trainer.callback_metrics["score"] == 1.5


@pytest.mark.slow
def test_several_workers_share_a_study_and_leave_its_plots(tmp_path: Path, search_here: Search) -> None:
    code, output = search_here(*arguments("--trials=6", "--workers=3", "--sampler=random", "--pruner=none"))

    assert code == 0, output
    rows = table(tmp_path)
    assert [row["state"] for row in rows] == ["complete"] * 6
    for row in rows:
        assert float(row["score"]) == pytest.approx((float(row["model.init_args.x"]) - 3) ** 2 + 0.5, rel=1e-5)
    for name in ("history.png", "importance.png", "history.html", "importance.html"):
        assert (tmp_path / "search" / name).stat().st_size > 1000, name


@pytest.mark.slow
def test_a_search_that_is_done_says_how_to_ask_for_more(tmp_path: Path, search_here: Search) -> None:
    search_here(*arguments("--trials=1"))
    code, output = search_here(*arguments("--trials=1"))

    assert code == 0, output
    assert "all 1 trials are done; `--trials 2` asks for more" in output
    assert len(table(tmp_path)) == 1


@pytest.mark.slow
def test_trials_that_a_pruner_ends_are_told_apart_and_counted(tmp_path: Path, search_here: Search) -> None:
    pruner = '{"class_path": "threshold", "init_args": {"upper": 2}}'

    code, output = search_here(*arguments("--sampler=grid", f"--pruner={pruner}", x="{choice: [3, 0]}"))

    assert code == 0, output
    assert {row["model.init_args.x"]: row["state"] for row in table(tmp_path)} == {"3": "complete", "0": "pruned"}
    assert "2 trials: 1 complete, 1 pruned, 0 failed" in output


@pytest.mark.slow
def test_a_trial_of_two_processes_is_pruned_and_told_once(tmp_path: Path, search_here: Search) -> None:
    pruner = '{"class_path": "threshold", "init_args": {"upper": 2}}'
    several = ("--trainer.strategy=ddp", "--trainer.devices=2")

    code, output = search_here(*arguments("--sampler=grid", f"--pruner={pruner}", *several, x="{choice: [3, 0]}"))

    assert code == 0, output
    assert {row["model.init_args.x"]: row["state"] for row in table(tmp_path)} == {"3": "complete", "0": "pruned"}
    assert not processes_of(tmp_path)


# -- interrupted ------------------------------------------------------------------------------------------------------


def test_a_killed_trial_goes_on_from_its_checkpoint_and_counts_once(tmp_path: Path) -> None:
    gate = tmp_path / "gate"
    running = begin(tmp_path, *arguments(f"--model.wait={gate}", "--trials=1"))
    until(lambda: (tmp_path / "search/trial_0/waits").exists())

    kill(*processes_of(tmp_path))
    gate.touch()
    output, _ = running.communicate(timeout=120)

    assert running.returncode == 0, output
    assert "trial 0 was ended by SIGKILL, and goes on" in output
    assert states(tmp_path) == ["COMPLETE"]
    assert epochs_begun(tmp_path) == ["0", "1", "1"]  # the first epoch was not trained again
    assert sorted(trials(tmp_path)[0].intermediate_values) == [0, 1]


def test_a_search_that_was_killed_is_finished_by_the_same_command(tmp_path: Path) -> None:
    gate = tmp_path / "gate"
    words = arguments(f"--model.wait={gate}", "--trials=1")
    running = begin(tmp_path, *words)
    until(lambda: (tmp_path / "search/trial_0/waits").exists())
    chosen = trials(tmp_path)[0].params

    kill(running.pid)
    running.communicate()
    gate.touch()
    code, output = search(tmp_path, *words)

    assert code == 0, output
    assert states(tmp_path) == ["COMPLETE"]
    assert trials(tmp_path)[0].params == chosen
    assert epochs_begun(tmp_path).count("0") == 1
    assert not processes_of(tmp_path)


@pytest.mark.slow
def test_ctrl_c_ends_the_trials_and_the_same_command_goes_on(tmp_path: Path) -> None:
    gate = tmp_path / "gate"
    words = arguments(f"--model.wait={gate}", "--trials=1")
    running = begin(tmp_path, *words)
    until(lambda: (tmp_path / "search/trial_0/waits").exists())

    running.send_signal(2)
    gate.touch()
    output, _ = running.communicate(timeout=120)

    assert running.returncode == 130, output
    assert "run the same command again to go on" in output
    assert not processes_of(tmp_path)
    if states(tmp_path) == ["RUNNING"]:  # it may have come to its end just now
        code, output = search(tmp_path, *words)
        assert code == 0, output
    assert states(tmp_path) == ["COMPLETE"]
    assert epochs_begun(tmp_path).count("0") == 1


@pytest.mark.slow
def test_a_second_search_in_the_same_folder_is_refused_while_the_first_is_at_work(tmp_path: Path) -> None:
    gate = tmp_path / "gate"
    words = arguments(f"--model.wait={gate}", "--trials=1")
    first = begin(tmp_path, *words)
    until(lambda: (tmp_path / "search/trial_0/waits").exists())

    code, output = search(tmp_path, *words)
    gate.touch()
    first.communicate(timeout=120)

    assert code == 2
    assert re.search(rf"another search is at work in this folder \(process {first.pid}\)", output)
    assert first.returncode == 0
    assert states(tmp_path) == ["COMPLETE"]


# -- mistakes ---------------------------------------------------------------------------------------------------------


def test_a_metric_that_is_never_logged_ends_the_search_and_names_those_that_were(
    tmp_path: Path, search_here: Search
) -> None:
    code, output = search_here(*arguments("--trials=5", "--monitor=scores", epochs=1))

    assert code == 2
    assert "--monitor scores: trial 0 did not log it. There are: 'score'." in output
    assert states(tmp_path) == ["FAIL"]
    assert (tmp_path / "search/trial_0/log.txt").exists()
