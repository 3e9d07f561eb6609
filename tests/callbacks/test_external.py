"""Packages that are installed add callbacks to every Trainer by entry points."""

from __future__ import annotations

import subprocess
import sys
import textwrap
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import fulmen.compat
from fulmen import Callback, Trainer
from fulmen.callbacks import LearningRateFinder, ModelCheckpoint
from fulmen.demos.boring_classes import BoringModel
from fulmen.utilities.exceptions import MisconfigurationException

FACTORY = """
    from fulmen import Callback

    class Greeting(Callback):
        started = 0

        def on_train_start(self, trainer, pl_module):
            type(self).started += 1

    class Other(Callback):
        pass

    def greeting():
        return Greeting()

    def both():
        return [Greeting(), Other()]

    def nothing():
        return []

    def broken():
        raise ZeroDivisionError("no callbacks today")

    def no_callback():
        return "greeting"
"""


class Site:
    """A folder of installed packages."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def add(self, name: str, entry_points: str, text: str = FACTORY) -> None:
        """Install a package: a module, and its metadata as an installer writes it."""
        (self.folder / f"{name}.py").write_text(textwrap.dedent(text))
        metadata = self.folder / f"{name}-1.0.dist-info"
        metadata.mkdir()
        (metadata / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n")
        (metadata / "entry_points.txt").write_text(textwrap.dedent(entry_points))


@pytest.fixture
def site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Site]:
    monkeypatch.syspath_prepend(tmp_path)
    yield Site(tmp_path)
    for name in [name for name in sys.modules if name.startswith("external_")]:
        del sys.modules[name]


def trainer(**arguments: Any) -> Trainer:
    quiet = {"logger": False, "enable_checkpointing": False, "enable_progress_bar": False}
    return Trainer(**{"accelerator": "cpu", "enable_model_summary": False, **quiet, **arguments})


def names(one: Trainer) -> list[str]:
    return [type(callback).__name__ for callback in one.callbacks]


def test_callback_of_an_installed_package_takes_part_in_the_run(site: Site) -> None:
    site.add("external_a", "[fulmen.callbacks_factory]\ngreeting = external_a:greeting\n")
    one = trainer(max_steps=1)
    one.fit(BoringModel())
    assert sys.modules["external_a"].Greeting.started == 1


def test_callbacks_of_packages_come_after_the_others_and_before_checkpoints(site: Site) -> None:
    site.add("external_a", "[fulmen.callbacks_factory]\nboth = external_a:both\n")
    site.add("external_b", "[fulmen.callbacks_factory]\nnothing = external_b:nothing\n")

    class Own(Callback):
        pass

    one = trainer(
        callbacks=[ModelCheckpoint(), Own(), LearningRateFinder()], enable_checkpointing=True, enable_model_summary=True
    )
    assert names(one) == ["LearningRateFinder", "Own", "RichModelSummary", "Greeting", "Other", "ModelCheckpoint"]


def test_each_trainer_gets_callbacks_of_its_own(site: Site) -> None:
    site.add("external_a", "[fulmen.callbacks_factory]\ngreeting = external_a:greeting\n")
    assert trainer().callbacks[0] is not trainer().callbacks[0]


def test_list_of_the_user_stays_as_it_is(site: Site) -> None:
    site.add("external_a", "[fulmen.callbacks_factory]\ngreeting = external_a:greeting\n")
    own: list[Callback] = []
    assert names(trainer(callbacks=own)) == ["Greeting"]
    assert own == []


@pytest.mark.parametrize("group", ["lightning.pytorch.callbacks_factory", "pytorch_lightning.callbacks_factory"])
def test_package_that_was_written_for_lightning_is_asked_where_its_names_give_fulmen(group: str, site: Site) -> None:
    text = FACTORY.replace("from fulmen import", "from lightning.pytorch import")
    site.add("external_l", f"[{group}]\ngreeting = external_l:greeting\n", text)
    assert names(trainer()) == []
    fulmen.compat.install(children=False)
    try:
        assert names(trainer()) == ["Greeting"]
    finally:
        fulmen.compat.uninstall()


def test_package_with_entries_for_lightning_and_fulmen_is_asked_once(site: Site) -> None:
    groups = ("pytorch_lightning", "lightning.pytorch", "fulmen")
    site.add(
        "external_a", "".join(f"[{group}.callbacks_factory]\ngreeting = external_a:greeting\n" for group in groups)
    )
    fulmen.compat.install(children=False)
    try:
        assert names(trainer()) == ["Greeting"]
    finally:
        fulmen.compat.uninstall()


@pytest.mark.parametrize(
    ("value", "reason"),
    [
        ("external_a:broken", "ZeroDivisionError: no callbacks today"),
        ("external_a:missing", "AttributeError: module 'external_a' has no attribute 'missing'"),
        ("external_z:greeting", "ModuleNotFoundError: No module named 'external_z'"),
    ],
)
def test_entry_point_that_fails_is_named_with_its_package(value: str, reason: str, site: Site) -> None:
    site.add("external_a", f"[fulmen.callbacks_factory]\nmonitor = {value}\n")
    with pytest.raises(MisconfigurationException) as caught:
        trainer()
    message = str(caught.value)
    assert message.startswith(
        f"the entry point 'monitor' of the package 'external_a' (fulmen.callbacks_factory = '{value}')"
    )
    assert reason in message
    assert "pip uninstall external_a" in message


def test_entry_point_that_gives_no_callback_is_named(site: Site) -> None:
    site.add("external_a", "[fulmen.callbacks_factory]\nmonitor = external_a:no_callback\n")
    with pytest.raises(MisconfigurationException, match="'monitor' of the package 'external_a' gave 'greeting', which"):
        trainer()


def test_looking_for_entry_points_imports_nothing() -> None:
    code = """
        import sys
        import torch
        from fulmen import Trainer
        from fulmen.callbacks import external
        before = set(sys.modules)
        assert external.external_callbacks() == []
        print(sorted(set(sys.modules) - before))
    """
    done = subprocess.run([sys.executable, "-c", textwrap.dedent(code)], capture_output=True, text=True)
    assert done.stdout.strip() == "[]", done.stderr
