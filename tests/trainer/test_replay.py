"""A step of a run that is over is repeated bit for bit, and nothing of the run is touched."""

from __future__ import annotations

import contextlib
import json
import os
import runpy
import shutil
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch
from fingerprint import fingerprint

from fulmen.callbacks.nonfinite import Record
from fulmen.replay import Replay, replay_run
from fulmen.utilities.exceptions import MisconfigurationException, NonFiniteException

PROGRAM = Path(__file__).parent / "replayed_program.py"
BAD = 21

pytestmark = [
    pytest.mark.filterwarnings("ignore:Step .* is not finite"),
    pytest.mark.filterwarnings("ignore:going on from"),
    pytest.mark.filterwarnings("ignore:.*is not empty"),
]

Run = Callable[..., Path]


@pytest.fixture(autouse=True)
def global_state() -> Iterator[None]:
    """The program seeds, and says so in the environment."""
    seed = os.environ.pop("PL_GLOBAL_SEED", None)
    generator = torch.get_rng_state()
    yield
    os.environ.pop("PL_GLOBAL_SEED", None)
    if seed is not None:
        os.environ["PL_GLOBAL_SEED"] = seed
    torch.set_rng_state(generator)


def start(directory: Path, *arguments: str) -> Path:
    """Runs the program as ``python replayed_program.py`` does; returns the run's directory."""
    argv, sys.argv = sys.argv, [str(PROGRAM), str(directory), *arguments]
    try:
        with contextlib.suppress(NonFiniteException):
            runpy.run_path(str(PROGRAM), run_name="__main__")
    finally:
        sys.argv = argv
        os.environ.pop("PL_GLOBAL_SEED", None)
    return directory


@pytest.fixture(scope="module")
def made() -> dict[tuple[str, ...], Path]:
    """The runs so far, by their arguments."""
    return {}


@pytest.fixture
def run(tmp_path_factory: pytest.TempPathFactory, tmp_path: Path, made: dict[tuple[str, ...], Path]) -> Run:
    """Gives a copy of the directory of a run with these arguments, for the test alone."""

    def copy_of(*arguments: str) -> Path:
        if arguments not in made:
            made[arguments] = start(tmp_path_factory.mktemp("original") / "run", *arguments)
        return Path(shutil.copytree(made[arguments], tmp_path / "run", symlinks=True))

    return copy_of


def findings(directory: Path) -> list[Any]:
    record = Record.read(str(directory))
    assert record is not None
    return record.findings


# -- the same bits ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "arguments",
    [
        ["forward"],
        ["backward"],
        ["backward", "--accumulate", "3", "--every", "1"],
        ["backward", "--action", "skip"],
        ["forward", "--action", "rollback"],
        ["manual"],
    ],
    ids=" ".join,
)
def test_replayed_step_has_the_loss_and_the_gradients_of_the_run(run: Run, arguments: list[str]) -> None:
    directory = run(*arguments)
    recorded = findings(directory)[-1]
    replay = replay_run(str(directory))
    assert replay.finding is not None
    assert replay.finding.step == recorded.step
    assert replay.finding.digest == recorded.digest
    assert replay.start is not None
    assert "equal bit for bit" in replay.report


def test_any_step_can_be_replayed_with_the_loss_that_was_logged(run: Run) -> None:
    directory = run()
    logged = (directory / "metrics.csv").read_text().splitlines()
    column = logged[0].split(",").index("loss")
    losses = [float(row.split(",")[column]) for row in logged[1:] if row.split(",")[column]]
    for step in (3, 11, 24):
        replay = replay_run(str(directory), step)
        assert replay.finding is not None
        assert replay.finding.loss == pytest.approx(losses[step - 1], abs=0, rel=1e-12)


