"""What lets a shell complete ``fulmen``: all commands with their options, as a script of shtab."""

from __future__ import annotations

import argparse
from typing import Any, Literal, get_args, get_origin

import shtab

from fulmen.cli.mistakes import class_in, names_of


def script(shell: str) -> str:
    """The script for ``"bash"``, ``"zsh"`` or ``"tcsh"``."""
    from fulmen.__main__ import make_parser

    parser = make_parser()
    commands = next(action for action in parser._actions if isinstance(action, argparse._SubParsersAction))
    for name, filled in _parsers_of_runs().items():
        _copy_options(filled, commands.choices[name])
    _complete_files(parser)
    return shtab.complete(parser, shell)


def _parsers_of_runs() -> dict[str, Any]:
    from fulmen.cli.cli import LightningCLI

    class Unfinished(Exception):
        pass

    class Parsers(LightningCLI):
        def parse_arguments(self, parser: Any, args: Any) -> None:
            raise Unfinished(self._subcommand_parsers)

    try:
        Parsers(args={})  # with arguments only the subcommand among them would be filled
    except Unfinished as made:
        return made.args[0]
    raise AssertionError("the parsers were not made")


def _copy_options(source: Any, target: argparse.ArgumentParser) -> None:
    """Give ``target`` the options of a jsonargparse parser, with the values that are known for each."""
    for action in source._actions:
        hint = getattr(action, "_typehint", None)
        options = [option for option in action.option_strings if option not in target._option_string_actions]
        if not options or action.help == argparse.SUPPRESS:
            continue
        if action.nargs == 0:
            target.add_argument(*options, action="store_true")
            continue
        added = target.add_argument(*options, choices=None, metavar="VALUE")
        values = _values(hint)
        if values:
            added.choices = values  # type: ignore[assignment]
        elif action.dest in ("config", "ckpt_path", "trainer"):
            added.complete = shtab.FILE  # type: ignore[attr-defined]


def _values(hint: Any) -> list[str]:
    """What can be written for an annotation: true and false, the members of a Literal, the names of classes."""
    values: list[str] = []
    for part in (hint, *get_args(hint)):
        if part is bool:
            values += ["true", "false"]
        elif get_origin(part) is Literal:
            values += [str(member) for member in get_args(part)]
    return values + [name for name in names_of(hint) if class_in(hint)]


def _complete_files(parser: argparse.ArgumentParser) -> None:
    """Let what is a file by its name in our own commands be completed as one."""
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            for below in action.choices.values():
                _complete_files(below)
        elif not action.option_strings and action.choices is None:
            action.complete = shtab.FILE  # type: ignore[attr-defined]
