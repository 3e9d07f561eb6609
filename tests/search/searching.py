"""Searches of the tests: the command as a user runs it, and what it leaves."""

from __future__ import annotations

import csv
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import optuna

from fulmen.search.study import open_storage

HERE = Path(__file__).parent
SPACE = "{uniform: [0, 6]}"


def arguments(*more: str, x: str = SPACE, epochs: int = 2) -> list[str]:
    """Of a search for the ``x`` of a Bowl."""
    return [
        "--model=searched.Bowl",
        f"--model.x={x}",
        f"--trainer.max_epochs={epochs}",
        "--trainer.logger=false",
        "--trainer.accelerator=cpu",
        "--trainer.enable_progress_bar=false",
        "--trainer.enable_model_summary=false",
        "--monitor=score",
        *more,
    ]


def environment() -> dict[str, str]:
    return {**os.environ, "PYTHONPATH": os.pathsep.join([str(HERE), os.environ.get("PYTHONPATH", "")])}


def begin(folder: Path, *words: str) -> subprocess.Popen[str]:
    """``fulmen search WORDS`` in ``folder``, which goes on beside the test."""
    return subprocess.Popen(
        [sys.executable, "-m", "fulmen", "search", *words],
        cwd=folder,
        env=environment(),
        text=True,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
    )


def search(folder: Path, *words: str, timeout: float = 240) -> tuple[int, str]:
    """The exit code of ``fulmen search WORDS`` in ``folder``, and what it prints."""
    process = begin(folder, *words)
    output, _ = process.communicate(timeout=timeout)
    return process.returncode, output


def trials(folder: Path, name: str = "search") -> list[optuna.trial.FrozenTrial]:
    """Of the study in ``folder``."""
    url = f"sqlite:///{folder / name / 'study.db'}"
    return optuna.load_study(study_name=name, storage=url).trials


def states(folder: Path) -> list[str]:
    return [trial.state.name for trial in trials(folder)]


def table(folder: Path) -> list[dict[str, str]]:
    with (folder / "search" / "results.csv").open() as file:
        return list(csv.DictReader(file))


def epochs_begun(folder: Path, number: int = 0) -> list[str]:
    """The epochs that a trial has begun, over all of its processes."""
    return (folder / "search" / f"trial_{number}" / "epochs.txt").read_text().split()


def until(true: Callable[[], bool], seconds: float = 120) -> None:
    deadline = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < deadline, "it did not come in time"
        time.sleep(0.05)


def processes_of(folder: Path) -> list[int]:
    """The processes that run trials of a search in ``folder``."""
    import psutil

    found = []
    for process in psutil.process_iter():
        try:
            words = process.cmdline()
        except psutil.Error:
            continue
        if "fulmen.search.trial" in words and any(word.startswith(str(folder)) for word in words):
            found.append(process.pid)
    return found


def kill(process: int) -> None:
    os.kill(process, signal.SIGKILL)


def report_often(file: str, begin: Any) -> None:
    """Of one of several processes that share a study: report to trials of its own, and end them."""
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    storage = open_storage(f"sqlite:///{file}")
    begin.wait()
    kept = optuna.load_study(study_name="shared", storage=storage)
    for _ in range(3):
        trial = kept.ask()
        trial.suggest_float("lr", 0, 1)
        for step in range(5):
            trial.report(step, step)
            trial.should_prune()
        kept.tell(trial, 1.0)