def test_replay_compares_what_it_comes_to_with_the_next_checkpoint(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    directory = run()
    assert replay_run(str(directory), 10, check=True).matches is True
    monkeypatch.setenv("RATE", "0.03")
    other = replay_run(str(directory), 3, check=True)  # from the beginning, with another learning rate
    assert other.matches is False
    assert "differ from those of step 4" in other.report


# -- the run's files --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "arguments", [["backward"], ["forward", "--action", "skip"], ["nothing", "--keep", "1", "--link"]], ids=" ".join
)
def test_replay_touches_no_file_of_the_run(arguments: list[str], tmp_path: Path) -> None:
    directory = start(tmp_path / "run", *arguments)
    before = fingerprint(directory.parent)
    replay_run(str(directory), 12 if arguments[:1] == ["backward"] else 16)
    assert fingerprint(directory.parent) == before


def test_replay_that_comes_to_the_end_of_the_program_touches_no_file_either(tmp_path: Path) -> None:
    directory = start(tmp_path / "run")
    index = directory / "checkpoints" / "checkpoints.json"
    content = json.loads(index.read_text())
    content["finished"] = False  # as if it had been killed before its last moment
    index.write_text(json.dumps(content))
    before = fingerprint(directory.parent)
    assert "was not reached" in refusal(str(directory), 25)
    assert fingerprint(directory.parent) == before


def test_step_that_was_skipped_on_the_way_is_skipped_again_and_no_news(run: Run) -> None:
    directory = run("backward", "--action", "skip", "--every", "100")
    assert len(findings(directory)) == 2
    with pytest.warns(UserWarning, match="The step is left out") as told:
        replay = replay_run(str(directory))
    assert replay.finding is not None
    assert replay.finding.digest == findings(directory)[-1].digest
    assert not any("fulmen replay" in str(warning.message) for warning in told)


def test_trainer_is_as_before_after_a_replay(run: Run) -> None:
    directory = run()
    program = runpy.run_path(str(PROGRAM))
    trainer = program["make_trainer"](program["parse"]([str(directory)]))

    def state() -> list[Any]:
        parts = [trainer.default_root_dir, trainer.profiler, trainer.strategy.checkpoint_io]
        parts += [trainer.callbacks[:], trainer.loggers[:], *(sorted(vars(one)) for one in trainer.callbacks[-2:])]
        return parts

    before = state()
    with Replay(directory, 14):
        program["fit"](trainer, program["Model"]("nothing"))
    assert state() == before


# -- where it begins --------------------------------------------------------------------------------------------------


def test_replay_begins_with_the_nearest_checkpoint_before_the_step(run: Run) -> None:
    directory = run()
    for step, start in ((5, 4), (8, 4), (9, 8)):
        replay = Replay(directory, step)
        assert replay.start is not None
        assert replay.start.step == start


@pytest.mark.parametrize("name", ["checkpoints", "checkpoints/epoch=0-step=8.ckpt"])
def test_run_may_be_named_by_its_checkpoints(run: Run, name: str) -> None:
    directory = run("backward")
    replay = replay_run(str(directory / name))
    assert replay.finding is not None
    assert replay.finding.digest == findings(directory)[-1].digest
    assert replay.start is not None
    assert replay.start.step == (8 if name.endswith("ckpt") else replay.step - 1 - (replay.step - 1) % 4)


def test_replay_without_a_list_of_checkpoints_looks_into_the_files(run: Run) -> None:
    directory = run("backward")
    (directory / "checkpoints" / "checkpoints.json").unlink()
    (directory / "checkpoints" / "other.ckpt").write_text("no checkpoint")
    replay = replay_run(str(directory))
    assert replay.start is not None
    assert "equal bit for bit" in replay.report


def test_checkpoint_of_an_exception_is_no_place_to_begin(run: Run) -> None:
    directory = run("backward")
    step = findings(directory)[-1].step
    saved = torch.load(directory / "checkpoints" / "on_exception.ckpt", weights_only=True)
    assert saved["global_step"] == step - 1  # it is the nearest, and made in the middle of the step
    replay = Replay(directory)
    assert replay.start is not None
    assert replay.start.path.name != "on_exception.ckpt"


