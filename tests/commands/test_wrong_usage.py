"""What ``fulmen`` says to a command, an option or a value that it does not have."""

from __future__ import annotations

from typing import Any

import pytest

from fulmen.__main__ import main


def refused(capsys: Any, *words: str) -> str:
    """What is written to stderr; the exit code is 2."""
    with pytest.raises(SystemExit) as left:
        main(words)
    assert left.value.code == 2
    told = capsys.readouterr()
    assert told.out == ""
    return told.err


@pytest.mark.parametrize(
    ("words", "wrong", "meant"),
    [
        (("chekpoint",), "chekpoint", "fulmen checkpoint"),
        (("replya", "run"), "replya", "fulmen replay"),
        (("checkpoint", "shw", "x"), "shw", "fulmen checkpoint show"),
        (("checkpoint", "exprot", "x", "y"), "exprot", "fulmen checkpoint export"),
        (("verify", "x"), "verify", "fulmen checkpoint verify"),
    ],
)
def test_unknown_command_names_the_nearest_one_and_shows_its_usage(capsys, words, wrong, meant):
    error = refused(capsys, *words)

    assert error.startswith(f"usage: {meant} [-h]")
    assert error.endswith(f"there is no command {wrong!r}. Did you mean `{meant}`?\n")


def test_command_that_is_like_none_names_them_all(capsys):
    error = refused(capsys, "zzz")

    assert error.startswith("usage: fulmen [-h]")
    assert "fulmen: error: there is no command 'zzz'. There are: fit, validate, test, predict, demo" in error


@pytest.mark.parametrize(
    ("words", "command", "advice"),
    [
        (("checkpoint", "show", "--josn", "x"), "fulmen checkpoint show", "no option --josn. Did you mean --json?"),
        (("checkpoint", "diff", "a", "b", "--tolernce=1"), "fulmen checkpoint diff", "Did you mean --tolerance?"),
        (("checkpoint", "show", "x", "--qqqq"), "fulmen checkpoint show", "no option --qqqq. See --help"),
        (("checkpoint", "show", "x", "y"), "fulmen checkpoint show", "too many arguments: 'y'"),
        (("replay",), "fulmen replay", "required: RUN"),
        (("replay", "run", "--stpe", "3"), "fulmen replay", "Did you mean --step?"),
        (("demo", "--epochs", "x"), "fulmen demo", "'x' is not a whole number"),
        (("demo", "--epochs", "0"), "fulmen demo", "0 is less than 1"),
        (("checkpoint", "diff", "a", "b", "--tolerance", "x"), "fulmen checkpoint diff", "x is not a number"),
        (("--verson",), "fulmen", "Did you mean --version?"),
    ],
)  # fmt: skip
def test_wrong_option_names_the_nearest_one_and_shows_the_usage_of_the_command(capsys, words, command, advice):
    error = refused(capsys, *words)

    assert error.startswith(f"usage: {command} [-h]")
    assert advice in error.splitlines()[-1]
    assert error.splitlines()[-1].startswith(f"{command}: error: ")
