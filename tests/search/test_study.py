"""A study is opened, or is refused with nothing changed; samplers and pruners go by their names."""

from __future__ import annotations

import json
import multiprocessing
import signal
import sqlite3
import subprocess
import sys
import warnings
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import optuna
import pytest
from tests.search.searching import report_often

from fulmen.search import study as studies
from fulmen.search.results import show_table, write_plots, write_table
from fulmen.search.space import dimension_of
from fulmen.search.workers import Running, Workers
from fulmen.utilities.exceptions import MisconfigurationException


def dimension(name: str, written: object) -> Any:
    found = dimension_of(written, name)
    assert found is not None
    return found


RATE = dimension("lr", {"log_uniform": [1e-5, 1e-1]})
LAYERS = dimension("layers", {"int": [2, 6, 2]})
KIND = dimension("kind", {"choice": ["a", "b"]})


# -- samplers and pruners ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", [name for name in studies.SAMPLERS if name not in ("cmaes", "gp", "grid")])
def test_a_sampler_of_each_name_proposes_values(name: str) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # experimental
        kept = optuna.create_study(sampler=studies.make_sampler(name, [RATE], 0, 0, parallel=True))

        assert 1e-5 <= RATE.suggest(kept.ask()) <= 1e-1


def values_of(name: str, seed: int) -> list[float]:
    """What a search proposes, which makes its sampler anew for each trial."""
    kept, values = optuna.create_study(), []
    for number in range(4):
        kept.sampler = studies.make_sampler(name, [RATE], seed, number, parallel=False)
        trial = kept.ask()
        values.append(RATE.suggest(trial))
        kept.tell(trial, values[-1])
    return values


@pytest.mark.parametrize("name", ["tpe", "random"])
def test_a_seed_proposes_the_same_values_and_no_value_twice(name: str) -> None:
    values = values_of(name, 1)

    assert values == values_of(name, 1)
    assert values != values_of(name, 2)
    assert len(set(values)) == 4


def test_a_grid_tries_all_values_once_also_if_the_search_is_begun_anew() -> None:
    kept, seen = optuna.create_study(), []
    for number in range(6):
        kept.sampler = studies.make_sampler("grid", [LAYERS, KIND], 3, number, parallel=False)
        trial = kept.ask()
        seen.append((LAYERS.suggest(trial), KIND.suggest(trial)))
        kept._storage.set_trial_state_values(trial._trial_id, optuna.trial.TrialState.COMPLETE, [0.0])

    assert sorted(seen) == [(layers, kind) for layers in (2, 4, 6) for kind in "ab"]
    assert studies.size_of_grid([LAYERS, KIND]) == 6


@pytest.mark.parametrize("name", [name for name in studies.PRUNERS if name not in ("threshold",)])
def test_a_pruner_of_each_name_is_made(name: str) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # experimental
        assert type(studies.make_pruner(name)).__name__ == studies.PRUNERS[name]


def test_arguments_of_a_sampler_are_given_as_json_and_its_class_by_any_of_its_names() -> None:
    for name in ("tpe", "TPESampler", "optuna.samplers.TPESampler"):
        text = json.dumps({"class_path": name, "init_args": {"n_startup_trials": 3}})
        assert studies.make_sampler(text, [RATE], 0, 0, parallel=False)._n_startup_trials == 3


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("tppe", r"--sampler tppe: there is no sampler of that name. Did you mean 'tpe'\? There are: tpe, random"),
        ("my.Sampler", r"--sampler my.Sampler: No module named 'my'"),
        ("{class_path: tpe, args: {}}", r"must have class_path and init_args"),
        ("{class_path: [", r"this is no JSON or YAML"),
        (
            "{class_path: tpe, init_args: {n_startup_trial: 1}}",
            r"does not take 'n_startup_trial'. Did you mean 'n_startup",
        ),
        ("grid", r"those of lr: \{log_uniform: \[1e-05, 0.1\]\} cannot be counted. Write"),
    ],
)
def test_a_wrong_sampler_is_refused_with_the_nearest_name(text: str, message: str) -> None:
    with pytest.raises(MisconfigurationException, match=message):
        studies.make_sampler(text, [RATE], 0, 0, parallel=False)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("medain", r"--pruner medain: there is no pruner of that name. Did you mean 'median'\?"),
        ("threshold", r"ThresholdPruner says: Either lower or upper must be specified"),
        ("{class_path: successive_halving, init_args: {reduction_factor: 1}}", r"SuccessiveHalvingPruner says: The"),
    ],
)
def test_a_wrong_pruner_is_refused_with_the_nearest_name(text: str, message: str) -> None:
    with pytest.raises(MisconfigurationException, match=message):
        studies.make_pruner(text)


