"""``fulmen checkpoint``: its parsers, and what an error looks like.

What a subcommand needs is imported when it runs, so that help is instant.
"""

from __future__ import annotations

import argparse
import os
import sys
import traceback
from collections.abc import Callable
from typing import Any

Run = Callable[[argparse.Namespace], int]


class CannotDo(Exception):
    """A subcommand cannot do what it was asked; ``str(error)`` is the one line that the user sees."""


def add_checkpoint_parser(commands: Any) -> None:
    """Add ``checkpoint`` with its subcommands to the subparsers ``commands``."""
    checkpoint = commands.add_parser(
        "checkpoint",
        help="show, compare, verify, convert and export checkpoint files",
        description="Look into checkpoint files of Fulmen and of Lightning. Nothing that a file names is imported or "
        "called.",
    )
    checkpoint.set_defaults(run=lambda arguments: checkpoint.print_help())
    verbs = checkpoint.add_subparsers(title="commands", metavar="<command>")
    _add_show(verbs)
    _add_diff(verbs)
    _add_verify(verbs)
    _add_convert(verbs)
    _add_export(verbs)
    _add_consolidate(verbs)
    _add_shard(verbs)


def _add(verbs: Any, name: str, run: Run, help: str, description: str) -> argparse.ArgumentParser:
    parser = verbs.add_parser(name, help=help, description=description)
    parser.set_defaults(run=lambda arguments: _guarded(name, run, arguments))
    return parser


def _guarded(name: str, run: Run, arguments: argparse.Namespace) -> int:
    """Run a subcommand; an error is one line, and the exit code 2."""
    try:
        code = run(arguments)
        sys.stdout.flush()
        return code
    except BrokenPipeError:  # of `| head`: nobody reads any more
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except CannotDo as error:
        message = str(error)
    except MemoryError:
        message = "there is not enough memory for this file"
    except OSError as error:
        where = f": {error.filename}" if error.filename else ""
        message = f"{error.strerror or error}{where}"
    except Exception:  # a fault of ours is no 1, which has a meaning
        traceback.print_exc()
        return 2
    print(f"fulmen checkpoint {name}: {' '.join(message.split())}", file=sys.stderr)
    return 2


def _add_show(verbs: Any) -> None:
    def run(arguments: argparse.Namespace) -> int:
        from fulmen.checkpoints.show import show

        return show(arguments.path, tensors=arguments.tensors, checksum=arguments.checksum, as_json=arguments.json)

    parser = _add(
        verbs,
        "show",
        run,
        "what is inside a file, or which checkpoints are in a folder",
        "Show what a checkpoint holds: who wrote it, how far the run was, hyperparameters, weights, optimizers, "
        "schedulers, callbacks, and whether a run can go on from it exactly. Of the directory of a run, or of a folder "
        "of checkpoints, the list of those that are there.",
    )
    parser.add_argument("path", metavar="FILE|FOLDER", help="a checkpoint, a folder of them, or the directory of a run")
    parser.add_argument("--tensors", action="store_true", help="list every weight with its shape, type and size")
    parser.add_argument(
        "--checksum", action="store_true", help="read the whole file for its checksum, if no index beside it has it"
    )
    parser.add_argument("--json", action="store_true", help="write it as JSON")


def _add_diff(verbs: Any) -> None:
    def run(arguments: argparse.Namespace) -> int:
        from fulmen.checkpoints.difference import diff

        return diff(
            arguments.a,
            arguments.b,
            tolerance=arguments.tolerance,
            weights_only=arguments.weights,
            all_of_them=arguments.all,
        )

    parser = _add(
        verbs,
        "diff",
        run,
        "what differs between two files",
        "Compare two checkpoints: counters, hyperparameters, weights, and the state of optimizers, schedulers and "
        "callbacks. Paths that differ only by the folder of the run are equal. The exit code is 0 if they are equal, 1 "
        "if they differ, 2 after an error.",
    )
    parser.add_argument("a", metavar="A", help="a checkpoint")
    parser.add_argument("b", metavar="B", help="another one")
    parser.add_argument(
        "--tolerance",
        type=_tolerance,
        default=0.0,
        metavar="T",
        help="numbers whose difference is not more than this are equal (default: 0)",
    )
    parser.add_argument("--weights", action="store_true", help="compare the weights alone")
    parser.add_argument("--all", action="store_true", help="show every difference, not the first ones of each section")


