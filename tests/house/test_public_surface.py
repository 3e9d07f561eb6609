"""The public names and signatures change on purpose or not at all."""

from __future__ import annotations

import difflib

from .public_surface import SURFACE, surface


def test_public_surface_equals_the_checked_in_list() -> None:
    promised = SURFACE.read_text(encoding="utf-8")
    changes = difflib.unified_diff(promised.splitlines(), surface().splitlines(), "promised", "now", lineterm="")
    difference = "\n".join(changes)
    assert not difference, f"run `make lists` if this is meant:\n{difference}"
