"""The translation of Lightning 1, switched on for one test."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from fulmen import Trainer
from fulmen.compat import old


@pytest.fixture
def enabled() -> Iterator[None]:
    old.enable()
    yield
    old.disable()


@pytest.fixture
def quiet(tmp_path: Path) -> Any:
    """Make a Trainer that writes and shows nothing."""

    def make(**arguments: Any) -> Trainer:
        defaults: dict[str, Any] = dict(max_epochs=1, logger=False, enable_checkpointing=False)
        defaults |= dict(enable_progress_bar=False, enable_model_summary=False, default_root_dir=tmp_path)
        return Trainer(**(defaults | arguments))

    return make
