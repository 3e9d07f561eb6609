"""The training script and its undisturbed runs, for all tests of this folder."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator

import pytest
from tests.crash.harness import ROOT, SCRIPT, Subject, subject_of


@pytest.fixture(scope="session")
def subject() -> Iterator[Subject]:
    """The script that writes its checkpoints where it stands."""
    with subject_of(SCRIPT, ["--root", ROOT]) as subject:
        yield subject


@pytest.fixture(scope="session")
def background(subject: Subject) -> Subject:
    """The script that writes its checkpoints in the background."""
    return _another(subject, "background", "--background")


@pytest.fixture(scope="session")
def workers(subject: Subject) -> Subject:
    """The script with two processes that load its data."""
    return _another(subject, "workers", "--workers", "2")


def _another(subject: Subject, name: str, *arguments: str) -> Subject:
    other = dataclasses.replace(subject, folder=subject.folder / name, arguments=[*subject.arguments, *arguments])
    other.make_reference()
    return other