def _add_verify(verbs: Any) -> None:
    def run(arguments: argparse.Namespace) -> int:
        from fulmen.checkpoints.verify import verify

        return verify(arguments.path)

    parser = _add(
        verbs,
        "verify",
        run,
        "whether files are whole, plain data, and as they were written",
        "Read checkpoints whole, and compare them with the index `checkpoints.json` beside them if there is one. Of a "
        "folder, all that its index names, and the files that it does not name. One line per file, which begins with "
        "what it is: sound, plain (whole, but no checkpoint of a run), not plain, unsafe (it would run code), damaged "
        "or missing. The exit code is 0 if all are sound or plain, else 1.",
    )
    parser.add_argument("path", metavar="PATH", nargs="+", help="a checkpoint, or a folder of checkpoints")


def _add_convert(verbs: Any) -> None:
    def run(arguments: argparse.Namespace) -> int:
        from fulmen.checkpoints.convert import convert

        return convert(arguments.source, arguments.target, force=arguments.force)

    parser = _add(
        verbs,
        "convert",
        run,
        "make a file of Lightning that needs more than plain data a plain one",
        "Write a checkpoint anew as plain data, which loads with `weights_only=True` here and in Lightning. Nothing "
        "that the file names is imported or called: harmless values get their plain form, all else is left out and "
        "told. Files of Lightning 1.x get the present layout.",
    )
    parser.add_argument("source", metavar="IN", help="a checkpoint")
    parser.add_argument(
        "target", metavar="OUT", nargs="?", help="the file to write (default: IN with `.plain` before its suffix)"
    )
    parser.add_argument("--force", action="store_true", help="write over OUT if it is there")


def _add_export(verbs: Any) -> None:
    def run(arguments: argparse.Namespace) -> int:
        from fulmen.checkpoints.export import export

        return export(arguments.source, arguments.target, prefix=arguments.prefix, force=arguments.force)

    parser = _add(
        verbs,
        "export",
        run,
        "the weights as a safetensors file",
        "Write the weights of a checkpoint in the format of safetensors, with step, epoch and hyperparameters in its "
        "header. Weights that share their data are written once; the metadata `aliases` names the others.",
    )
    parser.add_argument("source", metavar="FILE", help="a checkpoint")
    parser.add_argument("target", metavar="OUT.safetensors", help="the file to write")
    parser.add_argument(
        "--prefix", default="", metavar="P", help="only the weights whose names begin with this (`model.`), without it"
    )
    parser.add_argument("--force", action="store_true", help="write over OUT if it is there")


def _add_consolidate(verbs: Any) -> None:
    def run(arguments: argparse.Namespace) -> int:
        from fulmen.checkpoints.consolidate import consolidate

        return consolidate(arguments.source, arguments.target, force=arguments.force)

    parser = _add(
        verbs,
        "consolidate",
        run,
        "one file of a folder of shards",
        "Write a checkpoint that processes have written in shards (`state_dict_type='sharded'`, or by Lightning, of "
        "which the weights are taken) as one file, which everything else reads.",
    )
    parser.add_argument("source", metavar="FOLDER", help="a sharded checkpoint")
    parser.add_argument(
        "target", metavar="OUT", nargs="?", help="the file to write (default: FOLDER with `.consolidated` at its end)"
    )
    parser.add_argument("--force", action="store_true", help="write over OUT if it is there")


def _add_shard(verbs: Any) -> None:
    def run(arguments: argparse.Namespace) -> int:
        from fulmen.checkpoints.consolidate import shard

        return shard(arguments.source, arguments.target, force=arguments.force)

    parser = _add(
        verbs,
        "shard",
        run,
        "a folder of shards of one file",
        "Write a checkpoint as a folder of shards, of which each process reads only what it needs.",
    )
    parser.add_argument("source", metavar="FILE", help="a checkpoint")
    parser.add_argument("target", metavar="FOLDER", help="the folder to write")
    parser.add_argument("--force", action="store_true", help="write over FOLDER if it is one of shards")


def _tolerance(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = -1.0
    if not value >= 0:
        raise argparse.ArgumentTypeError(f"{text} is not a number of at least 0")
    return value
