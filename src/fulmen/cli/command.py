"""``fulmen fit``, ``validate``, ``test`` and ``predict``: the command line of a run, without a script of one's own."""

from __future__ import annotations

import argparse
import os
import sys
import sysconfig
import traceback
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from fulmen.utilities.exceptions import MisconfigurationException

#: the subcommands, and what ``fulmen --help`` says of them
RUNS = {
    "fit": "train a module: fulmen fit --model my_module.MyModel --data my_module.MyData",
    "validate": "run the validation set of a module once",
    "test": "run the test set of a module once",
    "predict": "predict with a module",
}
_OWN_CODE = Path(__file__).parents[1]


def add_run_parsers(commands: Any) -> None:
    """Name the subcommands in the help of ``fulmen``; their arguments are parsed by :func:`run`."""
    for name, text in RUNS.items():
        commands.add_parser(name, help=text, add_help=False)


def asks_for_a_run(words: Sequence[str]) -> bool:
    """Whether ``words`` begin with one of the subcommands, or with a configuration that stands before it."""
    if not words or words[0] in RUNS:
        return bool(words)
    return words[0].partition("=")[0] in ("--config", "-c")


def run(argv: Sequence[str] | None = None) -> int:
    """Do what ``argv`` says, and return the exit code. None: the program's own arguments.

    Modules are found as ``python -m`` finds them: in the working directory first. An error that comes from the
    arguments alone is a message; one that the user's code had a part in keeps its traceback.
    """
    folder = os.getcwd()
    if sys.path[:1] not in ([""], [folder]):
        sys.path.insert(0, folder)
    from fulmen.cli.cli import LightningCLI
    from fulmen.cli.mistakes import place

    words = list(sys.argv[1:] if argv is None else argv)

    class Program(LightningCLI):
        """Says what is wrong with the Trainer's arguments as the parser says it of all others."""

        def parse_arguments(self, parser: Any, args: Any) -> None:
            self.config = parser.parse_args(args)

        def instantiate_trainer(self, **kwargs: Any) -> Any:
            try:
                return super().instantiate_trainer(**kwargs)
            except (MisconfigurationException, TypeError, ValueError) as error:
                if not _only_ours(error):
                    raise
                where = place(str(error), self.parser, words)
                self.parser.exit(2, f"fulmen {self.subcommand}: error: {where}{error}\n")

    try:
        Program(args=words, parser_kwargs={"prog": "fulmen"})
    except (MisconfigurationException, FileNotFoundError) as error:
        if not _only_ours(error):
            raise
        subcommand = next(word for word in words if word in RUNS)
        print(f"fulmen {subcommand}: error: {error}", file=sys.stderr)
        if "dataloader" in str(error) and not any(word.startswith("--data") for word in words):
            print("A datamodule is named by `--data my_module.MyData`.", file=sys.stderr)
        return 1
    return 0


def _only_ours(error: BaseException) -> bool:
    """Whether no line of the user's code is in the traceback of ``error``."""
    frames = [Path(frame.filename) for frame in traceback.extract_tb(error.__traceback__)]
    first = next((place for place, file in enumerate(frames) if file.is_relative_to(_OWN_CODE)), 0)
    installed = [Path(folder) for folder in sys.path if folder.endswith("site-packages")]
    libraries = (_OWN_CODE, Path(sysconfig.get_path("stdlib")), *installed)
    return all(any(file.is_relative_to(folder) for folder in libraries) for file in frames[first:])


def add_completion_parser(commands: Any) -> None:
    """``fulmen completion``."""
    completion = commands.add_parser(
        "completion",
        help="print what lets a shell complete this command",
        description="Print a script that lets a shell complete the command fulmen and its options. For bash: "
        "`fulmen completion bash > ~/.local/share/bash-completion/completions/fulmen`. For zsh: "
        "`fulmen completion zsh > FOLDER/_fulmen` with a FOLDER of $fpath.",
    )
    completion.add_argument("shell", choices=("bash", "zsh", "tcsh"))
    completion.set_defaults(run=completion_command)


def completion_command(arguments: argparse.Namespace) -> None:
    """Print the script for a shell."""
    from fulmen.cli.completion import script

    print(script(arguments.shell))
