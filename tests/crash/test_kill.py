"""A run that is killed at any instant, again and again, becomes the run that nobody killed."""

from __future__ import annotations

import dataclasses

import pytest
from tests.crash.comparison import torn
from tests.crash.harness import Subject, campaign
from tests.crash.moments import Moment

from fulmen.utilities.durable import is_part


@pytest.fixture(params=["subject", "background"])
def either(request) -> Subject:
    """The script, writing its checkpoints in either way."""
    return request.getfixturevalue(request.param)


def kill(subject: Subject, kills: int, seed: int) -> None:
    assert sum(len(killed) for _, killed in campaign(subject, kills, seed)) >= kills


def test_killed_run_becomes_the_run_that_was_not_killed(subject):
    kill(subject, 5, seed=0)


def test_killed_run_that_writes_in_the_background_becomes_the_run_that_was_not_killed(background):
    kill(background, 5, seed=2)


@pytest.mark.parametrize("seed", [1000, 2000, 3000])
@pytest.mark.slow
def test_run_that_is_killed_many_times_becomes_the_run_that_was_not_killed(either, seed):
    kill(either, 16, seed)


@pytest.mark.slow
def test_killed_run_with_workers_becomes_the_run_that_was_not_killed(workers):
    kill(workers, 12, seed=4000)


@pytest.mark.slow
def test_killed_run_that_is_started_as_users_do_becomes_the_run_that_was_not_killed(subject):
    plain = dataclasses.replace(subject, folder=subject.folder / "plain", plain_share=0.7)
    plain.make_reference()
    kill(plain, 6, seed=5000)


@pytest.mark.parametrize("kind", ["write checkpoint", "rename checkpoint", "renamed checkpoint", "rename index"])
def test_process_is_killed_at_the_moment_that_was_chosen(subject, kind):
    subject.clear()

    assert subject.start(Moment("kill", kind, 3)).was_killed

    folder = subject.run_folder / "lightning_logs" / "version_0" / "checkpoints"
    parts = [path for path in folder.iterdir() if is_part(path.name)]
    assert len(parts) == (kind != "renamed checkpoint")
    if kind == "write checkpoint":
        assert 0 < parts[0].stat().st_size < 10_000
    assert torn(subject.run_folder) == []