def test_checkpoint_in_the_middle_of_the_window_is_no_place_to_begin(run: Run) -> None:
    directory = run("--accumulate", "4", "--every", "1")
    path = directory / "checkpoints" / "epoch=1-step=3.ckpt"
    content = torch.load(path, weights_only=True)
    content["resume"]["window"] = {}
    torch.save(content, path)
    replay = Replay(directory, 4)
    assert replay.start is not None
    assert replay.start.step == 2


def test_checkpoint_of_weights_alone_is_no_place_to_begin(run: Run) -> None:
    directory = run()
    path = directory / "checkpoints" / "epoch=0-step=8.ckpt"
    content = torch.load(path, weights_only=True)
    torch.save({name: content[name] for name in content if name != "optimizer_states"}, path)
    replay = Replay(directory, 9)
    assert replay.start is not None
    assert replay.start.step == 4


def test_checkpoint_that_is_damaged_is_passed_over(run: Run) -> None:
    directory = run()
    path = directory / "checkpoints" / "epoch=0-step=8.ckpt"
    path.write_bytes(path.read_bytes()[:1000])
    with pytest.warns(UserWarning, match="epoch=0-step=8.ckpt cannot be read"):
        replay = Replay(directory, 9)
    assert replay.start is not None
    assert replay.start.step == 4


def test_replay_without_a_checkpoint_begins_at_the_beginning(run: Run, capsys: pytest.CaptureFixture[str]) -> None:
    directory = run("backward", "--every", "100")
    replay = replay_run(str(directory))
    assert replay.start is None
    assert "equal bit for bit" in replay.report
    assert "from the beginning" in capsys.readouterr().err


def test_replay_from_the_beginning_without_a_seed_says_that_it_is_another_run(
    run: Run, capsys: pytest.CaptureFixture[str]
) -> None:
    replay_run(str(run("--no-seed", "--every", "100")), 3)
    assert "does not call `seed_everything`" in capsys.readouterr().err


def test_replay_trains_no_more_than_it_must(run: Run) -> None:
    directory = run()
    program = runpy.run_path(str(PROGRAM))
    trainer = program["make_trainer"](program["parse"]([str(directory)]))
    model = program["Model"]("nothing")
    seen: list[int] = []
    step = model.training_step
    model.training_step = lambda batch, batch_idx: [seen.append(model.global_step), step(batch, batch_idx)][1]
    with Replay(directory, 15):
        program["fit"](trainer, model)
    assert seen == [12, 13, 14]


# -- what it tells ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("fault", "operation", "line"),
    [
        ("forward", "torch.log in ", "the mistake in the forward"),
        ("backward", "SqrtBackward in the derivative of ", "the mistake in the backward"),
    ],
)
def test_report_names_operation_line_and_sample(run: Run, fault: str, operation: str, line: str) -> None:
    report = replay_run(str(run(fault))).report
    told = next(row for row in report.splitlines() if row.startswith("  operation"))
    assert operation in told
    assert line in told
    assert f"sample {BAD} of the batch" in report


def test_report_of_a_window_is_about_its_bad_batch(run: Run) -> None:
    directory = run("forward", "--accumulate", "4")
    [bad] = [batch for batch in findings(directory)[0].batches if BAD in batch.indices]
    replay = replay_run(str(directory))
    assert replay.finding is not None
    assert replay.finding.batch == bad.batch
    assert f"sample {BAD} of the batch" in replay.report


