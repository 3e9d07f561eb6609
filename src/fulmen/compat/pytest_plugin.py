"""``pytest -p fulmen.compat.pytest_plugin``: the tests import Fulmen where they say Lightning."""

from __future__ import annotations

from fulmen import __version__
from fulmen.compat.aliases import install

install()  # when pytest reads its command line: a `conftest.py` may import Lightning


def pytest_report_header() -> str:
    return f"fulmen.compat: Lightning's names are those of Fulmen {__version__}"
