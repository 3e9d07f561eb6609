"""Bad input gets a clear message and loses nothing: every row of the table of misuses."""

from __future__ import annotations

import copy
import importlib.util
import warnings
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
import torch
from misuses import MISUSES, Misuse, Outcome, Scene, Sound, loader, outcome

from fulmen import callbacks
from fulmen.utilities.exceptions import MisconfigurationException, NonFiniteException

REPOSITORY = Path(__file__).resolve().parents[2]
MOST_CHARACTERS = 480  # four lines of a terminal
#: what may come as a more special class of the same error (``FileNotFoundError`` for ``OSError``)
FAMILIES = (OSError, Exception)


@pytest.fixture(params=list(MISUSES.values()), ids=list(MISUSES))
def row(request: pytest.FixtureRequest) -> Misuse:
    return request.param


@pytest.fixture
def scene(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Scene:
    elsewhere = tmp_path / "working"
    elsewhere.mkdir()
    monkeypatch.chdir(elsewhere)
    folder = tmp_path / "folder"
    folder.mkdir()
    return Scene(folder)


def is_expected(row: Misuse, came: Outcome) -> bool:
    return came.kind is row.raises or (
        row.raises in FAMILIES and came.kind is not None and issubclass(came.kind, row.raises)
    )


def assert_can_run(trainer: Any, module: Any) -> None:
    """The trainer trains the module."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of what the misuse was about
        trainer.fit(module, loader(), loader())
    assert trainer.state.finished


def test_misuse_is_told_clearly_and_loses_nothing(row: Misuse, scene: Scene) -> None:
    came = outcome(row, scene)

    # the message
    assert is_expected(row, came), f"{came.kind} came: {came.text}"
    for phrase in row.says:
        assert phrase in came.text
    assert len(came.text) <= MOST_CHARACTERS, f"{len(came.text)} characters: {came.text}"
    assert " object at 0x" not in came.text

    # nothing is lost
    assert not scene.lost_files()
    for module in scene.modules:
        assert module._trainer is None or not module._trainer.has_begun
        copied = copy.deepcopy(module)
        assert copied.state_dict().keys() == module.state_dict().keys()
        assert all(parameter.isfinite().all() for parameter in module.parameters())
        if row.raises is not NonFiniteException:  # whose gradients are there to be looked at
            assert all(parameter.grad is None or parameter.grad.isfinite().all() for parameter in module.parameters())

    # and the next run is all right
    for trainer in [] if row.spoils_trainer else scene.trainers[-1:]:
        trainer.max_epochs = 1
        assert_can_run(trainer, Sound())
    for datamodule in scene.datamodules[:1]:
        assert next(iter(datamodule.train_dataloader())).shape == (2, 2)
    assert_can_run(scene.trainer(), Sound())


def test_names_of_misuses_are_readable() -> None:
    assert len(MISUSES) > 300
    assert not [name for name in MISUSES if len(name) > 80 or "<" in name or "\n" in name]


def test_every_callback_that_says_what_it_raises_is_in_the_table() -> None:
    names = [name for name in callbacks.__all__ if "Raises:" in (getattr(callbacks, name).__doc__ or "")]
    rows = " ".join([*MISUSES, *(phrase for row in MISUSES.values() for phrase in row.says)])

    assert [name for name in names if name not in rows] == []


def test_every_row_asks_for_something_that_its_message_must_say() -> None:
    silent = [row.name for row in MISUSES.values() if not row.says]
    assert not silent


def test_misused_module_trains_once_the_mistake_is_mended(scene: Scene) -> None:
    module = scene.module(training_step=lambda self, batch, batch_idx: None)
    trainer = scene.trainer()
    module.training_step = "later"
    with pytest.raises(TypeError):
        trainer.fit(module)
    before = module.layer.weight.clone()

    module.training_step = lambda batch, batch_idx: module.layer(batch).square().mean()
    trainer.fit(module)

    assert trainer.global_step == 4
    assert not module.layer.weight.equal(before)


@pytest.mark.filterwarnings("ignore:.*is not empty", "ignore:.*state of callbacks")
def test_error_in_the_second_epoch_leaves_the_first_ones_checkpoint(scene: Scene) -> None:
    trainer = scene.trainer(max_epochs=2, enable_checkpointing=True)
    module = scene.module()
    with pytest.raises(MisconfigurationException, match="used up"):
        trainer.fit(module, (batch for batch in loader()))

    assert len(sorted(scene.folder.glob("checkpoints/*.ckpt"))) == 2  # one was there before
    best = trainer.checkpoint_callback.best_model_path
    resumed = scene.trainer(max_epochs=2)
    resumed.fit(scene.module(), loader(), ckpt_path=best)
    assert (resumed.current_epoch, resumed.global_step) == (2, 8)


def test_hook_with_the_loaders_number_is_accepted_for_several_loaders(scene: Scene) -> None:
    seen: Counter[int] = Counter()

    def on_validation_batch_end(self: Any, outputs: Any, batch: Any, batch_idx: int, dataloader_idx: int) -> None:
        seen[dataloader_idx] += 1

    module = scene.module(
        validation_step=lambda self, batch, batch_idx, dataloader_idx: None,
        on_validation_batch_end=on_validation_batch_end,
    )
    scene.trainer().validate(module, [loader(3), loader(2)], verbose=False)

    assert seen == {0: 3, 1: 2}


@pytest.mark.skipif(torch.accelerator.is_available(), reason="the page is made where there is only a CPU")
def test_list_of_messages_in_the_documentation_is_up_to_date() -> None:
    place = REPOSITORY / "docs" / "generate_errors.py"
    spec = importlib.util.spec_from_file_location("generate_errors", place)
    assert spec is not None
    assert spec.loader is not None
    script = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(script)

    assert (REPOSITORY / "docs" / "errors.md").read_text(encoding="utf-8") == script.page(), (
        "run docs/generate_errors.py"
    )