def test_debugger_stops_before_the_training_step(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    directory = run("backward")
    recorded = findings(directory)[-1]
    seen: list[dict[str, Any]] = []
    debugger = ModuleType("a_debugger")
    debugger.set_trace = lambda: seen.append(  # type: ignore[attr-defined]
        {**sys._getframe(1).f_locals, "step": sys._getframe(1).f_locals["trainer"].global_step}
    )
    monkeypatch.setitem(sys.modules, "a_debugger", debugger)
    replay_run(str(directory), debugger="a_debugger")
    [there] = seen
    assert there["step"] == recorded.step - 1
    assert there["batch"][0].tolist() == recorded.indices
    assert there["batch_idx"] == recorded.batch
    assert there["module"] is there["trainer"].lightning_module


def test_debugger_of_breakpoint_is_the_one_in_the_environment(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    directory = run()
    stops: list[str] = []
    monkeypatch.setattr(sys, "breakpointhook", lambda: stops.append("here"))
    replay_run(str(directory), 6, debugger="breakpoint")
    assert stops == ["here"]


# -- what cannot be done ----------------------------------------------------------------------------------------------


def refusal(*arguments: Any, **options: Any) -> str:
    with pytest.raises((MisconfigurationException, FileNotFoundError, ValueError)) as caught:
        replay_run(*arguments, **options)
    return str(caught.value)


def test_run_that_is_not_there_is_refused(tmp_path: Path) -> None:
    assert "there is nothing at" in refusal(str(tmp_path / "gone"), 3)
    assert "is no directory of a run" in refusal(str(tmp_path), 3)


def test_step_is_asked_for_where_none_is_recorded(run: Run) -> None:
    assert "--step N" in refusal(str(run()))


def test_step_behind_one_that_stopped_the_run_is_refused(run: Run) -> None:
    assert "step 14 was not reached: before it the run ends. Step 12 (epoch 1)" in refusal(str(run("backward")), 14)


def test_step_that_the_run_never_made_is_refused(run: Run) -> None:
    assert "step 25 was not reached: `fit` ended after 24 steps" in refusal(str(run()), 25)


def test_checkpoint_that_has_the_step_behind_it_is_refused(run: Run) -> None:
    path = run() / "checkpoints" / "epoch=1-step=12.ckpt"
    assert "cannot be reached from" in refusal(str(path), 12)


@pytest.mark.parametrize("gone", ["program", "directory", "command"])
def test_program_that_is_gone_is_replaced_by_a_few_lines(run: Run, gone: str, tmp_path: Path) -> None:
    directory = run("backward")
    record = Record.read(str(directory))
    assert record is not None
    changes: dict[str, Any] = {
        "program": {"argv": ["-c"]},
        "directory": {"directory": str(tmp_path / "gone")},
        "command": {"argv": []},
    }
    record.command.update(changes[gone])
    record.write(str(directory))
    text = refusal(str(directory))
    assert "cannot be started again" in text
    assert f"with Replay({str(directory)!r}, step={record.findings[-1].step}):" in text


def test_program_that_was_run_as_a_module_is_run_as_one(run: Run, tmp_path: Path) -> None:
    directory = run("backward")
    project = tmp_path / "project"
    (project / "inner").mkdir(parents=True)
    (project / "inner" / "trains.py").write_text(PROGRAM.read_text())
    record = Record.read(str(directory))
    assert record is not None
    record.command.update(directory=str(project), module="inner.trains")
    record.write(str(directory))
    before = list(sys.path), list(sys.argv), os.getcwd()
    assert "equal bit for bit" in replay_run(str(directory)).report
    assert (sys.path, sys.argv, os.getcwd()) == before


def test_program_without_a_fit_is_told(run: Run, tmp_path: Path) -> None:
    directory = run()
    program = tmp_path / "other.py"
    program.write_text("print('no fit')")
    index = directory / "checkpoints" / "checkpoints.json"
    content = json.loads(index.read_text())
    content["command"]["argv"] = [str(program)]
    index.write_text(json.dumps(content))
    (directory / "nonfinite.json").unlink(missing_ok=True)
    assert "no `fit` was called" in refusal(str(directory), 3)


def test_debugger_that_is_none_is_refused(run: Run) -> None:
    assert "debugger='json' cannot be used" in refusal(str(run()), 3, debugger="json")


def test_second_fit_of_a_program_is_chosen_by_number(run: Run) -> None:
    directory = run("--fits", "2")
    assert replay_run(str(directory), 3, fit=2).finding is not None
    assert "called `fit` 2 times, and fit=3" in refusal(str(directory), 3, fit=3)
