"""``fulmen fit`` as a search uses it: reading a configuration, and running one."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import yaml

from fulmen.cli.cli import LightningCLI

if TYPE_CHECKING:
    from fulmen.callbacks.callback import Callback
    from fulmen.trainer.trainer import Trainer


_PROGRAM = {"prog": "fulmen"}  # in messages


class _Fit(LightningCLI):
    """The command line of ``fulmen fit`` alone: the parsers of the other verbs would cost each trial their time."""

    @staticmethod
    def subcommands() -> dict[str, set[str]]:
        return {"fit": LightningCLI.subcommands()["fit"]}


class _Reading(_Fit):
    """Parses and checks the arguments, and makes nothing of them."""

    def instantiate_classes(self) -> None:
        """Nothing is made."""

    def _set_seed(self) -> None:
        """The random numbers of this process are not those of the run."""

    def _run_subcommand(self, subcommand: str) -> None:
        """Nothing is run."""


def whole_configuration(words: Sequence[str]) -> dict[str, Any]:
    """Every argument that ``fulmen fit WORDS`` would run with.

    Raises:
        SystemExit: the arguments are wrong; the message is on stderr.
    """
    reading = _with_arguments(words, lambda: _Reading(parser_kwargs=_PROGRAM))
    return yaml.safe_load(reading._parser("fit").dump(reading.config["fit"], skip_validation=True))


def run_fit(words: Sequence[str], callbacks: list[Callback]) -> Trainer:
    """Run ``fulmen fit WORDS`` with ``callbacks`` beside those of the configuration."""
    cli = _with_arguments(
        words,
        lambda: _Fit(
            trainer_defaults={"callbacks": callbacks}, save_config_kwargs={"overwrite": True}, parser_kwargs=_PROGRAM
        ),
    )
    return cli.trainer


def _with_arguments(words: Sequence[str], make: Any) -> Any:
    before = sys.argv
    sys.argv = ["fulmen", "fit", *words]
    try:
        return make()
    finally:
        sys.argv = before
