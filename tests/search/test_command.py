"""What ``fulmen search`` is told, it checks before anything runs; and it shows again what it has found."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path

import optuna
import pytest
from tests.search.searching import arguments

from fulmen.integrations.optuna import PruningCallback
from fulmen.search import study as studies
from fulmen.search.fit import whole_configuration
from fulmen.search.space import dimension_of
from fulmen.search.workers import within_folder
from fulmen.utilities.imports import package_available

Search = Callable[..., tuple[int, str]]
CALLBACK = "{class_path: fulmen.callbacks.EarlyStopping, init_args: {monitor: %s, mode: %s}}"


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--trails", "5"], "there is no option --trails. Did you mean --trials?"),
        (["--sampler=tppe"], "--sampler tppe: there is no sampler of that name. Did you mean 'tpe'?"),
        (["--pruner=medium"], "--pruner medium: there is no pruner of that name. Did you mean 'median'?"),
        (["--sampler=grid"], "those of model.init_args.x: {uniform: [0.0, 6.0]} cannot be counted"),
        (["--model.x=2"], "model.x: the dimension {uniform: [0.0, 6.0]} has no effect"),
        (["--model.kind={choise: [a, b]}"], "no kind of dimension 'choise'. Did you mean {choice: [one, another]}?"),
        (["--storage=study.db"], "Write `--storage sqlite:///study.db`"),
    ],
)
def test_a_mistake_is_one_line_and_nothing_is_run(
    tmp_path: Path, search_here: Search, words: list[str], message: str
) -> None:
    code, output = search_here(*arguments(*words))

    assert code == 2
    assert f"fulmen search: error: {message}" in output or message in output
    assert output.count("\n") == 1
    assert not list(tmp_path.glob("search/trial_*"))


@pytest.mark.parametrize(
    ("option", "message"),
    [
        ("--trials=0", "0 is less than 1"),
        ("--trials=many", "'many' is not a whole number"),
        ("--direction=up", "'up': write minimize or maximize"),
        ("--timeout=soon", "'soon' is no time: write 3600, 90min or 8h"),
        ("--value=worst", "invalid choice: 'worst'"),
    ],
)
def test_a_wrong_option_is_refused(
    search_here: Search, capsys: pytest.CaptureFixture[str], option: str, message: str
) -> None:
    with pytest.raises(SystemExit) as ending:
        search_here(*arguments(option))

    assert ending.value.code == 2
    assert message in capsys.readouterr().err


def test_a_wrong_argument_of_fit_is_told_as_fit_tells_it(
    search_here: Search, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as ending:
        search_here(*arguments("--trainer.max_epoch=3"))

    assert ending.value.code == 2
    assert "trainer.max_epochs" in capsys.readouterr().err


def without_monitor() -> list[str]:
    return [word for word in arguments() if not word.startswith("--monitor")]


def test_without_a_monitor_the_user_is_asked_for_one(search_here: Search) -> None:
    code, output = search_here(*without_monitor())

    assert code == 2
    assert "it is not clear what to search for, since no callback names one" in output


def test_a_metric_of_which_more_is_better_needs_its_direction(search_here: Search) -> None:
    code, output = search_here(*without_monitor(), "--monitor=val_acc")

    assert code == 2
    assert "it is not said which val_acc is better. Write `--direction maximize`" in output


def test_callbacks_that_look_at_two_metrics_leave_it_to_the_user(search_here: Search) -> None:
    two = f"[{CALLBACK % ('loss', 'min')}, {CALLBACK % ('acc', 'max')}]"

    code, output = search_here(*without_monitor(), f"--trainer.callbacks={two}")

    assert code == 2
    assert "the callbacks look at several: loss, acc" in output


@pytest.mark.parametrize("package", ["optuna", "plotly"])
def test_a_package_that_is_missing_is_named_with_how_to_install_it(
    search_here: Search, monkeypatch: pytest.MonkeyPatch, package: str
) -> None:
    monkeypatch.setitem(sys.modules, package, None)
    package_available.cache_clear()

    code, output = search_here(*arguments())
    if package == "optuna":
        with pytest.raises(ModuleNotFoundError, match=r"PruningCallback needs Optuna.*fulmen\[search\]"):
            PruningCallback(None, "score")

    package_available.cache_clear()
    assert code == 2
    assert f"`fulmen search` needs {package}, which is not installed. Run `pip install 'fulmen[search]'`." in output


# -- a study that is there --------------------------------------------------------------------------------------------


def finished_search(folder: Path, space: str = "{uniform: [0.0, 6.0]}") -> None:
    """The folder of a search of three trials, as the command leaves it."""
    folder.mkdir()
    url = f"sqlite:///{folder / 'study.db'}"
    kept = optuna.create_study(study_name="search", storage=url)
    kept.set_user_attr("monitor", "score")
    kept.set_user_attr("settings", "{}")
    kept.set_user_attr("space", {"model.init_args.x": space})
    x = dimension_of({"uniform": [0, 6]}, "model.init_args.x")
    assert x is not None
    for number in range(3):
        trial = kept.ask()
        x.suggest(trial)
        kept.tell(trial, 5.0 - number)
    known = {"study": "search", "storage": None, "monitor": "score", "direction": "minimize"}
    (folder / "search.json").write_text(json.dumps({**known, "arguments": [], "directory": str(folder.parent)}))


def test_show_prints_the_results_again_and_runs_nothing(tmp_path: Path, search_here: Search) -> None:
    finished_search(tmp_path / "search")

    code, output = search_here("--show", "search")

    assert code == 0
    assert "3 trials: 3 complete, 0 pruned, 0 failed" in output
    assert "best: trial 2, score = 3" in output
    assert (tmp_path / "search" / "results.csv").exists()


def test_show_of_another_folder_says_what_to_give(search_here: Search) -> None:
    code, output = search_here("--show", "nowhere")

    assert code == 2
    assert "--show nowhere: there is no search in this folder" in output


def test_a_study_that_is_whole_already_is_shown_and_no_trial_is_run(tmp_path: Path, search_here: Search) -> None:
    finished_search(tmp_path / "search")

    code, output = search_here(*arguments("--trials=3"))

    assert code == 0
    assert "best: trial 2" in output
    assert "the study goes on with other settings" in output  # it was begun with none
    assert not list(tmp_path.glob("search/trial_*"))


def test_a_study_with_another_space_is_refused_and_left_as_it_is(tmp_path: Path, search_here: Search) -> None:
    finished_search(tmp_path / "search", space="{uniform: [0.0, 1.0]}")

    code, output = search_here(*arguments("--trials=9"))

    assert code == 2
    assert "model.init_args.x: '{uniform: [0.0, 1.0]}'" in output or "{uniform: [0.0, 1.0]} -> {uniform" in output
    assert len(optuna.load_study(study_name="search", storage="sqlite:///search/study.db").trials) == 3


def test_a_damaged_study_is_refused_and_left_as_it_is(tmp_path: Path, search_here: Search) -> None:
    finished_search(tmp_path / "search")
    (tmp_path / "search" / "study.db").write_bytes(b"damaged" * 1000)

    code, output = search_here(*arguments())

    assert code == 2
    assert "the file of the study is damaged" in output
    assert (tmp_path / "search" / "study.db").read_bytes() == b"damaged" * 1000


def test_a_folder_with_trials_of_another_study_is_refused_and_kept(tmp_path: Path, search_here: Search) -> None:
    finished_search(tmp_path / "search")
    (tmp_path / "search" / "trial_1").mkdir()
    (tmp_path / "search" / "trial_1" / "result.json").write_text('{"state": "complete", "value": 0.0}')

    code, output = search_here(*arguments("--dir=search", "--study=other"))

    assert code == 2
    assert "trial_1 in this folder is of another study than other" in output
    assert [path.name for path in tmp_path.glob("search/trial_*/*")] == ["result.json"]
    assert json.loads((tmp_path / "search" / "search.json").read_text())["study"] == "search"


def test_the_best_configuration_of_an_earlier_study_is_written_over(tmp_path: Path, search_here: Search) -> None:
    finished_search(tmp_path / "search")
    (tmp_path / "search" / "best.yaml").write_text("# trial 2 of this search: score = 4\n")

    code, output = search_here(*arguments("--trials=3"))

    assert code == 0, output
    assert (tmp_path / "search" / "best.yaml").read_text().startswith("# trial 2 of this search: score = 3\nseed_")


# -- where trials write -----------------------------------------------------------------------------------------------


def test_loggers_and_callbacks_with_a_folder_of_their_own_write_into_that_of_the_trial(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.syspath_prepend(Path(__file__).parent)
    words = [
        "--model=searched.Bowl",
        "--trainer.logger={class_path: fulmen.loggers.CSVLogger, init_args: {save_dir: logs}}",
        "--trainer.callbacks=[{class_path: fulmen.callbacks.ModelCheckpoint, init_args: {dirpath: /all/ckpts}}]",
    ]
    folder = tmp_path / "trial_7"

    whole = whole_configuration([*words, *within_folder(folder, words, whole_configuration(words))])

    trainer = whole["trainer"]
    assert trainer["default_root_dir"] == str(folder)
    assert trainer["logger"]["init_args"]["save_dir"] == str(folder / "logs")
    assert trainer["callbacks"][0]["init_args"]["dirpath"] == "/all/ckpts/trial_7"
    assert whole["ckpt_path"] == "auto"


def test_a_logger_alone_with_a_folder_of_its_own_writes_into_that_of_the_trial(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.syspath_prepend(Path(__file__).parent)
    logger = "{class_path: fulmen.loggers.CSVLogger, init_args: {save_dir: logs}}"
    words = ["--model=searched.Bowl", f"--trainer.logger={logger}"]

    whole = whole_configuration([*words, *within_folder(tmp_path, words, whole_configuration(words))])

    assert whole["trainer"]["logger"]["init_args"]["save_dir"] == str(tmp_path / "logs")


def test_values_that_a_logger_with_a_folder_is_not_parsed_with_are_left_to_the_trial_to_tell_of(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.syspath_prepend(Path(__file__).parent)
    logger = "{class_path: fulmen.loggers.CSVLogger, init_args: {save_dir: logs}}"
    words = ["--model=searched.Bowl", f"--trainer.logger={logger}"]
    whole = whole_configuration(words)

    more = within_folder(tmp_path, [*words, "--model.x=wide"], whole)

    assert more == [f"--trainer.default_root_dir={tmp_path}", "--ckpt_path=auto"]
    assert capsys.readouterr().err == ""


def test_the_checkpoint_that_all_trials_start_from_is_given_up_only_where_one_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = {"trainer": {}, "ckpt_path": "start.ckpt"}

    assert within_folder(tmp_path, [], whole) == [f"--trainer.default_root_dir={tmp_path}"]
    (tmp_path / "epoch=0.ckpt").touch()
    assert within_folder(tmp_path, [], whole)[-1] == "--ckpt_path=auto"


def test_a_storage_is_shown_without_its_password() -> None:
    assert studies.without_password("postgresql://me:secret@host/db") == "postgresql://me:***@host/db"
