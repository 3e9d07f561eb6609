"""The command ``fulmen``. It imports a subcommand's code only when that subcommand runs, so that help is instant."""

from __future__ import annotations

import argparse
import re
import sys
from collections.abc import Sequence
from difflib import get_close_matches
from typing import Any, NoReturn

from fulmen import __version__
from fulmen.checkpoints.command import add_checkpoint_parser
from fulmen.cli.command import add_completion_parser, add_run_parsers, asks_for_a_run
from fulmen.cli.command import run as run_module
from fulmen.fabric.command import add_program_parser
from fulmen.search.command import add_search_parser


class Parser(argparse.ArgumentParser):
    """Answers a mistake with the nearest name that there is, and with the usage of the command that it was made in."""

    #: under this name a command takes what it does not know, which is for another parser
    rest: str | None = None

    def parse_known_args(self, args: Any = None, namespace: Any = None) -> Any:  # type: ignore[override]
        parsed, unknown = super().parse_known_args(args, namespace)
        if self.rest is not None:
            setattr(parsed, self.rest, unknown)
            return parsed, []
        if unknown:
            self._refuse(unknown)
        return parsed, unknown

    def _refuse(self, unknown: list[str]) -> NoReturn:
        option = next((word.partition("=")[0] for word in unknown if word.startswith("-") and word != "-"), None)
        if option is None:
            self.error(f"too many arguments: {', '.join(map(repr, unknown))}")
        nearest = get_close_matches(option, self._option_string_actions, n=1)
        self.error(f"there is no option {option}. {f'Did you mean {nearest[0]}?' if nearest else 'See --help'}")

    def error(self, message: str) -> NoReturn:
        wrong = re.search(r"<command>: invalid choice: '(.*?)'", message)
        if wrong is None:
            super().error(message)
        within = self._subcommands()
        nearest = get_close_matches(wrong[1], within, n=1)
        chosen = within[nearest[0]] if nearest else self
        advice = (
            f"Did you mean `{chosen.prog}`?" if nearest else f"There are: {', '.join(self._subcommands(deep=False))}"
        )
        chosen.print_usage(sys.stderr)
        self.exit(2, f"{self.prog}: error: there is no command {wrong[1]!r}. {advice}\n")

    def _subcommands(self, deep: bool = True) -> dict[str, Parser]:
        """The parsers of the commands by their names, with ``deep`` also those of the commands within them."""
        here: dict[str, Parser] = {}
        for action in self._actions:
            if isinstance(action, argparse._SubParsersAction):
                here |= action.choices
        below: dict[str, Parser] = {}
        for parser in here.values() if deep else ():
            below |= parser._subcommands()
        return {**below, **here}


def demo_command(arguments: argparse.Namespace) -> None:
    from fulmen.demos.demo import run_demo

    run_demo(max_epochs=arguments.epochs, directory=arguments.dir, seed=arguments.seed)


def replay_command(arguments: argparse.Namespace) -> None:
    from fulmen.replay import replay_run
    from fulmen.utilities.exceptions import MisconfigurationException

    debugger = arguments.debugger or ("breakpoint" if sys.stdin.isatty() else "none")
    anomaly = arguments.anomaly or debugger == "none"
    try:
        done = replay_run(
            arguments.run_directory,
            arguments.step,
            None if debugger == "none" else debugger,
            anomaly,
            arguments.check,
            arguments.fit,
        )
    except (MisconfigurationException, FileNotFoundError, ValueError) as error:
        raise SystemExit(f"fulmen replay: {error}") from error
    if done.matches is False:
        raise SystemExit(1)


def add_replay_parser(commands: Any) -> None:
    """``fulmen replay``."""
    replay = commands.add_parser(
        "replay",
        help="repeat a step of a run that is over, in the debugger or with anomaly detection",
        description="Restore the nearest checkpoint of a run before a step, train up to that step with the program "
        "that made the run, and stop there. No file of the run is written, changed or removed.",
    )
    replay.add_argument(
        "run_directory",
        metavar="RUN",
        help="the directory of the run, such as lightning_logs/version_3, its folder of checkpoints, or a checkpoint",
    )
    replay.add_argument(
        "--step",
        type=positive_int,
        metavar="N",
        help="the step in which global_step goes from N-1 to N (default: the one that a NonFiniteGuard recorded last)",
    )
    replay.add_argument(
        "--debugger",
        metavar="NAME",
        help="stop before the step's training_step in this debugger: pdb, or a module with set_trace; none: do not "
        "stop (default: what breakpoint() opens; none without a terminal)",
    )
    replay.add_argument(
        "--anomaly",
        action="store_true",
        help="find the operation, the line and the samples that made a number that is not finite; always so without a "
        "debugger",
    )
    replay.add_argument(
        "--check",
        action="store_true",
        help="go on to the next checkpoint of the run and compare with it, bit for bit",
    )
    replay.add_argument(
        "--fit", type=positive_int, default=1, metavar="K", help="the run is the program's fit number K (default: 1)"
    )
    replay.set_defaults(run=replay_command)


def make_parser() -> argparse.ArgumentParser:
    """The parser of the whole command; each subcommand stores the function that runs it as ``run``."""
    parser = Parser(prog="fulmen", description="Fulmen, a PyTorch training framework.")
    parser.add_argument("--version", action="version", version=f"fulmen {__version__}")
    commands = parser.add_subparsers(title="commands", metavar="<command>")

    add_run_parsers(commands)
    demo = commands.add_parser(
        "demo",
        help="train a small network on handwritten digits, in well under a minute on a laptop",
        description="Train a small convolutional network on handwritten digits, keep the best checkpoint, test it, and "
        "draw the learning curves. Needs no download and no GPU.",
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    demo.add_argument("--epochs", type=positive_int, default=10, help="passes over the training images")
    demo.add_argument("--dir", default="fulmen_demo", help="the folder that everything is written to")
    demo.add_argument("--seed", type=int, default=0, help="the seed of the weights, the shuffling and the dropout")
    demo.set_defaults(run=demo_command)
    add_program_parser(commands)
    add_replay_parser(commands)
    add_checkpoint_parser(commands)
    add_search_parser(commands)
    add_completion_parser(commands)
    return parser


def positive_int(text: str) -> int:
    """``text`` as an integer of at least 1, or argparse's error."""
    try:
        value = int(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number") from None
    if value < 1:
        raise argparse.ArgumentTypeError(f"{value} is less than 1")
    return value


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line ``argv`` (default: the process's own) and return the exit code."""
    if asks_for_a_run(sys.argv[1:] if argv is None else argv):
        return run_module(argv)
    parser = make_parser()
    arguments = parser.parse_args(argv)
    if not hasattr(arguments, "run"):
        parser.print_help()
        return 0
    return arguments.run(arguments) or 0


if __name__ == "__main__":
    sys.exit(main())
