"""``python -m fulmen.compat script.py ...``: run a program that was written for Lightning, without an edit."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from importlib.machinery import SourceFileLoader
from importlib.util import find_spec
from types import CodeType, ModuleType
from typing import NoReturn

from fulmen.compat import switch
from fulmen.compat.aliases import STARTUP, install

USAGE = """\
usage: python -m fulmen.compat SCRIPT [ARGUMENT ...]
       python -m fulmen.compat -m MODULE [ARGUMENT ...]
       python -m fulmen.compat --startup
       python -m fulmen.compat --add-switch | --remove-switch

Run a program as `python` does, with Fulmen in the place of Lightning: `import lightning`, `lightning.pytorch`,
`pytorch_lightning`, `lightning.fabric` and `lightning_fabric` give Fulmen's own classes, in this process and in those
that it starts.

  --add-switch     put a switch into this environment: every Python of it has the aliases where FULMEN_COMPAT=1 is set,
                   FULMEN_COMPAT=1 python script.py; where it is not set, nothing changes
  --remove-switch  take it out again
  --startup        print the folder that has the same effect on every Python that finds it in PYTHONPATH:
                   PYTHONPATH=$(python -m fulmen.compat --startup) python script.py
"""


def main(arguments: Sequence[str]) -> None:
    """Do what the command line asks for."""
    match [*arguments]:
        case []:
            print(USAGE, end="", file=sys.stderr)
            raise SystemExit(2)
        case ["-h" | "--help"]:
            print(USAGE, end="")
        case ["--startup"]:
            print(STARTUP)
        case ["--add-switch" | "--remove-switch" as action]:
            _turn(action)
        case ["-m", module, *rest]:
            install()
            _run_module(module, rest)
        case [option, *_] if option.startswith("-"):
            _refuse(f"there is no option {option}. See --help")
        case [script, *rest]:
            install()
            _run_script(script, rest)


def _turn(action: str) -> None:
    try:
        path = switch.add() if action == "--add-switch" else switch.remove()
    except OSError as error:
        _refuse(
            f"{switch.place()} cannot be written: {error.strerror}. Use an environment of your own (`python -m venv`)"
        )
    if path is None:
        print("there is no switch in this environment")
    elif action == "--add-switch":
        print(f"wrote {path}: FULMEN_COMPAT=1 python ... has the aliases")
    else:
        print(f"removed {path}")


def _run_script(script: str, arguments: list[str]) -> None:
    path = os.path.abspath(script)
    if not os.path.isfile(path):
        _refuse(f"there is no file {script!r}")
    loader = SourceFileLoader("__main__", path)
    program = ModuleType("__main__")
    program.__file__, program.__loader__ = path, loader
    if not sys.flags.safe_path:
        sys.path[0] = os.path.dirname(os.path.realpath(path))  # as Python does
    _run(program, loader.source_to_code(loader.get_data(path), path), [script, *arguments])


def _run_module(name: str, arguments: list[str]) -> None:
    try:
        spec = find_spec(name)
        if spec is not None and spec.submodule_search_locations is not None:
            spec = find_spec(f"{name}.__main__")
    except ModuleNotFoundError as error:  # of a package above it
        _refuse(f"there is no module {error.name!r}, which {name!r} is in")
    code = getattr(spec.loader, "get_code", lambda _: None)(spec.name) if spec is not None else None
    if spec is None or code is None:
        _refuse(f"there is no module {name!r} that could be run")
    program = ModuleType("__main__")
    program.__file__, program.__loader__ = spec.origin, spec.loader
    program.__spec__, program.__package__ = spec, spec.parent  # workers of `multiprocessing` find the program by them
    _run(program, code, [spec.origin or name, *arguments])


def _run(program: ModuleType, code: CodeType, arguments: list[str]) -> None:
    """Run ``code`` as the program of this process."""
    sys.argv = arguments
    sys.modules["__main__"] = program
    exec(code, program.__dict__)


def _refuse(reason: str) -> NoReturn:
    print(f"fulmen.compat: {reason}", file=sys.stderr)
    raise SystemExit(2)


if __name__ == "__main__":
    main(sys.argv[1:])
