"""What is printed of the model when ``fit`` begins."""

from __future__ import annotations

import pytest
import torch

from fulmen.callbacks.model_summary import ModelSummary
from fulmen.callbacks.progress.progress_bar import ProgressBar
from fulmen.callbacks.rich_model_summary import RichModelSummary

from .screen import Model, Screen, batches, trainer_with, without_greeting


class Net(Model):
    def __init__(self, example: bool = False) -> None:
        super().__init__()
        self.body = torch.nn.Sequential(torch.nn.Linear(2, 40), torch.nn.ReLU(), torch.nn.Linear(40, 30))
        self.body.requires_grad_(False)
        self.scale = torch.nn.Parameter(torch.ones(5))
        if example:
            self.example_input_array = torch.zeros(7, 2)

    def forward(self, x):
        return self.body(x)


def printed(capsys) -> str:
    """What was printed, but for the trainer's greeting."""
    return without_greeting(capsys.readouterr().out)


def fit_with(summary, model) -> None:
    trainer_with(summary, ProgressBar(), enable_model_summary=None).fit(model, batches(1))


def test_model_summary_prints_layers_and_totals(capsys):
    fit_with(ModelSummary(), Net())

    assert printed(capsys).splitlines() == [
        "   Name          Type        Params  Mode",
        "------------------------------------------",
        "0  layer         Linear         3    train",
        "1  body          Sequential   1.4 K  train",
        "   other params  n/a            5    n/a",
        "------------------------------------------",
        "Parameters: 1.4 K (8 trainable, 1.4 K fixed), 0.005 MB",
        "Modules: 5 in train mode, 0 in eval mode",
    ]


def test_model_summary_with_an_example_shows_sizes_and_operations(capsys):
    fit_with(ModelSummary(), Net(example=True))

    lines = printed(capsys).splitlines()
    assert lines[0].split() == ["Name", "Type", "Params", "Mode", "FLOPs", "In", "sizes", "Out", "sizes"]
    assert lines[3].split() == ["1", "body", "Sequential", "1.4", "K", "train", "17.9", "K", "[7,2]", "[7,30]"]
    assert lines[-1] == "FLOPs: 17.9 K in a forward of the example input"


def test_model_summary_with_depth_2_lists_the_layers_within(capsys):
    fit_with(ModelSummary(max_depth=2), Net())

    assert "body.2" in printed(capsys)


def test_model_summary_with_depth_0_prints_nothing(capsys):
    fit_with(ModelSummary(max_depth=0), Net())

    assert printed(capsys) == ""


@pytest.mark.parametrize("depth", [-2, 1.5, "all"])
def test_model_summary_with_another_depth_raises(depth):
    with pytest.raises(ValueError, match=r"write -1 for all levels, 0 for no table"):
        ModelSummary(max_depth=depth)


def test_model_summary_is_printed_as_a_subclass_likes(capsys):
    class Short(ModelSummary):
        @staticmethod
        def summarize(summary_data, total_parameters, *totals, sign):
            print(dict(summary_data)["Name"], total_parameters, sign)

    fit_with(Short(sign="!"), Net())

    assert printed(capsys) == "['layer', 'body', 'other params'] 1358 !\n"


@pytest.mark.parametrize("example", [False, True])
def test_rich_model_summary_fits_a_terminal_of_80_columns(monkeypatch, example):
    monkeypatch.setenv("COLUMNS", "80")
    monkeypatch.setenv("TERM", "xterm")
    with Screen(columns=80) as screen:
        fit_with(RichModelSummary(max_depth=2), Net(example))

    assert screen.lines[0].split()[:3] == ["Name", "Type", "Params"]
    assert {line.split()[1] for line in screen.lines[2:7]} == {"layer", "body", "body.0", "body.1", "body.2"}
    assert all(line.split()[0] in "01234otherParameters:Modules:FLOPs:" for line in screen.lines[2:])  # nothing wrapped
    assert screen.lines[-2 - example].startswith("Parameters: 1.4 K ")


def test_rich_model_summary_shows_the_brackets_of_sizes(monkeypatch):
    monkeypatch.setenv("COLUMNS", "100")
    monkeypatch.setenv("TERM", "xterm")
    with Screen() as screen:
        fit_with(RichModelSummary(), Net(example=True))

    assert "[7, 2]" in screen.text


def test_rich_model_summary_takes_arguments_for_the_table(monkeypatch):
    monkeypatch.setenv("COLUMNS", "100")
    monkeypatch.setenv("TERM", "xterm")
    with Screen() as screen:
        fit_with(RichModelSummary(title="the net"), Net())

    assert screen.lines[0].strip() == "the net"


def test_rich_model_summary_in_a_pipe_is_the_plain_one(capsys):
    fit_with(RichModelSummary(), Net())
    rich = printed(capsys)
    fit_with(ModelSummary(), Net())

    assert rich == printed(capsys)
