from __future__ import annotations

import csv
from pathlib import Path

import matplotlib.image
import pytest
import torch

from fulmen.__main__ import main
from fulmen.demos.demo import DemoResult, draw_digit, run_demo
from fulmen.demos.digits import DigitsClassifier


@pytest.fixture(scope="module")
def demo(tmp_path_factory: pytest.TempPathFactory) -> tuple[DemoResult, str]:
    """A demo of two epochs, and what it printed."""
    from contextlib import redirect_stdout
    from io import StringIO

    with redirect_stdout(StringIO()) as printed:
        result = run_demo(max_epochs=2, directory=tmp_path_factory.mktemp("demo"))
    return result, printed.getvalue()


def test_demo_of_two_epochs_already_reads_most_digits(demo: tuple[DemoResult, str]) -> None:
    assert demo[0].test_acc > 0.9


def test_demo_names_every_file_it_leaves(demo: tuple[DemoResult, str]) -> None:
    result, printed = demo
    for path in (result.checkpoint, result.metrics, result.curves):
        assert path.is_file()
        assert str(path) in printed


def test_demo_metrics_have_a_validation_accuracy_for_each_epoch(demo: tuple[DemoResult, str]) -> None:
    with demo[0].metrics.open(newline="") as file:
        accuracies = [row["val_acc"] for row in csv.DictReader(file) if row["val_acc"]]
    assert len(accuracies) == 2


def test_demo_curves_are_a_picture_of_two_panels(demo: tuple[DemoResult, str]) -> None:
    height, width, _ = matplotlib.image.imread(demo[0].curves).shape
    assert (width, height) == (1500, 630)


def test_demo_checkpoint_rebuilds_the_model_with_its_arguments(demo: tuple[DemoResult, str]) -> None:
    model = DigitsClassifier.load_from_checkpoint(demo[0].checkpoint)
    assert dict(model.hparams) == {"channels": 32, "dropout": 0.25, "learning_rate": 3e-3}
    assert model(torch.zeros(3, 1, 8, 8)).shape == (3, 10)


def test_demo_draws_digits(demo: tuple[DemoResult, str]) -> None:
    assert "reads " in demo[1]
    assert {len(line) for line in draw_digit(torch.rand(8, 8))} == {16}


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(5))
def test_demo_reaches_the_promised_accuracy_whatever_the_seed(seed: int, tmp_path: Path) -> None:
    result = run_demo(directory=tmp_path, seed=seed)
    with result.metrics.open(newline="") as file:
        best = max(float(row["val_acc"]) for row in csv.DictReader(file) if row["val_acc"])
    assert best > 0.97
    assert result.test_acc > 0.97


def test_command_without_arguments_shows_its_help(capsys: pytest.CaptureFixture[str]) -> None:
    assert main([]) == 0
    assert "usage: fulmen" in capsys.readouterr().out


def test_command_demo_writes_to_the_folder_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["demo", "--epochs", "1", "--dir", str(tmp_path / "here")]) == 0
    assert (tmp_path / "here" / "version_0" / "curves.png").is_file()


def test_command_demo_of_no_epochs_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["demo", "--epochs", "0"])
    assert "less than 1" in capsys.readouterr().err
