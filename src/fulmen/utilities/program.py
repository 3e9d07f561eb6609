"""How this program was started, so that it can be started once more."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

from fulmen.utilities.exceptions import MisconfigurationException


def _directory() -> str:
    try:
        return os.getcwd()
    except OSError:  # it was removed
        return ""


#: the directory at the first import; a program that goes elsewhere does so later, as a rule
_DIRECTORY_AT_IMPORT = _directory()
_OPTIONS_WITH_VALUE = "WX"  # of the interpreter; the value is the rest of the word, or the next word
_RUNNER = "fulmen.compat"  # a module that runs the program that is named after it, as the interpreter would


def is_interactive() -> bool:
    """Whether this is a notebook or a prompt: there is no program that could be started once more."""
    place, kind = _place_of_program()
    has_file = getattr(sys.modules["__main__"], "__file__", None) is not None
    return not (has_file or kind == "c") or sys.orig_argv[1:][place : place + 1] == ["-"]


def command() -> tuple[list[str], str]:
    """The command of this program, and the directory that it was started in.

    Raises:
        MisconfigurationException: it is an interactive session, or was read from a pipe.
    """
    if is_interactive():
        raise MisconfigurationException(
            "several processes were asked for, but there is no program here that the others could run: this is an "
            "interactive session. Write `strategy='ddp_notebook'`, which sends them what they need."
        )
    arguments, (place, kind) = list(sys.orig_argv[1:]), _place_of_program()
    config = _of_hydra()
    if config is not None:
        own = place + (1 if kind == "" or len(arguments[place]) > 2 else 2)
        arguments[own:] = [*_flags_of_hydra(arguments[own:]), *_overrides_of_hydra(config)]
        return [sys.executable, *arguments], config.runtime.cwd
    directory = next(_directories(arguments[place], kind), None)
    if directory is None:
        directory = os.getcwd()
        if kind == "":
            arguments[place] = os.path.abspath(sys.modules["__main__"].__file__ or "")
    return [sys.executable, *arguments], directory


def job_of_sweep() -> str:
    """The folder of the job of a sweep that the program is at: a program of Hydra does several, one after another."""
    config = _of_hydra()
    return "" if config is None else config.runtime.output_dir


def _place_of_program() -> tuple[int, str]:
    """Which argument of the interpreter names the program, and how: ``"m"``, ``"c"``, or ``""`` for a file."""
    arguments, place = sys.orig_argv[1:], 0
    while place < len(arguments):
        word = arguments[place]
        if not word.startswith("-") or word == "-":
            return place, ""
        if word.startswith("--"):
            place += 1 + (word == "--check-hash-based-pycs")
            continue
        for index, letter in enumerate(word[1:], 2):
            if letter in "mc":
                if letter == "c" or (word[index:] or "".join(arguments[place + 1 : place + 2])) != _RUNNER:
                    return place, letter
                place += index == len(word)
                break
            if letter in _OPTIONS_WITH_VALUE:
                place += index == len(word)
                break
        place += 1
    return place, ""


def _directories(program: str, kind: str) -> Iterator[str]:
    """Where the program may have been started, the likeliest first."""
    known = [directory for directory in (_DIRECTORY_AT_IMPORT, os.environ.get("PWD", "")) if directory]
    main = getattr(sys.modules["__main__"], "__file__", None)
    if kind == "m" and main is not None and sys.path[:1] and Path(main).is_relative_to(sys.path[0] or "/"):
        yield sys.path[0]  # where `python -m` looks first
    if kind != "" or main is None or os.path.isabs(program):
        yield from known
        return
    parts, own = Path(main).parts, Path(program).parts
    if parts[-len(own) :] == own:
        yield str(Path(*parts[: -len(own)]))
    for directory in known:
        with suppress(OSError):
            if os.path.samefile(os.path.join(directory, program), main):
                yield directory


# -- Hydra ------------------------------------------------------------------------------------------------------------


def _of_hydra() -> Any:
    """The settings of the job of Hydra that this program is at; None without Hydra."""
    hydra: Any = sys.modules.get("hydra.core.hydra_config")
    if hydra is None or not hydra.HydraConfig.initialized():
        return None
    return hydra.HydraConfig.get()


def _flags_of_hydra(arguments: list[str]) -> Iterator[str]:
    """Those that say where the configuration is."""
    taken = False
    for word in arguments:
        name = word.partition("=")[0]
        if taken or name in ("--config-path", "-cp", "--config-name", "-cn", "--config-dir", "-cd"):
            yield word
            taken = not taken and "=" not in word


def _overrides_of_hydra(config: Any) -> Iterator[str]:
    """What makes one more process do this job, in its folder, and nothing else."""
    own = ("hydra.mode", "hydra.run", "hydra.sweep", "hydra.job.name", "hydra.job.num", "hydra.job.id", "hydra.output_")
    for word in config.overrides.hydra:
        name = word.lstrip("+~").partition("=")[0]
        if not name.startswith((*own, "hydra/launcher", "hydra/sweeper", "hydra.launcher", "hydra.hydra_logging")):
            yield word
    yield from config.overrides.task
    yield f"hydra.run.dir={_quoted(config.runtime.output_dir)}"
    yield f"hydra.job.name={_quoted(config.job.name)}"
    for name in ("num", "id"):
        value = config.job.get(name)  # None: outside of a sweep
        if value is not None:
            yield f"hydra.job.{name}={_quoted(value) if isinstance(value, str) else value}"
    yield "hydra.output_subdir=null"
    yield "hydra/hydra_logging=disabled"


def _quoted(text: str) -> str:
    return '"' + text.replace("\\", "\\\\").replace('"', '\\"') + '"'
