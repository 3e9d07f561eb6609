"""The command ``fulmen``. It imports a subcommand's code only when that subcommand runs, so that help is instant."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence

from fulmen import __version__
from fulmen.checkpoints.command import add_checkpoint_parser


def demo_command(arguments: argparse.Namespace) -> None:
    from fulmen.demos.demo import run_demo

    run_demo(max_epochs=arguments.epochs, directory=arguments.dir, seed=arguments.seed)


def make_parser() -> argparse.ArgumentParser:
    """The parser of the whole command; each subcommand stores the function that runs it as ``run``."""
    parser = argparse.ArgumentParser(prog="fulmen", description="Fulmen, a PyTorch training framework.")
    parser.add_argument("--version", action="version", version=f"fulmen {__version__}")
    commands = parser.add_subparsers(title="commands", metavar="<command>")

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

    add_checkpoint_parser(commands)
    return parser


def positive_int(text: str) -> int:
    """``text`` as an integer of at least 1, or argparse's error."""
    value = int(text)
    if value < 1:
        raise argparse.ArgumentTypeError(f"{value} is less than 1")
    return value


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line ``argv`` (default: the process's own) and return the exit code."""
    parser = make_parser()
    arguments = parser.parse_args(argv)
    if not hasattr(arguments, "run"):
        parser.print_help()
        return 0
    return arguments.run(arguments) or 0


if __name__ == "__main__":
    sys.exit(main())