# -- storage ----------------------------------------------------------------------------------------------------------


def opened(file: Path) -> Any:
    return studies.open_storage(f"sqlite:///{file}")


def test_a_file_that_is_no_study_is_refused_and_left_as_it_is(tmp_path: Path) -> None:
    file = tmp_path / "study.db"
    file.write_bytes(b"no database at all, but long enough to be taken for one" * 40)
    before = file.read_bytes()

    with pytest.raises(MisconfigurationException, match=r"study.db: the file of the study is damaged, or is none"):
        opened(file)

    assert file.read_bytes() == before


def test_a_study_with_a_damaged_page_is_refused_and_left_as_it_is(tmp_path: Path) -> None:
    file = tmp_path / "study.db"
    optuna.create_study(study_name="a", storage=f"sqlite:///{file}")
    whole = file.read_bytes()
    file.write_bytes(whole[:4096] + b"\xff" * 8192 + whole[12288:])
    before = file.read_bytes()

    with pytest.raises(MisconfigurationException, match=r"the file of the study is damaged"):
        opened(file)

    assert file.read_bytes() == before


def test_a_file_that_another_program_has_locked_is_told_of(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(studies, "SECONDS_AT_START", 0.1)
    file = tmp_path / "study.db"
    optuna.create_study(study_name="a", storage=f"sqlite:///{file}")
    other = sqlite3.connect(file)
    other.execute("BEGIN EXCLUSIVE")
    try:
        with pytest.raises(MisconfigurationException, match=r"another program has locked the file of the study"):
            opened(file)
    finally:
        other.close()

    opened(file).engine.dispose()


@pytest.mark.parametrize(
    ("url", "message"),
    [
        ("study.db", r"must be a URL. Write `--storage sqlite:///study.db`"),
        ("sqlite:////nowhere/at/all/study.db", r"there is no folder /nowhere/at/all"),
        ("nosuch://host/name", r"the study cannot be opened"),
    ],
)
def test_a_wrong_storage_is_refused(url: str, message: str) -> None:
    with pytest.raises(MisconfigurationException, match=message):
        studies.open_storage(url)


@pytest.mark.slow
def test_many_processes_write_into_one_file_at_once(tmp_path: Path) -> None:
    file = tmp_path / "study.db"
    optuna.create_study(study_name="shared", storage=f"sqlite:///{file}")
    context = multiprocessing.get_context("spawn")
    begin = context.Barrier(4)
    processes = [context.Process(target=report_often, args=(str(file), begin)) for _ in range(4)]
    for process in processes:
        process.start()
    for process in processes:
        process.join()

    assert [process.exitcode for process in processes] == [0] * 4
    trials = optuna.load_study(study_name="shared", storage=f"sqlite:///{file}").trials
    assert [len(trial.intermediate_values) for trial in trials] == [5] * 12


# -- a study that is there --------------------------------------------------------------------------------------------


def begun(file: Path, **other: Any) -> Any:
    storage = opened(file)
    known = {"direction": "minimize", "monitor": "loss", "space": studies.described([RATE]), "settings": {"epochs": 2}}
    try:
        return studies.open_study(storage, "a", **{**known, **other})
    finally:
        storage.engine.dispose()


def test_the_same_search_goes_on_with_its_study(tmp_path: Path) -> None:
    begun(tmp_path / "study.db")

    _, changed = begun(tmp_path / "study.db")

    assert changed == []


@pytest.mark.parametrize(
    ("other", "message"),
    [
        ({"space": {"lr": "{uniform: [0, 1]}"}}, r"lr: \{log_uniform: \[1e-05, 0.1\]\} -> \{uniform: \[0, 1\]\}"),
        ({"space": {}}, r"lr: .* -> not searched"),
        ({"monitor": "acc"}, r"--monitor: loss -> acc"),
        ({"direction": "maximize"}, r"--direction: minimize -> maximize"),
    ],
)
def test_a_study_that_searches_something_else_is_refused_and_named(
    tmp_path: Path, other: dict[str, Any], message: str
) -> None:
    begun(tmp_path / "study.db")

    with pytest.raises(
        MisconfigurationException, match=rf"searches something else \(.*{message}.*Choose another --study"
    ):
        begun(tmp_path / "study.db", **other)


def test_other_settings_than_those_the_study_was_begun_with_are_named(tmp_path: Path) -> None:
    begun(tmp_path / "study.db")

    _, changed = begun(tmp_path / "study.db", settings={"epochs": 5})

    assert changed == ["epochs: 2 -> 5"]


def test_a_study_of_another_program_is_not_mixed_with_a_search(tmp_path: Path) -> None:
    file = tmp_path / "study.db"
    optuna.create_study(study_name="a", storage=f"sqlite:///{file}").ask()

    with pytest.raises(MisconfigurationException, match=r"was not made by `fulmen search`"):
        begun(file)


# -- workers ----------------------------------------------------------------------------------------------------------


def test_all_trials_are_ended_also_where_one_of_them_did_not_log_the_metric(tmp_path: Path) -> None:
    study = optuna.create_study()
    plan: Any = SimpleNamespace(study=study, monitor="score")
    workers = Workers(plan, lambda _: None, print, lambda *_: None)
    processes = []
    for number in range(2):
        folder = tmp_path / f"trial_{number}"
        folder.mkdir()
        processes.append(subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"]))
        workers.running.append(Running(study.ask(), processes[-1], folder, number, 0.0))
    result = {"state": "failed", "error": "there are: none", "missing": True}
    (tmp_path / "trial_0" / "result.json").write_text(json.dumps(result))

    with pytest.raises(MisconfigurationException, match="trial 0 did not log it"):
        workers.end()

    assert [process.returncode for process in processes] == [-signal.SIGTERM] * 2


# -- results ----------------------------------------------------------------------------------------------------------


def a_study() -> Any:
    """Six trials that are complete, one that was pruned, one that failed, and one that runs."""
    kept = optuna.create_study(study_name="search", direction="maximize", sampler=optuna.samplers.RandomSampler(seed=0))
    kept.set_user_attr("monitor", "acc")
    for number in range(9):
        trial = kept.ask()
        rate, kind = RATE.suggest(trial), KIND.suggest(trial)
        trial.report(rate, 0)
        if number == 6:
            kept.tell(trial, state=optuna.trial.TrialState.PRUNED)
        elif number == 7:
            trial.set_user_attr("error", "ValueError: no")
            kept.tell(trial, state=optuna.trial.TrialState.FAIL)
        elif number < 6:
            kept.tell(trial, rate + (kind == "a"))
    return kept


def test_the_plots_are_there_as_pictures_and_as_pages_that_need_no_network(tmp_path: Path) -> None:
    names = write_plots(a_study(), tmp_path, maximize=True)

    assert names == ["history.png", "importance.png", "history.html", "importance.html"]
    for name in names:
        content = (tmp_path / name).read_bytes()
        assert content.startswith(b"\x89PNG") if name.endswith("png") else b'src="plotly.min.js"' in content
    assert (tmp_path / "plotly.min.js").exists()


def test_without_a_complete_trial_there_is_nothing_to_plot(tmp_path: Path) -> None:
    assert write_plots(optuna.create_study(), tmp_path, maximize=True) == []


def test_the_table_shows_the_best_first_and_why_trials_failed(capsys: pytest.CaptureFixture[str]) -> None:
    kept = a_study()

    show_table(kept, maximize=True)

    lines = capsys.readouterr().out.splitlines()
    assert lines[0].split() == ["trial", "state", "acc", "lr", "kind", "epochs", "time"]
    assert lines[1].split()[0] == str(kept.best_trial.number)
    assert "9 trials: 6 complete, 1 pruned, 1 failed, 1 to be continued" in lines
    assert "trial 7 failed: ValueError: no" in lines


def test_the_file_of_results_has_a_row_for_each_trial(tmp_path: Path) -> None:
    write_table(a_study(), tmp_path)

    rows = (tmp_path / "results.csv").read_text().splitlines()
    assert rows[0] == "trial,state,acc,lr,kind,epochs,seconds,folder,error"
    assert [row.split(",")[1] for row in rows[1:]] == ["complete"] * 6 + ["pruned", "failed", "running"]
