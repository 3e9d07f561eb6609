"""The libraries of the services that metrics are sent to: imported when they are used, named when they are missing."""

from __future__ import annotations

from importlib import import_module
from importlib.util import find_spec
from typing import Any


def require_library(package: str, extra: str, logger: str) -> None:
    """Do nothing if ``package`` is installed, which is not imported.

    Raises:
        ModuleNotFoundError: it is not; the message names the ``extra`` that brings it.
    """
    if find_spec(package) is None:
        raise ModuleNotFoundError(
            f"{logger} needs the package {package}, which is not installed. Run `pip install 'fulmen[{extra}]'`, or "
            "use CSVLogger.",
            name=package,
        )


def library(package: str) -> Any:
    """The package, imported now."""
    return import_module(package)
