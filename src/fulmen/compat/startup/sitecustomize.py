"""Installs the aliases when Python starts, before the program, where ``PYTHONPATH`` names this folder.

Python imports one ``sitecustomize`` only, so the one that this hides is imported afterwards.
"""

from __future__ import annotations

import os
import sys
from contextlib import suppress
from importlib.machinery import PathFinder
from importlib.util import module_from_spec

_FOLDER = os.path.dirname(os.path.abspath(__file__))


def _import_the_hidden_one() -> None:
    """Import the ``sitecustomize`` that comes next, if there is one, as if this one were not there."""
    sys.path[:] = [entry for entry in sys.path if os.path.abspath(entry) != _FOLDER]
    spec = PathFinder.find_spec("sitecustomize")
    if spec is not None and spec.loader is not None:
        module = sys.modules["sitecustomize"] = module_from_spec(spec)
        spec.loader.exec_module(module)


if os.environ.get("FULMEN_COMPAT") != "0":
    # an interpreter without Fulmen inherits the variable too, and has nothing to put in Lightning's place
    with suppress(ModuleNotFoundError):
        from fulmen.compat.aliases import install

        install()
_import_the_hidden_one()
